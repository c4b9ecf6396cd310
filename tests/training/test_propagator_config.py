"""The configuration of a propagator: what is read, and one sentence for the first thing that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from equistride.errors import EquistrideError
from equistride.training.config import PropagatorConfig, load_config

GOOD: dict[str, Any] = {
    "name": "toy",
    "model": {"architecture": "trajcast", "channels": 8},
    "data": {"files": ["a.npz"], "stride_fs": 30},
}


def write(folder: Path, tree: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_architecture_decides_what_is_trained(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), ["data.masses.H=3.024", "curriculum=[{rollout: 2}]"])
    assert isinstance(config, PropagatorConfig)
    assert config.model.cutoff == 4.5
    assert config.data.masses == {"H": 3.024}
    assert (config.loss.displacement, config.loss.velocity, config.data.reversal) == (0.5, 0.5, True)
    assert [(s.from_step, s.stride_fs, s.rollout) for s in config.curriculum] == [(0, None, 2)]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.stride=30", "unknown key 'data.stride'; check its spelling: did you mean 'stride_fs'?"),
        ("data.stride_fs=-1", "'data.stride_fs' is not valid; expected input should be greater than 0; found -1"),
        ("model.chanels=8", "did you mean 'channels'?"),
        ("model.max_speed=-1", "'model.max_speed' is not valid"),
        (
            "model.architecture=trajkast",
            "'model.architecture' is not valid; expected 'esen'.* or 'trajcast'; found 'trajkast'",
        ),
        ("loss.energy=1", "unknown key 'loss.energy'"),
        ("curriculum=[]", "'curriculum' is not valid"),
        (
            "curriculum=[{from_step: 0, roll: 2}]",
            "unknown key 'curriculum.0.roll'; check its spelling: did you mean 'rollout'?",
        ),
        (
            "curriculum=[{from_step: 5}]",
            "expected the stages of the curriculum to begin at step 0 and each after the last",
        ),
        ("curriculum=[{}, {from_step: 9}, {from_step: 9}]", "not at \\[0, 9, 9\\]"),
        ("curriculum=[{stride_fs: 10}]", "the last stage of the curriculum to have the stride of the data"),
        ("data.masses.H=0", "'data.masses.H' is not valid"),
    ],
)
def test_one_sentence_for_what_is_wrong(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(EquistrideError, match=said) as info:
        load_config(write(tmp_path, GOOD), [override])
    assert "\n" not in str(info.value)


def test_a_propagator_needs_a_stride(tmp_path: Path) -> None:
    tree = GOOD | {"data": {"files": ["a.npz"]}}
    with pytest.raises(EquistrideError, match=r"lacks the key 'data.stride_fs'"):
        load_config(write(tmp_path, tree))


def test_released_configs_are_valid(repository: Path) -> None:
    released = list((repository / "models").glob("*/*.yaml"))
    assert len(released) >= 6
    for path in released:
        assert load_config(path).name == path.parent.name
