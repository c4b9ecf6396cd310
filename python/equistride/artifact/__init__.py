"""Artifacts: one file that every engine loads."""

from equistride.artifact.metadata import Metadata
from equistride.artifact.model import Model, load
from equistride.artifact.outputs import BatchOutputs, Frame, Outputs, Stride
from equistride.artifact.own_module import export_module

__all__ = ["BatchOutputs", "Frame", "Metadata", "Model", "Outputs", "Stride", "export_module", "load"]
