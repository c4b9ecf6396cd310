"""What packages say of their requirements is what pyproject.toml says, and the wheel has what its commands need."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
import yaml

from equistride.cli.released import FOLDER, released
from equistride.errors import EquistrideError

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
ELSEWHERE = {"matplotlib": "matplotlib-base"}
"""Names that conda-forge has for packages of PyPI."""


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = yaml.safe_load((REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text())
    run = {line.split()[0]: line.partition(" ")[2] for line in recipe["requirements"]["run"]}
    assert "pytorch" in run
    for requirement in PROJECT["tool"]["scikit-build"]["metadata"]["dependencies"]["others"]:
        name, version = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        assert ELSEWHERE.get(name, name) in run
        assert run[ELSEWHERE.get(name, name)] == version


@pytest.mark.parametrize("file", ["cpu.Dockerfile", "cuda.Dockerfile"])
def test_images_build_with_what_the_build_needs(file: str) -> None:
    text = (REPOSITORY / "packaging" / file).read_text()
    for requirement in PROJECT["build-system"]["requires"]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert re.search(rf"['\" ]{re.escape(name)}[\[<>= \n]", text), requirement
    extras = re.search(r"\.whl\)\[([\w,-]+)\]", text)
    assert extras is not None
    assert set(extras[1].split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_extras_are_there() -> None:
    wanted = {"lammps", "train", "properties", "report", "torch-sim", "docs"}
    assert wanted <= PROJECT["project"]["optional-dependencies"].keys()
    assert any('extra == "report"' in line for line in requires("equistride") or ())


def test_pip_installs_the_torch_that_the_library_fits() -> None:
    """The build writes the torch that it saw, which is the one that runs here."""
    major, minor = torch.__version__.split("+")[0].split(".")[:2]
    assert f"torch=={major}.{minor}.*" in (requires("equistride") or ())


def test_the_demos_models_come_with_the_package() -> None:
    for name in ("quartz-esen", "quartz-trajcast-30fs"):
        assert released(name).read_bytes() == (REPOSITORY / "models" / name / f"{name}.pt").read_bytes()
    with pytest.raises(EquistrideError, match="the model water did not come with this installation; expected a file"):
        released("water")
    assert FOLDER.is_dir()
