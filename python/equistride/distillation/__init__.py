"""From a structure and a potential to a propagator, or a small potential, with its card."""

from equistride.distillation.run import Distillation, Outcome
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher, teacher_of

__all__ = ["Distillation", "Outcome", "Settings", "Teacher", "teacher_of"]
