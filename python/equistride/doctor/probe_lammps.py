"""Facts of the Python package of LAMMPS, its MPI and our plugin for it, told by a process of its own or by many."""

import ctypes
import importlib.util
import sys
from importlib import metadata

from equistride.doctor.children import tell
from equistride.errors import first_line


def main(alone: bool) -> None:
    """Make an instance of LAMMPS; ``alone`` also looks at the plugin, else each process tells how many there are."""
    if importlib.util.find_spec("lammps") is None:
        tell(missing=True)
        return
    from equistride.lammps import plugin_directory
    from equistride.lammps.host import mpi_library

    if alone:
        tell(version=metadata.version("lammps"), library=str(mpi_library() or ""))
    try:
        plugin_directory()  # which loads the MPI library
        import lammps

        instance = lammps.lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    except Exception as error:
        tell(error=first_line(error))
        return
    tell(world=instance.extract_setting("world_size"))
    if alone:
        text, length = ctypes.create_string_buffer(8192), ctypes.c_int()
        ctypes.CDLL(None).MPI_Get_library_version(text, ctypes.byref(length))
        tell(mpi=" ".join(text.value.decode(errors="replace").split("\n")[0].split()))
        tell(style=bool(instance.has_style("pair", "equistride")))


if __name__ == "__main__":
    main(alone=sys.argv[1:] != ["together"])
