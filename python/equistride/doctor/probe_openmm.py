"""Facts of OpenMM and of our plugin for it, told by a process of its own."""

from equistride.doctor.children import tell
from equistride.errors import first_line


def main() -> None:
    """Import OpenMM, load the plugin and make one of its objects."""
    try:
        import openmm
        import openmm.version
    except Exception as error:
        tell(missing=isinstance(error, ModuleNotFoundError) and error.name == "openmm", error=first_line(error))
        return
    tell(version=openmm.version.short_version)
    platforms = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    tell(platforms=platforms, failures=list(openmm.Platform.getPluginLoadFailures()))
    try:
        from equistride.engines.openmm_force import PropagatorMark

        PropagatorMark()
        tell(plugin="")
    except Exception as error:
        tell(plugin=first_line(error))


if __name__ == "__main__":
    main()
