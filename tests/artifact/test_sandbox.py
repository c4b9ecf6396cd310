"""Nothing of a file runs that a model may not run: each attack is refused by name, by every way in, and leaves no trace."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import SPECIES
from rewritten import rewritten
from torch import Tensor, nn
from toy_metadata import toy_metadata

from equistride.artifact import load
from equistride.errors import EquistrideError

MARK = "MARK"
"""Name of the file that each attack makes in the folder where it runs."""


class Honest(nn.Module):
    """What a potential has at least; attacks override ``harm``, which runs in every evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3, dtype=torch.float64))

    def harm(self, x: Tensor) -> Tensor:
        return x

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = self.harm(positions) * self.scale
        return x.sum(1).double(), torch.zeros_like(x), torch.zeros_like(cell)


class Saves(Honest):
    def harm(self, x: Tensor) -> Tensor:
        torch.save(x, "MARK")
        return x


class ReadsFiles(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return x + torch.from_file("MARK", False, 1, dtype=torch.float64)


class WritesFiles(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return x + torch.from_file("MARK", True, 1, dtype=torch.float64).fill_(1.0)


class RunsAtLoad(Honest):
    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.save(state[0], "MARK")
        self.scale = state[0]
        self.training = state[1]


class LoadsACompiledFile(Honest):
    def harm(self, x: Tensor) -> Tensor:
        torch.classes.equistride.Model(None, "MARK", False)
        return x


class TakesAnAddress(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return torch.ops.equistride.exchange_backward(x, 4096)


class Prints(Honest):
    def harm(self, x: Tensor) -> Tensor:
        print(x)
        return x


class Forks(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(torch.neg, x))


class Profiles(Honest):
    def harm(self, x: Tensor) -> Tensor:
        torch.ops.profiler._record_function_enter("MARK", None)
        return x


class InASubmodule(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Saves()

    def harm(self, x: Tensor) -> Tensor:
        return self.inner.harm(x)


class NeverCalled(Honest):
    @torch.jit.export
    def other(self, x: Tensor) -> None:
        torch.save(x, "MARK")


@torch.jit.script
def leak(x: Tensor) -> Tensor:
    torch.save(x, "MARK")
    return x


class InAFunction(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return leak(x)


@torch.jit.script
class Helper:
    def __init__(self, x: Tensor) -> None:
        torch.save(x, "MARK")
        self.x = x


class InAClass(Honest):
    def harm(self, x: Tensor) -> Tensor:
        return Helper(x).x


@torch.jit.interface
class Harmful(nn.Module):
    def harm(self, x: Tensor) -> Tensor:  # type: ignore[empty-body]
        pass


class BehindAnInterface(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Saves()

    def harm(self, x: Tensor) -> Tensor:
        return self.inner.harm(x)


BehindAnInterface.__annotations__ = {"inner": Harmful}  # which torch wants as it is, not as a string


class InAHook(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

        def hook(self: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            torch.save(output, "MARK")
            return output

        self.inner.register_forward_hook(hook)

    def harm(self, x: Tensor) -> Tensor:
        return self.inner(x)


ATTACKS: dict[type[Honest], str] = {
    Saves: "calls aten::save",
    ReadsFiles: "calls aten::from_file",
    WritesFiles: "calls aten::from_file",
    RunsAtLoad: "__setstate__, which would run as the file is read",
    LoadsACompiledFile: "__torch__.torch.classes.equistride.Model",
    TakesAnAddress: "calls equistride::exchange_backward",
    Prints: "calls prim::Print",
    Forks: "calls prim::fork",
    Profiles: "operators of another library (ops.profiler",
    InASubmodule: "calls aten::save",
    NeverCalled: "calls aten::save",
    InAFunction: "calls aten::save",
    InAClass: "calls aten::save",
    BehindAnInterface: "calls aten::save",
    InAHook: "calls aten::save",
}


def written(module: nn.Module, path: Path) -> Path:
    """Write a module with metadata and a reference frame, as one would who wants it to be loaded."""
    metadata = toy_metadata(SPECIES, 4.0)
    reference = (
        '{"positions": [[0,0,0]], "species": [0], "cell": [[0,0,0],[0,0,0],[0,0,0]], "pbc": [false,false,false], '
        '"outputs": {"atomic_energies": [0]}, "tolerance": 1e-9}'
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extra = {"metadata.json": metadata.model_dump_json(), "reference.json": reference}
        torch.jit.save(torch.jit.script(module), str(path), _extra_files=extra)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def refused(call: Callable[[], object], said: str, here: Path) -> None:
    with pytest.raises(EquistrideError) as info:
        call()
    assert said in str(info.value)
    assert "\n" not in str(info.value)
    assert list(here.iterdir()) == []


def test_an_honest_module_is_read(tmp_path: Path, here: Path) -> None:
    """The attacks below differ from this by what they do alone."""
    assert load(written(Honest(), tmp_path / "honest.pt")).metadata.architecture == "toy"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_by_name_in_every_way_in(attack: type[Honest], tmp_path: Path, here: Path) -> None:
    from equistride.artifact.archive import script_of

    path, said = written(attack(), tmp_path / "bad.pt"), ATTACKS[attack]
    for call in (
        lambda: load(path),
        lambda: load(path.read_bytes(), verify=False),
        lambda: script_of(path),  # members of ensembles, `system`, `export --for openmm`
    ):
        refused(call, said, here)
    force = pytest.importorskip("equistride.engines.openmm_force").Force
    refused(lambda: force(path), said, here)
    bare = rewritten(path, tmp_path / "bare.pt", lambda name, data: None if name.startswith("extra/") else data)
    refused(lambda: force(bare), said, here)  # as a module of the TorchForce contract


def test_an_attack_works_where_nobody_looks(tmp_path: Path, here: Path) -> None:
    """Torch itself runs it: what is refused above is not harmless."""
    torch.jit.load(str(written(RunsAtLoad(), tmp_path / "bad.pt")))
    assert (here / MARK).is_file()


def source_edited(tmp_path: Path, old: str, new: str, module: nn.Module | None = None) -> Path:
    """The honest module with another text of its code."""
    source = written(module or Honest(), tmp_path / "good.pt")
    found = []

    def edit(name: str, data: bytes) -> bytes:
        if name.startswith("code/") and name.endswith(".py") and old.encode() in data:
            found.append(name)
            return data.replace(old.encode(), new.encode())
        return data

    path = rewritten(source, tmp_path / "bad.pt", edit)
    assert found
    return path


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("y = (x).resize_([1000], )\n    return x", "calls aten::resize_"),
        ("f = torch.save\n    f(x, 'MARK')\n    return x", "calls aten::save"),
        ("o = ops\n    o.image.write_file('MARK', x)\n    return x", "operators of another library (ops"),
        ("ops .image.write_file('MARK', x)\n    return x", "operators of another library (ops"),
        ("ops.image.write_file('MARK', x)\n    return x", "operators of another library (ops.image"),
        ("torch.backward(torch.sum(x))\n    return x", "calls aten::backward"),
        ("torch.manual_seed(3)\n    return x", "calls aten::manual_seed"),
    ],
)
def test_code_that_was_written_by_hand_is_refused(new: str, said: str, tmp_path: Path, here: Path) -> None:
    path = source_edited(tmp_path, "return x\n", new + "\n")
    refused(lambda: load(path), said, here)


class HasAPart(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Honest()

    def harm(self, x: Tensor) -> Tensor:
        return self.inner.harm(x)


def test_an_object_is_not_taken_for_another(tmp_path: Path, here: Path) -> None:
    """Its attributes are found by their number, which torch does not check."""
    load(written(HasAPart(), tmp_path / "good.pt"))
    cast = "inner = unchecked_cast(__torch__.test_sandbox.HasAPart, self.inner).inner\n"
    path = source_edited(tmp_path, "inner = self.inner\n", cast, HasAPart())
    refused(lambda: load(path), "takes an object for one of another class", here)


@pytest.mark.parametrize(
    ("old", "new"), [("scale : Tensor", "scale : float"), ("training : bool", "training : Tensor")]
)
def test_values_are_what_the_code_takes_them_for(old: str, new: str, tmp_path: Path, here: Path) -> None:
    """Torch believes it and reads a number where a pointer is."""
    path = source_edited(tmp_path, old, new)
    with pytest.raises(EquistrideError, match=r"where its code has a|cannot be loaded"):
        load(path)


def test_a_tensor_beyond_its_record_is_refused(tmp_path: Path, here: Path) -> None:
    """Torch would read, and let code write, what lies behind it in memory."""
    source = written(Honest(), tmp_path / "good.pt")
    path = rewritten(source, tmp_path / "short.pt", lambda name, data: data[:8] if name == "data/0" else data)
    refused(lambda: load(path), "reaches beyond its record", here)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os\nsystem", "its data name os.system"),
        ("builtins\neval", "its data name builtins.eval"),
        ("__torch__.torch.classes.equistride\nModel", "the native class __torch__.torch.classes.equistride.Model"),
    ],
)
def test_data_that_name_something_else_are_refused(name: str, said: str, tmp_path: Path, here: Path) -> None:
    source = written(Honest(), tmp_path / "good.pt")
    pickled = b"\x80\x02c" + name.encode() + b"\n)\x81}b."
    for record in ("data.pkl", "constants.pkl"):
        path = rewritten(source, tmp_path / "bad.pt", lambda entry, data, r=record: pickled if entry == r else data)  # type: ignore[misc]
        refused(partial(load, path), said, here)


@pytest.mark.parametrize(
    "end",
    [
        b"r" + (2**31).to_bytes(4, "little") + b".",
        b"r" + (2**24).to_bytes(4, "little") + b".",
        b"X" + (2**32 - 1).to_bytes(4, "little") + b"a",
        b"c" + 600 * b"a",
    ],
    ids=["place", "smaller place", "text", "line"],
)
def test_a_small_pickle_takes_no_memory_without_end(end: bytes, tmp_path: Path, here: Path) -> None:
    """torch fills its table of known values up to the place that an instruction names (16 bytes each, 32 GiB for two billion),
    makes room for a text of 4 GiB before it reads it, and reads on where a line does not end."""
    good = written(Honest(), tmp_path / "good.pt")

    def edit(name: str, data: bytes) -> bytes:
        if name != "data.pkl":
            return data
        assert data[-1:] == b"."
        return data[:-1] + end

    bad = rewritten(good, tmp_path / "bad.pt", edit)
    refused(lambda: load(bad), "its data name more values than they hold", here)


def test_every_released_model_and_frozen_file_may_run(repository: Path) -> None:
    """The list has what they call: potentials, propagators, ensembles, and files of format 1."""
    paths = [*sorted((repository / "models").glob("*/*.pt")), *sorted((repository / "tests").glob("artifact/*/*.pt"))]
    assert len(paths) >= 12
    for path in paths:
        load(path, verify=False)


def test_the_command_line_and_lammps_refuse_too(tmp_path: Path, here: Path) -> None:
    path = written(Saves(), tmp_path / "bad.pt")
    for verb in ("inspect", "validate"):
        done = subprocess.run(
            [sys.executable, "-m", "equistride.cli.main", verb, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "calls aten::save" in done.stderr
        assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


def test_a_reader_of_format_1_looks_too(tmp_path: Path, here: Path) -> None:
    source = written(Saves(), tmp_path / "good.pt")
    old = rewritten(
        source,
        tmp_path / "old.pt",
        lambda name, data: data.replace(b'"format_version":2', b'"format_version":1'),
    )
    with zipfile.ZipFile(old) as archive:
        assert any(b'"format_version":1' in archive.read(name) for name in archive.namelist())
    refused(lambda: load(old), "calls aten::save", here)


class NeverEnds(Honest):
    def harm(self, x: Tensor) -> Tensor:
        y = x.detach()
        while bool(y.isfinite().all()):
            y = y * 1.0
        return x + y


class LoopsInLoops(Honest):
    """Of more than the one atom that its self-test has."""

    def harm(self, x: Tensor) -> Tensor:
        y = x.detach()
        for _ in range((y.size(0) - 1) * 1_000_000):
            for _ in range(1_000_000):
                y = y * 1.0
        return x + y


def test_loops_that_do_not_end(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as the file is tested, not in an evaluation, and not in a module of the TorchForce contract."""
    import openmm

    from equistride.engines.openmm_force import Force

    monkeypatch.setenv("EQUISTRIDE_SELF_TEST_SECONDS", "0.2")
    refused(lambda: load(written(NeverEnds(), tmp_path / "bad.pt")), "do not end within the time of a self-test", here)
    sleeper = load(written(LoopsInLoops(), tmp_path / "sleeper.pt"))
    refused(lambda: sleeper.compute([[0, 0, 0], [0, 0, 2]], SPECIES[:1] * 2), "at most 2000000 turns", here)

    class Contract(NeverEnds):
        def forward(self, positions: Tensor) -> Tensor:
            return self.harm(positions).sum()

    system = openmm.System()
    system.addParticle(1.0)
    torch.jit.script(Contract()).save(str(tmp_path / "contract.pt"))
    system.addForce(Force(tmp_path / "contract.pt"))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([openmm.Vec3(0, 0, 0)])
    with pytest.raises(openmm.OpenMMException, match="at most 2000000 turns"):
        context.getState(energy=True)
