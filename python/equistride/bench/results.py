"""Results as a JSON file, as lines for a terminal, as a Markdown table and as a plot."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from equistride.bench.machine import facts
from equistride.bench.settings import Settings
from equistride.errors import EquistrideError
from equistride.writing import write

FORMAT = "equistride-bench"
VERSION = 1


class Outfile:
    """A JSON file that holds what is there after every test: a run that is stopped or killed keeps what it has.

    Parameters
    ----------
    path
        File; it is replaced as a whole each time, the first time when there is a result.
    settings
        Of the run.

    Raises
    ------
    EquistrideError
        For the path of a folder, and where the file's folder is not there or cannot be written to.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        if not path.parent.is_dir():
            raise EquistrideError(f"the folder {path.parent} does not exist", hint="make it first")
        if path.is_dir():
            raise EquistrideError(f"{path} is a folder", expected="the path of a file", hint="add the name of the file")
        self.path = path
        self._keep("")  # what cannot be written is said before the first test
        chosen = settings.summary()
        del chosen["peer_pythons"]  # where programs lie on one machine says nothing on another
        self.content: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "machine": facts(), "settings": chosen, "results": [],
        }  # fmt: skip

    def add(self, result: dict[str, Any]) -> None:
        """Add a result and write the file."""
        self.content["results"].append(result)
        self._keep(json.dumps(self.content, indent=1) + "\n")

    def _keep(self, text: str) -> None:
        try:
            if text:
                write(self.path, text)
            else:
                with tempfile.TemporaryFile(dir=self.path.parent):
                    pass
        except OSError as error:
            raise EquistrideError(f"{self.path} cannot be written ({error.strerror})") from None


def read(path: Path) -> dict[str, Any]:
    """Read a file of :class:`Outfile`.

    Raises
    ------
    EquistrideError
        Where it is missing, or something else.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise EquistrideError(f"the results {path} cannot be read ({error.strerror})", hint="check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise EquistrideError(f"{path} is not a JSON file", expected="a file of equistride bench --outfile") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EquistrideError(f"{path} holds no benchmark", expected="a file of equistride bench --outfile")
    if content["version"] > VERSION:
        raise EquistrideError(
            f"{path} was written by a newer equistride", expected=f"version {VERSION}", found=content["version"]
        )
    return content


COLUMNS = (
    "test", "atoms", "model", "ns/day", "atom-steps/s", "us/atom/step", "CPU us", "MiB", "conservation", "list/model/engine",
    "of limit",
)  # fmt: skip
WIDTHS = (24, 6, 38, 9, 12, 12, 9, 7, 24, 17, 8)


def _conservation(result: dict[str, Any]) -> str:
    """The drift of a potential with half of its interval's width, the temperature of a propagator."""
    if not result.get("trained", False):
        return "-"
    if result["kind"] == "potential" and "drift_interval" in result:
        low, high = result["drift_interval"]
        return f"{result['drift_meV_per_atom_per_ps']:+.2g}±{(high - low) / 2:.2g} meV/atom/ps"
    return f"{result['temperature_K']:.0f} K" if "temperature_K" in result else "too short"


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a result, one row, or one a kernel; an error has none."""
    if "error" in result:
        return []
    if result["kind"] == "kernels":
        return [
            [
                result["name"], str(result["atoms"]), row["title"], "-", "-", f"{row['us_per_atom']:.3g}",
                f"{row['cpu_us_per_atom']:.3g}", f"{row['grown_MiB']:.0f}", "-", "-", f"{100 * row['share_of_limit']:.0f} %",
            ]
            for row in result["kernels"]
        ]  # fmt: skip
    memory = f"{result.get('gpu_peak_MiB', result['peak_MiB']):.0f}"
    share = result["stage_share"]
    parts = "/".join(f"{100 * share[name]:.0f}" for name in ("neighbors", "model", "engine"))
    return [
        [
            result["name"], str(result["atoms"]), result["model"], f"{result['ns_per_day']:.3g}",
            f"{result['atom_steps_per_second']:.3g}", f"{result['us_per_atom_step']:.3g}",
            f"{result['cpu_us_per_atom_step']:.3g}", memory, _conservation(result), parts + " %",
            f"{100 * result['share_of_limit']:.0f} %",
        ]
    ]  # fmt: skip


def peer_lines(result: dict[str, Any]) -> list[str]:
    """Return a sentence for each peer of a result: its ratio, or why it is missing."""
    lines = []
    for row in result.get("peers", []):
        what = f"{row['peer']} {row.get('version', '')}".strip()
        if "missing" in row:
            lines.append(f"{what} beside {row['against']}: missing, {row['missing']}")
            continue
        lines.append(
            f"{what} ({row['title']}): {1e3 * row['cpu_seconds']:.3g} CPU-ms, ours ({row['against']}) "
            f"{1e3 * row['ours_seconds']:.3g}: {row['ratio']:.2f}x"
        )
    return lines


def header() -> str:
    """Return the first line of the table style."""
    return "  ".join(name.ljust(width) for name, width in zip(COLUMNS, WIDTHS, strict=True)).rstrip()


def as_table(result: dict[str, Any]) -> str:
    """Return the lines of a result in the table style."""
    if "error" in result:
        return f"{result['name']}: {result['error']}"
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
        for cells in rows(result)
    ]
    return "\n".join([*lines, *(f"    {line}" for line in peer_lines(result))])


def as_simple(result: dict[str, Any]) -> str:
    """Return the lines of a result in the simple style, ``key: value``."""
    lines = [f"Test: {result['name']}"]
    for key, value in result.items():
        if key in ("name", "kernels", "peers"):
            continue
        lines.append(f"{key}: {value:.6g}" if isinstance(value, float) else f"{key}: {value}")
    for row in result.get("kernels", []):
        lines.append(
            f"{row['title']}: {1e3 * row['cpu_seconds']:.4g} CPU-ms, {row['ns_per_edge']:.4g} ns an edge, "
            f"{100 * row['share_of_limit']:.0f} % of the limit ({row['bound_by']})"
        )
    return "\n".join([*lines, *peer_lines(result), ""])


def _one_machine(contents: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for content in contents:
        machine, settings = content["machine"], content["settings"]
        where = (
            ", ".join(machine["gpus"])
            if settings.get("device") is not None and machine["gpus"]
            else machine["processor"]
        )
        versions = machine["packages"]
        load = f", load average {machine['load_average']:.1f}" if machine["load_average"] is not None else ""
        line = (
            f"{where}, {settings['threads']} thread{'s' if settings['threads'] > 1 else ''}, torch {versions.get('torch')}, "
            f"OpenMM {versions.get('openmm')}{load}"
        )
        if line not in lines:
            lines.append(line)
    return lines


def markdown(paths: Iterable[Path]) -> str:
    """Return a Markdown table of result files: dynamics, kernels and peers, with the machine below."""
    contents = [read(path) for path in paths]
    found = [result for content in contents for result in content["results"] if "error" not in result]
    if not found:
        raise EquistrideError("the files hold no results", hint="run equistride bench --outfile first")
    blocks = []
    moving = [r for r in found if r["kind"] != "kernels"]
    if moving:
        names: tuple[str, ...] = (
            "system", "model", "ns/day", "atom-steps/s", "CPU µs an atom and step", "kB an atom", "conservation",
            "list / model / engine", "of the limit",
        )  # fmt: skip
        body = []
        for result in moving:
            cells = rows(result)[0]
            kilobytes = f"{result['bytes_per_atom'] / 1e3:.1f}"
            body.append([result["system"], cells[2], cells[3], cells[4], cells[6], kilobytes, *cells[8:]])
        blocks.append(_grid(names, body))
    timed = [r for r in found if r["kind"] == "kernels"]
    if timed:
        names = ("system", "kernel", "CPU ms", "ns an edge", "of the limit", "bound by")
        body = [
            [
                r["system"], k["title"], f"{1e3 * k['cpu_seconds']:.3g}", f"{k['ns_per_edge']:.3g}",
                f"{100 * k['share_of_limit']:.0f} %", k["bound_by"],
            ]
            for r in timed
            for k in r["kernels"]
        ]  # fmt: skip
        blocks.append(_grid(names, body))
    compared = [(r, p) for r in found for p in r.get("peers", [])]
    if compared:
        names = ("system", "ours", "CPU ms", "peer", "CPU ms", "ratio")
        body = []
        for r, p in compared:
            peer = f"{p['peer']} {p.get('version', '')}".strip()
            if "missing" in p:
                body.append([r["system"], p["against"], "", peer, "", f"missing: {p['missing']}"])
                continue
            ours, their = (f"{1e3 * p[k]:.3g}" for k in ("ours_seconds", "cpu_seconds"))
            body.append([r["system"], p["against"], ours, peer, their, f"{p['ratio']:.1f}"])
        blocks.append(_grid(names, body))
    return "\n\n".join([*blocks, *_one_machine(contents)]) + "\n"


def _grid(names: Sequence[str], body: list[list[str]]) -> str:
    lines = [list(names), ["---"] * len(names), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
