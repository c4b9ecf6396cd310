"""equistride: trained equivariant networks, fast and safe in OpenMM and LAMMPS."""

import sys

from equistride._native import __version__
from equistride.moved import MovedModules

__all__ = ["__version__"]

sys.meta_path.append(MovedModules())
