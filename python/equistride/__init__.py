"""equistride: trained equivariant networks, fast and safe in OpenMM and LAMMPS."""

from equistride._native import __version__

__all__ = ["__version__"]
