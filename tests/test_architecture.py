"""The rules of the house, read from the sources: which room may import which, headers, lengths, foreign paths."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "equistride"

LEAVES = {"cell", "elements", "errors", "units", "series", "user_code", "writing", "_library", "_native"}
"""Modules that know no other room, and that every room may know."""
BELOW_GRAPH = {"graph"}
BELOW_NN = BELOW_GRAPH | {"nn"}
BELOW_MODELS = BELOW_NN | {"models"}
BELOW_ARTIFACT = BELOW_MODELS | {"artifact"}
ABOVE_ARTIFACT = {
    "data", "importers", "properties", "conservation", "trajectories", "engines", "training", "bench", "simulation", "lammps",
    "doctor", "comparison", "distillation",
}  # fmt: skip
ALLOWED = {
    "cell": set(),
    "elements": set(),
    "errors": set(),
    "moved": set(),
    "units": set(),
    "series": set(),
    "user_code": set(),
    "writing": set(),
    "_library": set(),
    "graph": set(),
    "nn": BELOW_GRAPH,
    "models": BELOW_NN,
    "artifact": BELOW_MODELS | {"data"},
    "data": {"graph"},
    "importers": BELOW_ARTIFACT,
    "properties": set(),
    "conservation": BELOW_ARTIFACT | {"properties"},
    "trajectories": {"conservation", "data"},
    "lammps": set(),
    "doctor": {"graph", "engines", "lammps"},
    "engines": BELOW_ARTIFACT | {"data", "_openmm"},
    "training": BELOW_ARTIFACT | {"importers", "data"},
    "bench": BELOW_ARTIFACT | {"data", "engines", "conservation"},
    "simulation": BELOW_ARTIFACT | {"data", "engines"},
    "comparison": BELOW_ARTIFACT | {"data", "simulation", "trajectories"},
    "distillation": BELOW_ARTIFACT
    | {"data", "training", "engines", "properties", "conservation", "trajectories", "simulation"},
    "cli": {*BELOW_ARTIFACT, *ABOVE_ARTIFACT},
}
"""What a room may import beside itself and the leaves: cli -> bench, simulation, trajectories, properties, conservation, engines,
training -> importers -> artifact -> models -> nn -> graph; labelled frames and structures (data) serve what lies above
them. Above them, below cli alone, is distillation. Of those that describe runs and crystals, trajectories -> conservation ->
properties; engines know no importer."""
ENGINE_PACKAGES = {"openmm", "lammps", "openmmtorch", "openmmml"}
ENGINE_ROOMS = {"engines", "cli", "bench", "data", "simulation", "doctor"}
"""Rooms that may import an engine: data runs LAMMPS as a reference, the doctor asks whether they are there."""


def sources(*patterns: str) -> list[Path]:
    """Return the project's own files that match, without build folders and caches."""
    rooms = ["python", "csrc", "openmm_plugin", "lammps_plugin", "tests", "examples", "benchmarks", "cmake"]
    found = [p for room in rooms for pattern in patterns for p in (ROOT / room).rglob(pattern)]
    return sorted(p for p in found if "__pycache__" not in p.parts)


def room_of(path: Path) -> str:
    """Return the top-level module or folder of a file of the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (absolute module, line) of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["equistride", *path.relative_to(PACKAGE).parts[: -node.level]]
                yield ".".join([*package, *((node.module or "").split(".") if node.module else [])]), node.lineno
            elif node.module == "equistride":
                yield from ((f"equistride.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module or "", node.lineno


def forbidden(path: Path) -> list[str]:
    """Return the forbidden arrows of a file of the package."""
    room, found = room_of(path), []
    if room == "__init__":
        return found
    for module, line in imports(path):
        top, *rest = module.split(".")
        where = f"{path.relative_to(ROOT)}:{line}: {room} imports {module}"
        if top == "equistride" and rest and rest[0] != room and not rest[0].startswith("__"):
            own = rest[0] in LEAVES and room not in ("errors", "units")
            if not own and rest[0] not in ALLOWED[room]:
                found.append(where)
        if top in ENGINE_PACKAGES and room not in ENGINE_ROOMS:
            found.append(where)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    assert room_of(path) in {*ALLOWED, "__init__"}, "a new room: say in ALLOWED and in ARCHITECTURE.md what it may know"
    assert forbidden(path) == []


def test_a_forbidden_arrow_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of imports finds every form of an import."""
    package = tmp_path / "python" / "equistride"
    (package / "nn").mkdir(parents=True)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", package)
    path = package / "nn" / "layer.py"
    for line in (
        "from equistride.engines.openmm import create_force",
        "from equistride import engines",
        "import equistride.training.run",
        "from ..models import esen",
        "def f():\n    import openmm.app",
        "if True:\n    from openmm import unit",
    ):
        path.write_text(line)
        assert len(forbidden(path)) == 1, line
    path.write_text(
        "import torch\nfrom equistride.errors import EquistrideError\nfrom . import radial\nfrom ..graph import x"
    )
    assert forbidden(path) == []


def test_no_two_files_import_each_other() -> None:
    """Nor in a longer circle, nor inside functions: what they share lies in a third file, below both."""
    files = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    knows = {
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): {module for module, _ in imports(p)}
        for p in files
    }
    TopologicalSorter({name: found & knows.keys() for name, found in knows.items()}).prepare()


def test_native_code_knows_neither_engine_nor_python() -> None:
    include = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
    foreign = re.compile(
        r"^(Python\.h|pybind11/|torch/extension\.h|torch/python\.h|OpenMM|openmm/|lammps|pair\.h|fix\.h|mpi\.h)"
    )
    native = [
        p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".h", ".cu", ".cuh") and p.name != "bindings.cpp"
    ]
    assert len(native) > 10
    for path in native:
        assert [h for h in include.findall(path.read_text()) if foreign.match(h)] == [], path


def test_plugin_of_one_engine_knows_no_other() -> None:
    for path in sources("*.cpp", "*.h", "*.cu"):
        text = path.read_text()
        if path.is_relative_to(ROOT / "openmm_plugin"):
            assert "lammps" not in text.lower(), path
        if path.is_relative_to(ROOT / "lammps_plugin"):
            assert "openmm" not in text.lower(), path


def test_files_are_short() -> None:
    lengths = {p: len(p.read_text().splitlines()) for p in sources("*.py", "*.cpp", "*.h", "*.cu", "*.cuh")}
    assert {p: n for p, n in lengths.items() if n > 600} == {}, "past 600 lines a file is two concepts"


def test_no_path_of_one_machine() -> None:
    """A path that exists on one machine only; the text is put together so that this file does not hold one itself."""
    folders = "|".join(["tm" + "p", "ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"])
    path_of_a_machine = re.compile(rf"(?<![\w.)}}\]/])/({folders})/")
    endings = ("*.py", "*.cpp", "*.h", "*.cu", "*.cmake", "*.txt", "*.yaml", "*.j2")
    files = [
        *sources(*endings),
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.md"),
        *ROOT.glob("Makefile"),
        ROOT / "CMakeLists.txt",
    ]
    files += [p for p in (ROOT / "models").rglob("*") if p.suffix in (".yaml", ".md")]
    assert len(files) > 100
    assert [str(p.relative_to(ROOT)) for p in files if path_of_a_machine.search(p.read_text())] == []


def test_one_source_for_each_constant() -> None:
    """The digits of a physical constant appear in units.py alone."""
    digits = re.compile(
        r"8\.3144|4\.184|1\.38064|1\.60217|6\.02214|96\.485|8\.617333|1\.66053|103\.64|0\.0103642|0\.00964853"
    )
    checked = [p for p in sources("*.py", "*.cpp", "*.h", "*.cu") if ROOT / "tests" not in p.parents]
    assert [str(p) for p in checked if p.name != "units.py" and digits.search(p.read_text())] == []


NATIVE = ("csrc", "openmm_plugin", "lammps_plugin")
ONCE = {
    "positions that are moved before they are rounded": (r"\.floor\(\)", "csrc/evaluation/placement.cpp"),
    "angular momentum": (r"at::linalg_eigh", "csrc/model/momenta.cpp"),
    "gradient to forces": (r"index_add\(0, edge_index\[|edge_vectors_backward\"", "csrc/model/frame.cpp"),
    "gradient to virial": (r"equistride::edge_virial\"", "csrc/model/frame.cpp"),
    "ghosts": (r"enum class Ghosts", "lammps_plugin/ghosts.h"),
    "guard": (r"(class|struct) (\w+ )?\w*Guard \{", "csrc/propagation/guard.h"),
    "thermostat": (r"(class|struct) (\w+ )?\w*Thermostat \{", "csrc/propagation/thermostat.h"),
    "a look into a module": (r"hasattr|find_method", "csrc/model/declaration.cpp"),
}
"""What one file of the native side does, and no other; operators (neighbors, tensor_product, edge_block) are beside it."""
OPERATORS = ("csrc/neighbors", "csrc/tensor_product", "csrc/edge_block")


@pytest.mark.parametrize("what", ONCE)
def test_one_definition_of_what_engines_share(what: str) -> None:
    pattern, place = ONCE[what]
    files = [p.relative_to(ROOT) for p in sources("*.cpp", "*.h") if p.relative_to(ROOT).parts[0] in NATIVE]
    own = [p for p in files if not str(p).startswith(OPERATORS)]
    assert [str(p) for p in own if re.search(pattern, (ROOT / p).read_text())] == [place]


def test_no_engine_asks_for_an_architecture() -> None:
    """Nor does the native code anywhere: what a model can do is in its contract."""
    asks = re.compile(r"architecture\s*(==|!=|\.find|\.contains|\.starts_with)")
    files = [p for p in sources("*.cpp", "*.h", "*.py") if {*NATIVE, "engines"} & set(p.relative_to(ROOT).parts)]
    assert [str(p) for p in files if asks.search(p.read_text()) and "tests" not in p.parts] == []
