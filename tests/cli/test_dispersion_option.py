"""``--d3`` at import and export: what it writes, and what it refuses before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli.main import app

CHECKPOINT = Path(__file__).resolve().parents[1] / "data" / "nequip" / "sevennet-c.pth"
pytest.importorskip("tad_dftd3", reason="tad-dftd3 is not installed: pip install 'equistride[dispersion]'")


def said(*arguments: object) -> tuple[bool, str]:
    """Return whether the command succeeded and what it said."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code == 0, f"{result.output} {result.exception}"


def test_an_import_and_an_artifact_get_it(tmp_path: Path) -> None:
    plain, imported, exported = (tmp_path / name for name in ("plain.pt", "imported.pt", "exported.pt"))
    common = ("import", "sevennet", CHECKPOINT, "--elements", "O,Si", "--dtype", "float64")
    assert said(*common, "-o", plain)[0]
    fine, text = said(*common, "-o", imported, "--d3", "pbe", "--d3-cutoff", 6)
    assert fine
    assert "D3(BJ) of pbe, two bodies, within 6 A: some 100 neighbours" in text
    assert said("export", plain, "-o", exported, "--d3", "pbe", "--d3-cutoff", 6)[0]
    fine, text = said("export", plain, "-o", tmp_path / "no.pt", "--d3", "pbe", "--weights", tmp_path / "weights.ckpt")
    assert not fine
    assert "--weights takes a checkpoint" in text
    assert not (tmp_path / "no.pt").exists()
    one, other = (load(path) for path in (imported, exported))
    assert one.metadata.weights["dispersion"] == other.metadata.weights["dispersion"]
    assert one.metadata.description.endswith("+ D3(BJ) of pbe")
    assert one.metadata.cutoff == 6.0


def test_what_cannot_have_it_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    output = tmp_path / "out.pt"
    common = ("import", "sevennet", CHECKPOINT, "-o", output)
    for options, reason in (
        (("--d3", "pbx"), "no parameters for this functional"),
        (("--d3-cutoff", 9), "--d3-cutoff is for --d3"),
        (("--d3", "pbe", "--container", "aoti"), "writes TorchScript and nothing else"),
        (("--elements", "O,Si", "--d3", "pbe", "--d3-cutoff", 4.2), "reach farther than the network"),
    ):
        fine, text = said(*common, *options)
        assert not fine
        assert reason in text
        assert not output.exists()
