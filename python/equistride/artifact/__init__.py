"""Artifacts: one file that every engine loads."""

from equistride.artifact.batch import BatchOutputs, Frame
from equistride.artifact.metadata import Metadata
from equistride.artifact.model import Model, Outputs, Stride, load

__all__ = ["BatchOutputs", "Frame", "Metadata", "Model", "Outputs", "Stride", "load"]
