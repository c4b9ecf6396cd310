"""``python -m equistride.lammps build``: compile the plugin for a LAMMPS of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from equistride.errors import EquistrideError
from equistride.lammps.build import build
from equistride.lammps.plugin import plugin_directory


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status: 2 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m equistride.lammps", description="equistride's plugin for LAMMPS")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("where", help="print the folder of the installed plugin")
    command = commands.add_parser("build", help="compile the plugin; without options, for the installed Python package")
    command.add_argument("--lmp", type=Path, help="LAMMPS executable")
    command.add_argument("--headers", type=Path, help="folder of LAMMPS's headers (its src folder)")
    command.add_argument("--mpi", type=Path, help="folder with the mpi.h that LAMMPS was compiled with")
    command.add_argument("-o", "--output", type=Path, help="folder for equistrideplugin.so")
    options = parser.parse_args(arguments)
    try:
        if options.command == "where":
            print(plugin_directory())
            return 0
        other = any(value is not None for value in (options.lmp, options.headers, options.mpi))
        output = options.output or (Path("lammps-plugin") if other else Path(plugin_directory()))
        plugin = build(output, options.lmp, options.headers, options.mpi)
    except EquistrideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"built {plugin}")
    if options.output is not None or other:
        print(f"before running LAMMPS: export LAMMPS_PLUGIN_PATH={plugin.parent.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
