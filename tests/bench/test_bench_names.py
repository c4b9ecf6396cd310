"""Names of tests and systems, good and bad."""

from __future__ import annotations

import numpy as np
import pytest

from equistride.bench.catalogue import DEFAULT, Benchmark, parse, select, standard
from equistride.bench.settings import Settings
from equistride.bench.systems import structure
from equistride.errors import EquistrideError
from equistride.units import ATOMIC_MASS


def test_every_standard_name_is_parsed_back() -> None:
    tests = standard()
    assert len(set(tests)) == len(tests) == 3 * 9
    assert [parse(test.name) for test in tests] == tests


def test_select() -> None:
    assert select("potential-quartz-72, kernels-quartz-72,potential-quartz-72") == [
        Benchmark("potential", "quartz-72"),
        Benchmark("kernels", "quartz-72"),
    ]
    assert select("all") == standard()
    assert [test.name for test in select(None)] == list(DEFAULT)
    assert parse("propagator-quartz-1152").system == "quartz-1152"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("potential-quarz-576", "potential-quartz-576"),
        ("propagater-quartz-72", "propagator-quartz-72"),
        ("xyz", "a kind and a system"),
        ("potential-quartz-100", "a cell of quartz cannot have 100 atoms"),
        ("potential-water-100", "a box of water cannot have 100 atoms"),
        ("potential-aspirin-21", "potential-aspirin"),
        ("potential-quartz", "potential-quartz-"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(name: str, said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        parse(name)


def test_no_name_at_all() -> None:
    with pytest.raises(EquistrideError, match="no test is named"):
        select(" , ")


@pytest.mark.parametrize(("name", "atoms"), [("quartz-72", 72), ("water-192", 192), ("water-60", 60), ("aspirin", 21)])
def test_systems_have_their_atoms_and_no_clash(name: str, atoms: int) -> None:
    found = structure(name)
    assert len(found) == atoms
    distances = found.get_all_distances(mic=bool(found.pbc.all()))
    np.fill_diagonal(distances, 9.0)
    assert distances.min() > 0.8  # A; the shortest bond is O-H, 0.96 A


def test_water_is_as_dense_as_water() -> None:
    water = structure("water-648")
    density = water.get_masses().sum() * ATOMIC_MASS * 1e27 / water.get_volume()  # g/cm^3
    assert density == pytest.approx(0.997, abs=0.005)
    bonds = water.get_distances(0, [1, 2], mic=True)
    assert bonds == pytest.approx([0.9572, 0.9572], abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seconds": 0.0}, "above 0 s"),
        ({"seconds": float("nan")}, "above 0 s"),
        ({"threads": 0}, "threads"),
        ({"precision": "half"}, "precision"),
        ({"artifact": "missing.pt"}, "does not exist"),
        ({"device": 99}, "no GPU 99"),
        ({"peer_pythons": ["nowhere/python"]}, "cannot be run"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        Settings(**settings)


def test_a_platform_that_is_not_there() -> None:
    with pytest.raises(EquistrideError, match=r"no platform Abacus here; expected Reference or CPU"):
        Settings(platform="Abacus").platform_name()


def test_settings_survive_json() -> None:
    settings = Settings(seconds=3.0, precision="float64", peers=True)
    assert Settings(**settings.summary()) == settings
