"""MD17, rMD17 and ISO17 as published: units, time stamps, gaps, overlap, and a download that checks what came."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.data.download import SOURCES, Source, download, known_source
from equistride.data.frames import Frames, load
from equistride.data.md17 import (
    consecutive,
    cut,
    fingerprints,
    overlap,
    read_published,
    refuse_overlap,
    unpack_iso17,
    without,
)
from equistride.errors import EquistrideError
from equistride.units import EV_PER_KCAL_MOL

NUMBERS = np.array([6, 8, 1, 1])


def motion(count: int, seed: int = 0, spacing: float = 0.5) -> Frames:
    """Four atoms on springs in smooth motion, as MD17's atoms move."""
    rng = np.random.default_rng(seed)
    centres, amplitudes = 2.0 * rng.normal(size=(4, 3)), 0.2 * rng.normal(size=(4, 3))
    phases, periods = rng.uniform(0, 2 * np.pi, (4, 3)), rng.uniform(15, 60, (4, 3))
    time = spacing * np.arange(count)
    positions = centres + amplitudes * np.sin(2 * np.pi * time[:, None, None] / periods + phases)
    return Frames(
        numbers=NUMBERS, positions=positions, cell=np.zeros((count, 3, 3)), pbc=np.zeros(3, bool),
        energy=rng.normal(size=count), forces=rng.normal(size=(count, 4, 3)),
    )  # fmt: skip


def write_md17(path: Path, frames: Frames, *, marked: bool = True, **extra: object) -> None:
    """Write frames as MD17 is published: kcal/mol, with the fingerprint of sGDML."""
    arrays = {
        "z": frames.numbers.astype(np.uint8), "R": frames.positions, "E": frames.energy[:, None] / EV_PER_KCAL_MOL,
        "F": frames.forces / EV_PER_KCAL_MOL, **extra,
    }  # fmt: skip
    if marked:
        arrays["md5"] = np.array(fingerprints(arrays)[1].encode())
    np.savez(path, **arrays)


def test_md17_comes_in_ev_with_time_stamps(tmp_path: Path) -> None:
    frames = motion(50)
    write_md17(tmp_path / "md17_x.npz", frames, e_unit=np.array("kcal/mol"))
    (read,) = read_published(tmp_path / "md17_x.npz")
    assert pytest.approx(0.0433641, rel=1e-6) == EV_PER_KCAL_MOL
    assert np.allclose(read.energy, frames.energy, rtol=0, atol=1e-14)
    assert np.allclose(read.forces, frames.forces, rtol=0, atol=1e-14)
    assert np.array_equal(read.time_fs, 0.5 * np.arange(50))
    assert np.array_equal(read.segment, np.zeros(50))


def test_changed_arrays_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "md17_x.npz"
    write_md17(path, motion(20))
    with np.load(path) as z:
        arrays = dict(z)
    arrays["F"][3, 1, 0] += 1e-9
    np.savez(path, **arrays)
    with pytest.raises(EquistrideError, match="not those that were published; expected fingerprint"):
        read_published(path)
    write_md17(path, motion(20), marked=False, e_unit=np.array("furlong"))
    with pytest.raises(EquistrideError, match=r"the energy unit of .* is not known; expected eV, .*found furlong"):
        read_published(path)


def test_revised_md17_is_paired_by_its_numbers(tmp_path: Path) -> None:
    """Its frames are in no order; ``old_indices`` say where in MD17's trajectory each was."""
    frames, number = motion(40), np.array([7, 3, 8, 4, 20, 9, 5])
    picked = frames[number]
    np.savez(
        tmp_path / "rmd17_x.npz", nuclear_charges=NUMBERS, coords=picked.positions, energies=picked.energy / EV_PER_KCAL_MOL,
        forces=picked.forces / EV_PER_KCAL_MOL, old_indices=number,
    )  # fmt: skip
    (read,) = read_published(tmp_path / "rmd17_x.npz")
    assert np.array_equal(read.time_fs, [1.5, 2.0, 2.5, 3.5, 4.0, 4.5, 10.0])
    assert np.array_equal(read.segment, [0, 0, 0, 1, 1, 1, 2])
    assert np.array_equal(read.positions[-1], frames.positions[20])


def test_iso17_is_read_from_its_databases(tmp_path: Path) -> None:
    frames = motion(3)
    folder = tmp_path / "iso17"
    folder.mkdir()
    with ase.db.connect(folder / "reference.db") as database:
        for k in range(3):
            atoms = Atoms(NUMBERS, frames.positions[k])
            database.write(atoms, total_energy=float(frames.energy[k]), data={"atomic_forces": frames.forces[k]})
    (folder / "readme.txt").write_text("not wanted")
    archive = tmp_path / "iso17.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "iso17")
    (path,) = unpack_iso17(archive, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["reference.db"]
    (read,) = read_published(path)
    assert np.array_equal(read.energy, frames.energy)
    assert np.array_equal(read.forces, frames.forces)
    assert read.time_fs is None
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(EquistrideError, match=r"cannot be unpacked|holds none"):
        unpack_iso17(archive, tmp_path / "out")


def test_gaps_begin_new_segments() -> None:
    frames = motion(200)
    kept = np.delete(np.arange(200), [50, 120, 121])
    found = consecutive(frames[kept], 0.5)
    assert found.segment is not None
    assert np.flatnonzero(np.diff(found.segment)).tolist() == [49, 118]
    with pytest.raises(EquistrideError, match="do not follow each other in time"):
        consecutive(frames[np.random.default_rng(1).permutation(200)], 0.5)
    with pytest.raises(EquistrideError, match="must be above 0"):
        consecutive(frames, 0.0)


def test_real_trajectories_have_no_gap_and_known_overlap(shared_data: Path) -> None:
    """The consecutive frames are taken out of the same trajectory as the random ones: some are in both sets."""
    for molecule, shared in (("aspirin", 8), ("ethanol", 5)):
        path = shared_data / "md17" / f"{molecule}_consecutive.npz"
        trajectory, random = (
            read_published(shared_data / "md17" / f"{molecule}_{k}.npz")[0] for k in ("consecutive", "random1000")
        )
        assert np.unique(trajectory.segment).size == 1
        missing = consecutive(trajectory[np.delete(np.arange(len(trajectory)), [100, 200, 201, 333])], 0.5)
        assert np.flatnonzero(np.diff(missing.segment)).tolist() == [99, 198, 329]
        assert len(overlap(random, trajectory)) == len(overlap(trajectory, random)) == shared
        with pytest.raises(EquistrideError, match=f"{shared} frames of .*random1000 are in {path.name} too"):
            refuse_overlap([(path.name, trajectory), ("random1000", random)])
        clean = without(trajectory, [random])
        refuse_overlap([("clean", clean), ("random1000", random)])
        assert np.unique(clean.segment).size == shared + 1
        same = clean.segment[1:] == clean.segment[:-1]
        assert np.allclose(np.diff(clean.time_fs)[same], 0.5)


def test_other_atoms_never_overlap() -> None:
    frames = motion(5)
    assert len(overlap(frames, frames)) == 5
    assert len(overlap(frames, replace(frames, numbers=NUMBERS[::-1].copy()))) == 0
    assert len(overlap(frames, replace(frames, positions=frames.positions + 0.01))) == 0
    assert len(overlap(frames, replace(frames, positions=frames.positions + 1e-4))) == 5


def test_cut_keeps_pairs_whole() -> None:
    frames = consecutive(motion(100)[np.delete(np.arange(100), [37])], 0.5)
    pieces = cut(frames, 10, guard=3)
    assert pieces.segment is not None
    for name in np.unique(pieces.segment):
        rows = pieces.time_fs[pieces.segment == name]
        assert len(rows) == 10
        assert np.allclose(np.diff(rows), 0.5)
    assert len(np.unique(pieces.time_fs)) == len(pieces)
    with pytest.raises(EquistrideError, match="no piece is long enough; expected 70 frames in a row; found 62"):
        cut(frames, 70)
    with pytest.raises(EquistrideError, match="no time stamps"):
        cut(motion(20), 5)


def test_download_checks_the_hash(tmp_path: Path) -> None:
    """A file:// address goes the way of any other."""
    content = bytes(range(256)) * 9000
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x.npz").write_bytes(content)
    right = hashlib.md5(content, usedforsecurity=False).hexdigest()
    source = Source((tmp_path / "there" / "x.npz").as_uri(), "x.npz", "nobody", right)
    seen: list[tuple[int, int | None]] = []
    path = download(source, tmp_path / "here", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == content
    assert seen[-1] == (len(content), len(content))
    path.write_bytes(content[:-1])
    with pytest.raises(EquistrideError, match=f"not the published file x.npz; expected MD5 {right}"):
        download(source, tmp_path / "here")
    wrong = replace(source, md5="0" * 32)
    with pytest.raises(EquistrideError, match="is not the published file"):
        download(wrong, tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    lost = replace(source, url=(tmp_path / "nowhere.npz").as_uri())
    with pytest.raises(EquistrideError, match=r"cannot be fetched .*fetch it by other means and put it at"):
        download(lost, tmp_path / "empty")


def test_every_source_is_named_in_full() -> None:
    assert {
        f"md17/{m}"
        for m in ("aspirin", "benzene", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene", "uracil")
    } < set(SOURCES)
    for source in SOURCES.values():
        assert source.url.startswith(("https://", "http://www.quantum-machine.org/"))
        assert source.citation
        assert source.md5 is None or len(source.md5) == 32
    with pytest.raises(EquistrideError, match="no published data set 'md17/water'; expected md17/aspirin"):
        known_source("md17/water")


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = motion(60)
    write_md17(tmp_path / "md17_x.npz", frames)
    frames[10:12].save(tmp_path / "test.npz")
    arguments = ["data", "md17", str(tmp_path / "md17_x.npz"), "-o", str(tmp_path / "out"), "--segment", "10"]
    result = CliRunner().invoke(app, [*arguments, "--drop", str(tmp_path / "test.npz")])
    assert result.exit_code == 0, result.output
    assert "50 frames of 4 atoms, 45 consecutive pairs, 10 left out" in result.output
    (written,) = load(tmp_path / "out" / "md17_x.npz")
    assert len(written) == 50
    result = CliRunner().invoke(app, [*arguments, "--keep", str(tmp_path / "test.npz")])
    assert isinstance(result.exception, EquistrideError)
    assert "2 frames of" in str(result.exception)
    result = CliRunner().invoke(app, ["data", "md17", "md17/water"])
    assert "no published data set 'md17/water'" in str(result.exception)
    local = replace(SOURCES["md17/ethanol"], url=(tmp_path / "md17_x.npz").as_uri())
    monkeypatch.setitem(SOURCES, "md17/ethanol", local)
    result = CliRunner().invoke(app, ["data", "md17", "md17/ethanol", "-o", str(tmp_path / "net")])
    assert result.exit_code == 0, result.output
    assert "sgdml.org" in result.output
    assert len(load(tmp_path / "net" / "md17_ethanol.npz")[0]) == 60
