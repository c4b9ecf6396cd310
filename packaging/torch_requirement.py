"""What the package depends on: the list of pyproject.toml, and the minor version of the torch that it is built for.

scikit-build-core calls this as it writes the metadata, so that pip installs beside a wheel the torch that its library fits.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any


def dynamic_metadata(field: str, settings: dict[str, Any], _project: Any = None) -> list[str]:
    """Return the requirements."""
    if field != "dependencies" or set(settings) != {"others"}:
        raise ValueError(f"{__name__} gives dependencies and takes others; found {field} and {sorted(settings)}")
    major, minor = version("torch").split("+")[0].split(".")[:2]
    return [f"torch=={major}.{minor}.*", *settings["others"]]
