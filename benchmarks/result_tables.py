"""Tables of the documents, made of benchmarks/results/*.json, so that no figure in them is typed.

In a page of docs/ a line ``<!-- table: NAME -->`` stands for a table; mkdocs calls :func:`on_page_markdown`. In a file that is
read as it is, the table stands below the line, up to ``<!-- end of table -->``, and
``python benchmarks/result_tables.py README.md`` writes it anew.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equistride.bench.results import markdown

RESULTS = Path(__file__).resolve().parent / "results"
MARK = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)
BLOCK = re.compile(r"(?<=^<!-- table: )(\w+) -->\n.*?(?=^<!-- end of table -->$)", re.MULTILINE | re.DOTALL)


def read(name: str) -> dict[str, Any]:
    """Return one file of results."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def grid(names: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [names, ["---"] * len(names), *body])


def measured_on(content: dict[str, Any]) -> str:
    """Return the line below a table of bench: on what it was measured."""
    machine = content["machine"]
    return f"{machine['processor']}, {content['settings']['threads']} thread, torch {machine['packages']['torch']}"


def speed() -> str:
    """Return what bench says of the released models: the few columns that a newcomer reads."""
    content = read("bench_cpu")
    body = [
        [
            f"{r['atoms']:,}", r["model"], f"{r['step_fs']:g} fs", f"{r['ns_per_day']:.3g}",
            f"{r['cpu_us_per_atom_step']:.3g}",
        ]
        for r in content["results"]
    ]  # fmt: skip
    names = ("atoms of quartz", "model", "step", "ns/day", "CPU µs an atom and step")
    return f"{grid(names, body)}\n\n{measured_on(content)}"


def models() -> str:
    """Return all that bench says of the released models in OpenMM."""
    return markdown([RESULTS / "bench_cpu.json"]).rstrip()


def beside() -> str:
    """Return the ratios of peers on the same 576 atoms; of kernels those that a network calls."""
    content = read("bench_peers")
    body = []
    for r in content["results"]:
        for p in r.get("peers", []):
            if r["atoms"] == 576 and p["peer"] != "ase" and not (r["kind"] == "propagator" and p["peer"] == "e3nn"):
                ours, theirs = (f"{1e3 * p[key]:.3g}" for key in ("ours_seconds", "cpu_seconds"))
                peer = f"{p['peer']} {p['version']}: {p['title'].split(',')[0]}"
                body.append([p["against"].removesuffix(" on given edges"), ours, peer, theirs, f"{p['ratio']:.1f}"])
    return f"{grid(('ours', 'CPU ms', 'peer', 'CPU ms', 'ratio'), body)}\n\n{measured_on(content)}"


def peers() -> str:
    """Return our networks and kernels beside other programs, in one run."""
    return markdown([RESULTS / "bench_peers.json"]).rstrip()


def fairchem() -> str:
    """Return eSEN beside fairchem-core with the same weights."""
    content = read("esen_speed")
    body = [
        [
            name, f"{r['fused']:.3g}", f"{r['fairchem / fused']:.1f}",
            f"{r['fairchem, recomputing / fused']:.1f}",
        ]
        for name, r in content.items() if isinstance(r, dict) and "fairchem / fused" in r
    ]  # fmt: skip
    names = ("network", "ours, CPU s", "fairchem / ours", "fairchem as it runs by default / ours")
    return grid(names, body) + f"\n\n{content['processor']}, one thread, float32, torch {content['torch']}"


def neighbours() -> str:
    """Return lists of neighbours beside other programs'."""
    content = read("neighbors")
    others = [name for name in content["results"][0]["ms"] if not name.startswith("equistride")]
    body = [
        [f"{r['structure']}, {r['cutoff']:g} Å", f"{r['edges']:,}", f"{r['ms']['equistride']:.2f}"]
        + [f"{r['ms'][name]:.3g}" if name in r["ms"] else "" for name in others]
        for r in content["results"]
    ]
    return grid(("system", "edges", "equistride, CPU ms", *others), body) + f"\n\n{content['machine']['cpu']}"


def lammps() -> str:
    """Return the speed of processes of LAMMPS, and how far their forces are from one another."""
    content = read("lammps")
    body = []
    for atoms in ("4374", "34992"):
        seconds = {
            processes: statistics.median(r["wall"] for r in rounds)
            for processes, rounds in content["speed"][atoms]["rounds"].items()
            if processes.isdigit()
        }
        body.append([f"{int(atoms):,}", *(f"{s:.3g}" for s in seconds.values()), f"{seconds['1'] / seconds['2']:.2f}"])
    ways = [w for n in ("162", "576", "4374") for w in content["agreement"][n]["ways"].values()]
    worst = max(value for way in ways for key, value in way.items() if key.startswith("force_from"))
    said = f"Forces of all ways, OpenMM's and ASE's among them, agree to {worst:.0e} eV/Å in {content['agreement']['precision']}."
    names = ("atoms of quartz", "one process, s a step", "two processes, s a step", "ratio")
    return grid(names, body) + f"\n\n{content['speed']['machine']}, {content['speed']['model']}. {said}"


def properties() -> str:
    """Return what potentials and their teachers say of two crystals."""
    content = read("properties")
    body = [
        [crystal, r["quantity"], f"{r['model']:.4g}", f"{r['reference']:.4g}", f"{r['difference_percent']:+.2f} %"]
        for crystal in ("silicon", "quartz") for r in content[crystal] if r.get("difference_percent") is not None
    ]  # fmt: skip
    return grid(("crystal", "quantity", "model", "teacher", "difference"), body)


def strides() -> str:
    """Return long runs of the propagators beside their teachers."""
    body = []
    for name in ("trajcast_rollout_576", "trajcast_rollout_4374"):
        r = read(name)
        run = r["roll-out"]
        elements = ", ".join(f"{e} {t[0]:.1f}" for e, t in run["temperature_of_elements_K"].items())
        body.append([
            f"quartz, {r['atoms']:,} atoms, 30 fs", f"{r['strides']:,}",
            f"{run['temperature_K'][0]:.1f} ± {run['temperature_K'][1]:.1f}",
            elements, f"{max(run['rdf_difference_percent'].values()):.2f} %", f"{r['cpu_seconds_a_stride']:.3g}",
        ])  # fmt: skip
    for what, name in (
        ("ethanol, 7 fs", "molecule_rollout"), ("paracetamol, 7 fs", "molecule_rollout_paracetamol"),
        ("water, 192 atoms, 5 fs", "water_rollout_192"), ("water, 5,184 atoms, 5 fs", "water_rollout_5184"),
    ):  # fmt: skip
        r = read(name)
        run = r.get("propagator", r)
        elements = ", ".join(f"{e} {t[0]:.1f}" for e, t in run["temperature_of_elements_K"].items())
        difference = f"{max(r['rdf_difference_percent'].values()):.2f} %" if "rdf_difference_percent" in r else ""
        body.append([
            what, f"{r['strides']:,}", f"{run['temperature_K'][0]:.1f} ± {run['temperature_K'][1]:.1f}", elements, difference,
            f"{r['cpu_seconds_a_stride']:.2g}",
        ])  # fmt: skip
    names = ("run", "strides", "temperature, K", "by element, K", "largest RDF difference", "CPU s a stride")
    return (
        grid(names, body)
        + f"\n\n{r['machine']}; loaded machine, so that times are those of the processor, not of the clock"
    )


def frames() -> str:
    """Return what pairs of frames are worth: changes of the force error on held-out frames, paired by seed."""
    body = []
    files = ("oscillators", "ethanol", "ethanol-confirmation", "aspirin", "aspirin-confirmation")
    for name in files:
        content = read(f"frames-{name}")
        baseline = [seed["test force"] for seed in content["errors"]["baseline"].values()]
        for loss, change in content["difference from baseline"].items():
            force = change["test force"]
            body.append([
                name, loss, f"{statistics.mean(baseline):.0f}", f"{force['mean']:+.0f}",
                f"{force['low']:+.0f} to {force['high']:+.0f}", f"{force['wins']} of {force['count']}",
            ])  # fmt: skip
    names = ("system", "loss @ weight", "without, meV/Å", "change", "95 % interval", "seeds that gain")
    return grid(names, body)


def phonons() -> str:
    """Return phonons of an imported network beside those of its own program."""
    content = read("foreign_phonons")
    body = [
        [name, str(c["atoms"]), f"{c['difference_THz']['largest']:.1e}", f"{c['highest_THz']:.2f}"]
        for name, c in content["crystals"].items()
    ]
    said = f"\n\n{content['checkpoint']}, {content['dtype']}"
    return grid(("crystal", "atoms", "largest difference, THz", "highest mode, THz"), body) + said


TABLES = {
    f.__name__: f
    for f in (speed, beside, models, peers, fairchem, neighbours, lammps, properties, strides, frames, phonons)
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables where a page asks for them (a hook of mkdocs)."""
    return MARK.sub(lambda found: TABLES[found.group(1)](), markdown)


def renewed(text: str) -> str:
    """Return the text of a file with its tables made anew."""
    return BLOCK.sub(lambda found: f"{found.group(1)} -->\n{TABLES[found.group(1)]()}\n", text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(renewed(path.read_text()))
