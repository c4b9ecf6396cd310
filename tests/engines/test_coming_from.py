"""What docs/coming-from.md says to type works, as it stands there."""

from __future__ import annotations

import lzma
import re
import shlex
import shutil
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
from lammps_runs import crystal
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.engines.ase import EquistrideCalculator

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"
SECTIONS = dict(
    re.findall(
        r"^## (.*?)\n(.*?)(?=^## |\Z)", (REPOSITORY / "docs" / "coming-from.md").read_text(), re.MULTILINE | re.DOTALL
    )
)
FILES = {
    "trained.ckpt": DATA / "nequip" / "nequip-a.ckpt",
    "package.nequip.zip": DATA / "nequip" / "nequip-a.nequip.zip",
    "MACE.model": DATA / "mace" / "mixed.model.xz",
    "OMOL.model": DATA / "mace" / "omol.model.xz",
    "checkpoint.pth": DATA / "nequip" / "sevennet-c.pth",
    "esen.pt": DATA / "fairchem" / "L2M2_spectral.pt",
}
"""What stands for the files that the page names."""


def blocks(section: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    assert found
    return found


def type_in(section: str) -> None:
    """Do what the section's commands say, in the folder that is open."""
    for line in "".join(blocks(section, "sh")).splitlines():
        words = shlex.split(line)
        assert words[0] == "equistride"
        for name in set(words) & set(FILES):
            if FILES[name].suffix == ".xz":
                Path(name).write_bytes(lzma.decompress(FILES[name].read_bytes()))
            else:
                shutil.copy(FILES[name], name)
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception}"


@pytest.mark.parametrize("program", ["NequIP", "SevenNet", "fairchem"])
def test_commands_of(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    type_in(program)
    assert Path("potential.pt").is_file()


def test_commands_of_mace_and_all_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python blocks as they stand; the two lines of LAMMPS in an input of their own, with ASE's forces to float32's rounding."""
    monkeypatch.chdir(tmp_path)
    type_in("MACE")
    for block in blocks("The same in all engines", "python"):
        exec(compile(block, "docs/coming-from.md", "exec"), {})
    lmp.require_plugin()
    (lines,) = blocks("The same in all engines", "lammps")
    style, coefficients = (line.partition(" ")[2] for line in lines.splitlines())
    atoms = crystal()
    script = lmp.head(style, coefficients.replace("potential.pt", str(tmp_path / "potential.pt")))
    found = lmp.run(atoms, script + lmp.OUTPUT + "run 0\n", tmp_path / "lammps")
    atoms.calc = EquistrideCalculator("potential.pt")
    forces = atoms.get_forces()
    assert np.abs(found.forces - forces).max() < 1e-5 * max(1.0, np.abs(forces).max())
