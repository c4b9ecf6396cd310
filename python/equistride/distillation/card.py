"""The card of a student: what it is, what it learned, how far it is from its teacher, and what it is not for."""

from __future__ import annotations

from typing import Any

from equistride.distillation.network import PARTS
from equistride.distillation.settings import Settings
from equistride.distillation.walks import FRAMES, SEGMENTS, TEST_WALKS


def card(name: str, formula: str, command: str, settings: Settings, found: dict[str, Any]) -> str:
    """Return the text of ``README.md``.

    Parameters
    ----------
    name, formula, command
        Of the artifact, of the system, and the command that made it.
    settings
        Of the distillation.
    found
        Its entries: ``teacher``, ``stride``, ``walks``, ``work``, ``trained``, ``artifact``, ``checks``, ``runs``, ``faults``,
        and those of ``figures``, ``corrections-1``, ``guarded`` and ``conserved`` that there are.
    """
    parts = [
        f"# {name}", _what(name, settings, found, formula), _errors(settings, found), _runs(settings, found), _energy(found),
        _checks(found), _made(command, settings, found), _use(name, settings), _limits(settings, found, formula),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(name: str, settings: Settings, found: dict[str, Any], formula: str) -> str:
    network, stride = found["artifact"], found["stride"]["stride_fs"]
    layers = f"{network['layers']} layer{'s' if network['layers'] > 1 else ''}"
    size = f"{layers}, cutoff {network['cutoff']:g} Å, {network['parameters']:,} parameters, {', '.join(network['species'])}"
    if settings.strides_through:
        return (
            f"A TrajCast propagator for {formula}: one call moves the atoms by {stride:g} fs ({size}). It learned from "
            f"{found['teacher']['name']}, and nothing should agree with experiment beyond what that does.\n\n"
            f"The stride: {found['stride']['why']}."
        )
    return (
        f"A potential of the kind {settings.student} for {formula} ({size}). It learned from {found['teacher']['name']}, and "
        "nothing should agree with experiment beyond what that does."
    )


def _errors(settings: Settings, found: dict[str, Any]) -> str:
    errors = found["trained"]
    temperature = f"{settings.temperature:g} K"
    if not settings.strides_through:
        rows = [
            ("force", "force_mae", "meV/Å"),
            ("energy", "energy_mae", "meV/atom"),
            ("virial", "virial_mae", "meV/atom"),
        ]
        lines = [
            f"| {what} | {errors[f'test_{key}']:.3g} {unit} |" for what, key, unit in rows if f"test_{key}" in errors
        ]
        return "\n".join([f"| mean absolute error at {temperature}, walks never seen | |", "|---|---|", *lines])

    def cell(quantity: str) -> str:
        elements = {
            key.removeprefix(f"test_{quantity}_").removesuffix("_percent"): value
            for key, value in errors.items()
            if key.startswith(f"test_{quantity}_") and key != f"test_{quantity}_percent"
        }
        more = ", ".join(f"{symbol} {value:.2f}" for symbol, value in elements.items()) if len(elements) > 1 else ""
        return f"{errors[f'test_{quantity}_percent']:.2f} %" + (f" ({more})" if more else "")

    atoms = "all atoms (by element)" if len(found["artifact"]["species"]) > 1 else "all atoms"
    return (
        "Error of one stride: mean absolute error of a component beside the rms of that component.\n\n"
        f"| walks never seen, {temperature} | displacement | velocity |\n|---|---|---|\n"
        f"| {atoms} | {cell('displacement')} | {cell('velocity')} |"
    )


def _estimate(pair: list[float | None]) -> str:
    value, error = pair
    return "?" if value is None else f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}") + " K"


def _runs(settings: Settings, found: dict[str, Any]) -> str:
    lines, stride = [], found["stride"]["stride_fs"]
    made = sum(run["steps"] for run in found["runs"].values())
    failures = [run["failure"] for run in found["runs"].values() if run["failure"]]
    step = stride if settings.strides_through else found["step_fs"]
    what = "strides" if settings.strides_through else "steps"
    bath = "langevin+csvr" if settings.strides_through else "LangevinMiddle"
    span = f"{made:,} {what} ({made * step / 1000:.3g} ps) in OpenMM at {settings.temperature:g} K under {bath}"
    if found["faults"]:
        lines.append(
            f"**Do not use it as it is**: {'; '.join(found['faults'])}. More training (`--budget`) may mend that.\n"
        )
    lines.append(
        f"Ran {span}" + (f", and then: {failures[0]}." if failures else " without a failure; no more was tried.")
    )
    figures = found.get("figures")
    if figures is None:
        lines.append("\nThe run was too short to be compared with the teacher's.")
        return "\n".join(lines)
    student, teacher = figures["student"], figures["teacher"]
    elements = "".join(f"; T of {e}" for e in student["elements"])
    both = [
        "; ".join([_estimate(one["T"]), *(_estimate(t) for t in one["elements"].values())])
        for one in (student, teacher)
    ]
    lines += [
        "", f"Its first {figures['frames'][0]} frames beside {figures['frames'][1]} of the teacher's under the same friction"
        " ([report](report.html)):", "", "| | student | teacher |", "|---|---|---|", f"| T{elements} | {both[0]} | {both[1]} |",
    ]  # fmt: skip
    for pair, one in figures["rdf"].items():
        if one["percent"] is not None:
            noise = "?" if one["noise_percent"] is None else f"{one['noise_percent']:.1f} %"
            lines.append(
                f"| RDF {pair}, integrated absolute difference | {one['percent']:.1f} % | noise alone: {noise} |"
            )
    if "peaks_THz" in student and "peaks_THz" in teacher:
        peaks = [", ".join(f"{f:.2f}" for f in one["peaks_THz"][:8]) or "none" for one in (student, teacher)]
        folded = f"sampled below {student['limit_THz']:.1f} THz, {student['resolution_THz']:.2g} THz wide"
        lines.append(f"| peaks of the spectrum, THz ({folded}) | {peaks[0]} | {peaks[1]} |")
    return "\n".join(lines)


def _energy(found: dict[str, Any]) -> str:
    def drift(one: dict[str, Any]) -> str:
        if "drift_meV_per_atom_per_ps" not in one:
            return "too short for a drift"
        low, high = one["interval"]
        return f"{one['drift_meV_per_atom_per_ps']:+.3g} meV/atom/ps (95 % interval {low:+.2g} to {high:+.2g})"

    if "guarded" in found:
        one = found["guarded"]
        cost = f", at {100 * one['cost']:.0f} % of the network's time" if "cost" in one else ""
        left = f" It ended so: {one['failure']}." if one["failure"] else ""
        return (
            f"Without a thermostat, the teacher as guard every 10 strides: the total energy drifts by {drift(one)} over "
            f"{one['strides']} strides{cost}.{left}"
        )
    if "conserved" in found:
        one = found["conserved"]
        power = (
            f"; its error falls as dt to the power {one['power_of_timestep']:.2f}" if "power_of_timestep" in one else ""
        )
        return f"At constant energy, {one['timestep_fs']:.2g} fs a step, it drifts by {drift(one)}{power}. {one['verdict']}"
    return ""


def _checks(found: dict[str, Any]) -> str:
    bad = [c["name"] for c in found["checks"] if not c["passed"]]
    count = len(found["checks"])
    if bad:
        return f"**{len(bad)} of {count} checks of `equistride validate` fail**: {', '.join(bad)}."
    return f"All {count} checks of `equistride validate` pass (symmetries, momenta or forces, precision)."


def _made(command: str, settings: Settings, found: dict[str, Any]) -> str:
    work, walks = found["work"], found["walks"]
    temperatures = ", ".join(f"{t:g}" for t in settings.temperatures)
    strained = f", a quarter of them in cells strained by {100 * settings.strained:g} %" if settings.strained else ""
    seconds = found["seconds"]
    spent = sum(seconds.values())
    fitted = [name for name in ("walks", "steps", "frames", "strides") if getattr(settings, name) is None]
    budget = (
        f" A budget of {settings.budget / 60:.3g} min and the speeds of this machine, measured once, fixed the number of "
        f"{', '.join(fitted)} (`plan.json`); it took {spent / 60:.3g} min."
        if fitted
        else f" It took {spent / 60:.3g} min."
    )
    rest = "" if settings.relax == "none" else " and one that begins at rest with twice the kinetic energy"
    return (
        f"**Made by** `{command}`. **Data**: {walks['walks']} walks of the teacher at {temperatures} K{strained}, each of "
        f"{SEGMENTS} NVE segments of {FRAMES} frames{rest}; {TEST_WALKS} more walks for the test. "
        f"**Training**: {work['steps']:,} steps{_parts(found)}.{budget}"
    )


def _parts(found: dict[str, Any]) -> str:
    """Say what a training in parts was."""
    segments = [found[f"corrections-{k}"] for k in range(1, len(PARTS)) if f"corrections-{k}" in found]
    if not segments:
        return " (`config.yaml`)"
    counts = " and ".join(map(str, segments))
    return (
        f", {100 * PARTS[0].share:.0f} % of them on the walks alone (`config.yaml`), then also on {counts} "
        "segments of the teacher from states to which strides of the network so far had led (`config-2.yaml` ...)"
    )


def _use(name: str, settings: Settings) -> str:
    lammps = "fix 1 all equistride/propagate" if settings.strides_through else "pair_style equistride"
    return (
        f"**Use**: `equistride run {name}.pt relaxed.extxyz --supercell 3` runs it in OpenMM, with `--engine lammps` in LAMMPS; "
        f"`examples/` has scripts of both (`{lammps}`)."
    )


def _limits(settings: Settings, found: dict[str, Any], formula: str) -> str:
    stride = found["stride"]["stride_fs"]
    hottest = max(settings.temperatures)
    common = f"**Known limits**: the phase of {formula} that it was taught, to {hottest:g} K; no other phase, surface, defect"
    if not settings.strides_through:
        return f"{common}, and no strain beyond a few times {100 * settings.strained:g} %."
    strain = "" if settings.strained else ", no cell but the one at rest under the teacher"
    return (
        f"{common}{strain}, no other masses, no pressure. Use `langevin+csvr`, the default thermostat; without one strides "
        f"need a guard. Frequencies above {500 / stride:.1f} THz are folded back in spectra."
    )
