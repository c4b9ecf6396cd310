"""Artifacts: one file that every engine loads."""

from equistride.artifact.frames import BatchOutputs, Frame, Outputs, Stride
from equistride.artifact.metadata import Metadata
from equistride.artifact.model import Model, load

__all__ = ["BatchOutputs", "Frame", "Metadata", "Model", "Outputs", "Stride", "load"]
