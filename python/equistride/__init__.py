"""equistride: trained equivariant networks, fast and safe in OpenMM and LAMMPS."""

import sys
from pathlib import Path

from equistride.moved import MovedModules

try:
    from equistride._native import __version__
except ImportError as error:
    raise ImportError(
        f"equistride's native part is not there for this Python, or broken ({error}); expected the Python that it was installed "
        f"with; found {sys.executable}; install equistride with this one"
    ) from error

__all__ = ["__version__", "load_operators"]

sys.meta_path.append(MovedModules())


def load_operators() -> Path:
    """Load equistride's native operators into torch, once, for a script that runs a file of theirs without our engines.

    Files of ``equistride export --for openmm --fused`` need this before openmm-torch, or ``torch.jit.load``, reads them.

    Returns
    -------
    Path
        The library, for programs in C++ that load it by themselves.

    Raises
    ------
    EquistrideError
        Where the library was built for another torch.
    """
    from equistride._library import OPERATORS

    return OPERATORS
