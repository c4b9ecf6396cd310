"""Artifacts whose code does more than compute, for benchmarks/faults.py: each is made of a good one, and sealed anew."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import fault_inputs as good

Attack = Callable[[Path, Path], bytes]
"""Of a good artifact and the file that shows that code ran."""


def _with_lines(lines: str, place: Callable[[str, str], str]) -> Attack:
    """An attack that puts lines into the code of the network; MARK in them is the file that shows that they ran."""

    def made(source: Path, marker: Path) -> bytes:
        def change(name: str, data: bytes) -> bytes:
            if not (name.startswith("code/") and b"def atomic_energies" in data):
                return data
            return place(data.decode(), lines.replace("MARK", str(marker))).encode()

        return good.resealed(source, change)

    return made


def _in_code(lines: str) -> Attack:
    """Lines that stand first in the function that the engines call.

    What they compute must be used, or torch's compiler takes them out.
    """

    def place(text: str, lines: str) -> str:
        begin = text.index("-> Tensor:", text.index("def atomic_energies")) + len("-> Tensor:")
        return text[:begin] + "\n" + lines + text[begin:]

    return _with_lines(lines, place)


def _method(lines: str) -> Attack:
    """A method of the module's class."""
    return _with_lines(lines, lambda text, lines: text + lines)


def _pickle(record: str) -> Attack:
    """An attack on those who unpickle a record."""

    def made(source: Path, marker: Path) -> bytes:
        harm = pickle.dumps(good.Harm(marker))
        return good.resealed(source, lambda name, data: harm if name == record else data)

    return made


CLASS = "__torch__.torch.classes.equistride.Model"
ATTACKS: dict[str, Attack] = {
    "save": _in_code('    _h = torch.save(vectors, "MARK")\n'),
    "save as an operator": _in_code('    _h = ops.aten.save(vectors, "MARK")\n'),
    "write through a mapped file": _in_code(
        '    vectors = torch.add(vectors, torch.sum(torch.fill_(torch.from_file("MARK", True, 1, dtype=7), 0)))\n'
    ),
    "read a file": _in_code(
        '    vectors = torch.add(vectors, torch.sum(torch.from_file("/etc/passwd", False, 1, dtype=7)))\n'
    ),
    "print": _in_code('    print("x")\n'),
    "profile": _in_code('    _h = ops.profiler._record_function_enter("x", None)\n'),
    "native class": _in_code(f"    _h = {CLASS}.__new__({CLASS})\n    _i = (_h).__init__(None, 'MARK', True)\n"),
    "loop without an end": _in_code("    while True:\n      vectors = torch.add(vectors, 1.)\n"),
    "loop of many turns": _in_code(
        "    for _i in range(9223372036854775806):\n      vectors = torch.add(vectors, 1.)\n"
    ),
    "loops in loops": _in_code(
        "    for _i in range(1000000):\n      for _j in range(1000000):\n        for _k in range(1000000):\n"
        "          vectors = torch.add(vectors, 1.)\n"
    ),
    "memory": _in_code("    vectors = torch.add(vectors, torch.sum(torch.zeros([1000000, 1000000, 1000], dtype=7)))\n"),
    "setstate": _method('  def __setstate__(self, state: Tensor) -> None:\n    _h = torch.save(state, "MARK")\n'),
    "getstate": _method('  def __getstate__(self) -> str:\n    return "MARK"\n'),
    "pickle as data": _pickle("data.pkl"),
    "pickle as constants": _pickle("constants.pkl"),
    "pickle as metadata": _pickle("extra/metadata.json"),
    "pickle as reference": _pickle("extra/reference.json"),
}
