"""Strides whose state stays on the network's device, as OpenMM's CUDA platform takes them: one step in tensors of fixed size.

Here the device is the CPU; on a machine with a GPU the same tests replay the captured step (`-m cuda`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trajcast_systems as systems
from random_models import random_potential, write_artifact
from torch import Tensor
from trajcast_systems import Frame, run_of, strides

import equistride._library  # noqa: F401  (registers the classes)
from equistride.artifact.propagators import save_propagator

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
THERMOSTATS = ["none", "csvr", "langevin", "langevin+csvr"]
EXACT = 1e-11
"""Of the largest number, a stride: float64, of which sums go another way round."""


def frames() -> dict[str, Frame]:
    cluster = systems.cluster(14)
    return {"crystal": systems.crystal(), "cluster": cluster._replace(positions=1.5 * cluster.positions)}


@pytest.fixture(scope="module")
def propagator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strides") / "propagator.pt"
    save_propagator(systems.propagator(), path, dtype="float64", tables=1e-6)
    return path


def assert_near(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("thermostat", THERMOSTATS)
@pytest.mark.parametrize("name", frames())
def test_a_stride_is_that_of_the_host(name: str, thermostat: str, device: str, propagator: Path) -> None:
    """One seed, one noise, wherever the state lies; errors grow tenfold in a few strides."""
    frame, velocities = frames()[name], {}
    # a network of random weights would take the cluster apart
    for count, tolerance in ((1, EXACT), (4, 100 * EXACT)) if name == "crystal" else ((1, EXACT),):
        there = run_of(propagator, frame, thermostat, device)
        there.stay_on_device()
        expected = strides(run_of(propagator, frame, thermostat), frame, count)
        assert_near(strides(there, frame, count), expected, tolerance)
        velocities[count] = expected[1]
    other = strides(run_of(propagator, frame, thermostat, seed=6), frame, 1)
    assert torch.equal(other[1], velocities[1]) == (thermostat == "none")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["correct", "reject"])
def test_a_guard_watches_there_too(mode: str, device: str, propagator: Path, random_artifact64: Path) -> None:
    """Its check is on the device as well; a bound of nothing calls for a repair of each stride that the network makes."""
    frame = frames()["cluster"]
    found = []
    for there in (False, True):
        run = run_of(propagator, frame, "csvr", device if there else "cpu")
        run.set_guard(str(random_artifact64), mode, 1, 0.0, False, 5.0)
        if there:
            run.stay_on_device()
        found.append((strides(run, frame, 2), {k: v for k, v in run.statistics().items() if "seconds" not in k}))
    assert found[0][1]["violations"] > 0
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    assert_near(found[1][0], found[0][0], 1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_goes_on_from_its_checkpoint(device: str, propagator: Path) -> None:
    frame = frames()["crystal"]
    whole, first = (run_of(propagator, frame, "langevin", device) for _ in range(2))
    for run in (whole, first):
        run.stay_on_device()
    expected = strides(whole, frame, 4)
    half = strides(first, frame, 2)
    second = run_of(propagator, frame, "langevin", device, seed=99)
    second.stay_on_device()
    second.set_state(first.state())
    found = strides(second, frame._replace(positions=half[0], velocities=half[1]), 2)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("device", DEVICES)
def test_a_thermostat_that_changes(device: str, propagator: Path) -> None:
    """Another temperature, and none, are heeded by the next stride."""
    frame = frames()["crystal"]
    here, there = run_of(propagator, frame, "csvr"), run_of(propagator, frame, "csvr", device)
    there.stay_on_device()
    for change in (("csvr", 300.0), ("csvr", 900.0), ("none", 0.0), ("langevin", 50.0)):
        for run in (here, there):
            run.set_thermostat(*change, 50.0, 0.0)
        assert_near(strides(there, frame, 1), strides(here, frame, 1), EXACT)


@pytest.mark.parametrize("device", DEVICES)
def test_errors_are_those_of_the_host(device: str, propagator: Path) -> None:
    frame = frames()["crystal"]
    run = run_of(propagator, frame, "csvr", device)
    run.stay_on_device()
    sound = strides(run, frame, 1)
    lost = frame.positions.clone()
    lost[3, 1] = torch.nan
    for bad, says in (
        (frame._replace(velocities=0 * frame.velocities), "the atoms are at rest, and velocities of 0"),
        (frame._replace(positions=lost), "the position of atom 3 is not finite"),
    ):
        before = run.state()
        with pytest.raises((RuntimeError, ValueError), match=says):
            strides(run, bad, 1)
        assert run.state() == before  # the noise of a run that goes on is the unbroken one's
    assert sound[0].isfinite().all()
    assert strides(run, frame, 1)[0].isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_noise_and_guard_as_they_were(
    there: bool, device: str, propagator: Path, tmp_path: Path
) -> None:
    """Two atoms on one place: the network refuses them, and the guard's potential cannot help."""
    frame = frames()["cluster"]
    potential = write_artifact(random_potential(), tmp_path / "potential.pt", "float64")
    broken, unbroken = (run_of(propagator, frame, "langevin+csvr", device if there else "cpu") for _ in range(2))
    for run in (broken, unbroken):
        run.set_guard(str(potential), "correct", 1, 0.1, False, 5.0)
        if there:
            run.stay_on_device()
    first = strides(broken, frame, 1)
    same = frame.positions.clone()
    same[5] = same[4]
    before = broken.state()
    with pytest.raises((RuntimeError, ValueError), match="on top of each other"):
        strides(broken, frame._replace(positions=same), 1)
    assert broken.state() == before
    after = frame._replace(positions=first[0], velocities=first[1])
    assert all(map(torch.equal, strides(broken, after, 1), strides(unbroken, frame, 2)))
