"""Simulations of one structure under one model, in any engine: settings, the loop, files that survive a stop."""

from equistride.simulation.run import simulate
from equistride.simulation.settings import Settings

__all__ = ["Settings", "simulate"]
