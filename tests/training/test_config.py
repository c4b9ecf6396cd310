"""The configuration: what is read, and one sentence for the first thing that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from equistride.errors import EquistrideError, Notice
from equistride.training.config import load_config

GOOD = {
    "name": "toy",
    "model": {"architecture": "esen", "cutoff": 4.5, "channels": 8},
    "data": {"files": ["a.npz"], "batch_size": 3},
    "optimiser": {"learning_rate": 1e-3},
}


def write(folder: Path, tree: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return path


def refusal(path: Path, overrides: list[str] | None = None) -> str:
    with pytest.raises(EquistrideError) as info:
        load_config(path, overrides)
    sentence = str(info.value)
    assert path.name in sentence or "override" in sentence
    assert "\n" not in sentence
    assert "pydantic" not in sentence
    return sentence


def test_values_and_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert (config.name, config.model.cutoff, config.data.batch_size) == ("toy", 4.5, 3)
    assert (config.trainer.precision, config.model.l_max, config.model.mirror) == ("float32", 2, True)


def test_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    overrides = ["trainer.steps=7", "model.basis=bessel", "data.files=[b.npz, c.db]", "optimiser.learning_rate=2e-3"]
    config = load_config(path, overrides)
    assert config.trainer.steps == 7
    assert config.model.basis == "bessel"
    assert config.data.files == ["b.npz", "c.db"]
    assert config.optimiser.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.steps", "not an assignment; expected key.key=value"),
        ("=3", "not an assignment"),
        ("trainer.stepz=3", "did you mean 'steps'"),
        ("trainer.steps=many", "'trainer.steps' is not valid"),
        ("trainer.steps=[1, 2", "is not an assignment"),
        ("name.first=x", "override 'name.first=x'"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, said: str) -> None:
    assert said in refusal(write(tmp_path, GOOD), [override])


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        (None, {"modle": {}}, "unknown key 'modle'; check its spelling: did you mean 'model'?"),
        ("model", {"chanels": 3}, "unknown key 'model.chanels'; check its spelling: did you mean 'channels'?"),
        ("trainer", {"zzz": 3}, "unknown key 'trainer.zzz'; check its spelling: known keys are steps, "),
        ("model", {"r_max": 4.0}, "unknown key 'model.r_max'; check its spelling: it is 'cutoff' here"),
        ("model", {"cutoff": "wide"}, "'model.cutoff' is not valid; expected input should be a valid number"),
        ("model", {"cutoff": -1.0}, "'model.cutoff' is not valid; expected input should be greater than 0; found -1.0"),
        ("model", {"channels": 2.5}, "'model.channels' is not valid"),
        ("model", {"l_max": 1, "m_max": 2}, "m_max (2) must not be above l_max (1)"),
        ("model", {"architecture": "other"}, "'model.architecture' is not valid"),
        ("data", {"files": []}, "'data.files' is not valid"),
        ("data", {"files": "a.npz"}, "'data.files' is not valid; expected input should be a valid list"),
        ("data", {"validation_fraction": 1.5}, "'data.validation_fraction' is not valid"),
        ("trainer", {"precision": "float16"}, "expected input should be 'float32' or 'float64'; found 'float16'"),
        ("optimiser", {"ema_decay": 1.0}, "'optimiser.ema_decay' is not valid"),
    ],
)
def test_wrong_keys_and_values(tmp_path: Path, section: str | None, change: dict[str, object], said: str) -> None:
    tree = GOOD | change if section is None else GOOD | {section: GOOD.get(section, {}) | change}
    assert said in refusal(write(tmp_path, tree))


@pytest.mark.parametrize("key", ["name", "model", "data"])
def test_missing_keys(tmp_path: Path, key: str) -> None:
    assert f"lacks the key '{key}'" in refusal(write(tmp_path, {k: v for k, v in GOOD.items() if k != key}))
    assert "lacks the key 'data.files'" in refusal(write(tmp_path, GOOD | {"data": {}}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [1, 2", "is not YAML"),
        ("just words", "expected a mapping of keys; found str"),
        ("- 1\n- 2", "found list"),
        ("", "expected a mapping of keys"),
        ("\x00\x01", "is not YAML"),
        ("model: 3", "lacks the key"),
        ("name: toy\nmodel: 3\ndata: {files: [a.npz]}", "'model' is not valid"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "is not YAML" in refusal(path)


def test_released_configs_are_valid(repository: Path) -> None:
    released = list((repository / "models").glob("*-esen/config.yaml"))
    assert released
    for path in released:
        assert load_config(path).name == path.parent.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b", "the key 'name' stands twice, again in line 2"),
        ("name: a\nmodel: {}\ndata: {files: [a.npz]}\nloss.energy: 2", "unknown key 'loss.energy'; in a file keys stand"),
        ("name: a\nmodel: {cha.nnels: 16}\ndata: {files: [a.npz]}", "unknown key 'model.cha.nnels'; in a file keys stand"),
        ("name: a\nmodel: {cutoff: 4, cutoff: 5}\ndata: {files: [a.npz]}", "the key 'cutoff' stands twice"),
        ("name: a\nmodel: {cutoff: {{ cutoff }}}", "found unhashable key"),
        (
            "name: a\nmodel: {architecture: nequip, radial_widths: [true, 64]}\ndata: {files: [a.npz]}",
            "'model.radial_widths.0' is not valid; expected a finite number; found True",
        ),
        ("name: a\nmodel: {cutoff: true}\ndata: {files: [a.npz]}", "'model.cutoff' is not .* a finite number; found True"),
        ("name: a\nmodel: {cutoff: .inf}\ndata: {files: [a.npz]}", "'model.cutoff' is not valid; expected a finite number"),
        ("name: a\nmodel: {}\ndata: {files: [a.npz], batch_size: yes}", "'data.batch_size' is not valid; expected a finite"),
        ("name: a\nmodel: {}\ndata: {files: [a.npz]}\nloss:", "'loss' is not valid; expected keys with values, .*; found None"),
        ("name: a\nmodel: {}\ndata: {files: [a.npz]}\nloss: 3", "'loss' is not valid; expected keys with values"),
        ("name: a\nmodel: {}\ndata: {files: [a.npz]}\nloss: {energy: 0, force: 0, virial: 0}", "one weight of loss above 0"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind(tmp_path: Path, text: str, said: str) -> None:
    assert re.search(said, refusal(write(tmp_path, text)))


def test_kinds_that_look_wrong_and_are_right(tmp_path: Path) -> None:
    """A number as YAML 1.1 reads it (1e-3 is text to it), switches as words, and null."""
    text = "name: a\nmodel: {envelope: off, mirror: no, max_neighbors: null}\ndata: {files: [a.npz]}\n"
    config = load_config(write(tmp_path, text + "optimiser: {learning_rate: 1e-3}"))
    assert config.optimiser.learning_rate == 1e-3
    assert config.model.envelope == "off"  # type: ignore[union-attr]
    assert config.model.mirror is False  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainer": {"steps": 100}}, r"optimiser.warmup_steps \(200\) is not below trainer.steps \(100\)"),
        ({"trainer": {"validate_every": 20_000}}, "validate_every is above trainer.steps"),
        ({"data": {"files": ["a.npz"], "test_files": ["a.npz"]}}, "a.npz is trained on and tested on"),
        (
            {"model": {"forces": "direct"}, "loss": {"virial": 1.0}},
            "loss.virial has no effect with model.forces: direct",
        ),
        ({"frames": {"weight": 0, "mode": "history"}}, "frames.mode has no effect with frames.weight: 0"),
        ({"frames": {"noise": 0.1}}, "frames.noise has no effect with frames.control: none"),
    ],
)
def test_settings_without_effect_are_told(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.warns(Notice, match=said) as warned:
        load_config(write(tmp_path, GOOD | change))
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainer": {"devices": 2}}, "trainer.devices has no effect on a propagator"),
        ({"trainer": {"bfloat16": True}}, "trainer.bfloat16 has no effect on a propagator"),
        ({"curriculum": [{"from_step": 0}, {"from_step": 10_000}]}, "from step 10000 is never reached"),
    ],
)
def test_settings_without_effect_on_a_propagator(tmp_path: Path, change: dict[str, object], said: str) -> None:
    tree = {"name": "toy", "model": {"architecture": "trajcast"}, "data": {"files": ["a.npz"], "stride_fs": 5.0}}
    with pytest.warns(Notice, match=said):
        load_config(write(tmp_path, tree | change))


def test_a_usual_configuration_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    load_config(write(tmp_path, GOOD))
    assert not [w for w in recwarn if issubclass(w.category, Notice)]
