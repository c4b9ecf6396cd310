"""One page that shows what a run did: a single HTML file, with the same results as JSON beside it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from equistride.errors import EquistrideError
from equistride.series import Estimate
from equistride.trajectories import plots
from equistride.trajectories.picture import build_scene, colour_of, draw_scene, scene_data
from equistride.trajectories.summary import Analysis, Bounds, Triple, analyse
from equistride.trajectories.thermo import Segment
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.viewer import viewer_data, viewer_script
from equistride.units import FS_PER_PS
from equistride.writing import whole_file


@dataclass(frozen=True)
class _Card:
    label: str
    value: str
    unit: str = ""
    detail: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class _Figure:
    title: str
    svg: str
    caption: str
    wide: bool = False


def write_report(
    path: str | Path,
    *,
    title: str,
    trajectory: Trajectory | None = None,
    segments: Sequence[Segment] = (),
    reference: Trajectory | None = None,
    atoms: int | None = None,
    steps: int | None = None,
    speed: float | None = None,
    machine: str = "",
    subtitle: str = "",
    model: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    bounds: Bounds | None = None,
    r_max: float | None = None,
    triples: Sequence[Triple] | None = None,
    viewer: bool = True,
) -> Analysis:
    """Analyse a run and write the page.

    Parameters
    ----------
    path
        The HTML file; the results go beside it with the ending ``.json``. Folders are made as needed.
    title, subtitle
        Heading and the line below it.
    trajectory
        Frames of the run, or None.
    segments
        Stretches of the run with temperature and energies, such as NVT and then NVE; see
        :func:`equistride.trajectories.summary.analyse`.
    reference
        Frames to compare with, or None.
    atoms
        Number of atoms, where there is no trajectory.
    steps
        Steps of the whole run; taken from the segments otherwise.
    speed
        ns/day of the whole run; those of the segments otherwise.
    machine
        The machine that ran it, in words.
    model, settings
        Names and values to show: the model card, and how the run was made.
    bounds
        What passes.
    r_max, triples
        See :func:`equistride.trajectories.summary.analyse`.
    viewer
        Show the trajectory in chemiscope's viewer where that package is installed (3 MB of the page); a picture that
        turns otherwise.

    Returns
    -------
    Analysis
        What the page shows, as numbers.

    Raises
    ------
    EquistrideError
        Where there is nothing to analyse.
    """
    import jinja2

    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise EquistrideError(
            "a report is an HTML file",
            expected="a name that ends in .html",
            found=target.name,
            hint="rename it",
        )
    result = analyse(
        trajectory,
        segments=segments,
        reference=reference,
        atoms=atoms,
        bounds=bounds,
        r_max=r_max,
        triples=triples,
    )
    speeds = [s.speed for s in result.segments if s.speed is not None]
    pace = speed if speed is not None else (sorted(speeds)[len(speeds) // 2] if speeds else None)
    taken = steps if steps is not None else _steps(result.segments)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(
        files("equistride.trajectories").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    scene = build_scene(trajectory) if trajectory is not None else None
    program = viewer_script() if viewer and trajectory is not None else ""
    page = template.render(
        title=title,
        subtitle=subtitle,
        cards=_cards(result, speed, taken),
        figures=_figures(result),
        pairs=_pair_rows(result),
        equipartition=_equipartition_rows(result),
        tables=[(name, _rows(table)) for name, table in (
            ("Model", model or {}),
            ("Run", {**(settings or {}), **({"Machine": machine} if machine else {})}),
        ) if table],
        notes=result.notes,
        scene=scene_data(scene) if scene else None,
        program=program,
        frames=viewer_data(trajectory) if program and trajectory is not None else None,
        still=base64.b64encode(draw_scene(scene)).decode() if scene else "",
        legend=[(e, colour_of(e)) for e in trajectory.elements] if trajectory else [],
        formula=trajectory.formula if trajectory else "",
        moving=bool(scene and scene.interval),
        reference=reference.name if reference else "",
        has_drift=result.drift is not None,
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "title": title, "subtitle": subtitle, "machine": machine, "speed_ns_per_day": pace, "steps": taken,
        "model": dict(model or {}), "settings": dict(settings or {}), **result.as_dict(),
    }  # fmt: skip
    numbers = json.dumps(facts, indent=1, default=str, ensure_ascii=False) + "\n"
    with whole_file(target) as html, whole_file(target.with_suffix(".json")) as partial:  # both or none
        html.write_text(page, encoding="utf-8")
        partial.write_text(numbers, encoding="utf-8")
    return result


def plus_minus(value: float, error: float) -> str:
    """A value and its error, both to two digits of the error: "300.3 ± 2.2"."""
    if not math.isfinite(error) or error <= 0.0:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 4 and abs(value) < 1e-3:
        power = math.floor(math.log10(max(abs(value), error)))
        scale = 10.0**power
        return f"({value / scale:.2f} ± {error / scale:.2f})·10{_superscript(power)}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _number(value: float) -> str:
    """Three digits, without an exponent where that is readable."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")
    power = math.floor(math.log10(abs(value)))
    return f"{value / 10.0**power:.2f}·10{_superscript(power)}"


def _steps(segments: Sequence[Segment]) -> int | None:
    counted = [s.step for s in segments if s.step is not None]
    return int(max(float(c[-1]) for c in counted)) if counted else None


def _cards(result: Analysis, speed: float | None, steps: int | None) -> list[_Card]:
    cards = []
    shown = result.drift_segment or next((s for s in reversed(result.segments) if s.name in result.temperature), None)
    name = shown.name if shown is not None else next(iter(result.temperature), "")
    if name in result.temperature:
        mean = result.temperature[name]
        detail = name if shown is None else f"{name}, {shown.span:.4g} ps"
        detail += "" if mean.converged else "; short for an error"
        cards.append(_Card("Temperature", plus_minus(mean.value, mean.error), "K", detail))
    if result.drift is not None:
        drift = result.drift
        half = 0.5 * (drift.interval[1] - drift.interval[0])
        cards.append(_Card(
            "Energy drift", plus_minus(drift.slope, half), "",
            f"meV/atom/ps, {100 * drift.level:g} % interval; bound {_number(result.bounds.drift)}",
            drift.verdict(result.bounds.drift),
        ))  # fmt: skip
    worst = result.worst_rdf
    if worst is not None and worst.difference is not None:
        noise = "" if worst.noise is None or math.isnan(worst.noise) else f"; noise alone {100 * worst.noise:.1f} %"
        cards.append(_Card(
            "Structure", f"{100 * worst.difference:.1f}", "% off",
            f"{'–'.join(worst.rdf.pair)}, bound {100 * result.bounds.rdf:g} %{noise}", _rdf_verdict(result),
        ))  # fmt: skip
    if result.equipartition is not None:
        ratio = max(result.equipartition.ratio.items(), key=lambda item: abs(item[1].value - 1.0))
        verdict = result.equipartition.verdict(result.bounds.equipartition)
        cards.append(_Card(
            "Equipartition", plus_minus(ratio[1].value, ratio[1].error), "",
            f"T of {ratio[0]} over T of all", verdict,
        ))  # fmt: skip
    speeds = [(speed, "")] if speed is not None else [(s.speed, s.name) for s in result.segments if s.speed is not None]
    cards += [_Card("Speed", _number(pace), "ns/day", name if len(speeds) > 1 else "") for pace, name in speeds]
    cards.append(_Card("Atoms", _number(result.atoms), "", result.trajectory.formula if result.trajectory else ""))
    if steps is not None:
        cards.append(_Card("Steps", f"{steps:,}".replace(",", "\u202f")))
    span = sum(s.span for s in result.segments)
    if span > 0.0:
        cards.append(_Card("Simulated", _number(span), "ps", " + ".join(s.name for s in result.segments)))
    return cards


def _rdf_verdict(result: Analysis) -> str:
    """Pass within the bound, fail where the excess is more than the noise explains, undecided between."""
    verdicts = set()
    for pair in result.pairs.values():
        if pair.difference is None:
            continue
        noise = 0.0 if pair.noise is None or math.isnan(pair.noise) else pair.noise
        within = pair.difference <= result.bounds.rdf
        verdicts.add("pass" if within else ("fail" if pair.difference > result.bounds.rdf + 2 * noise else "undecided"))
    return "fail" if "fail" in verdicts else ("undecided" if "undecided" in verdicts else "pass")


def _figures(result: Analysis) -> list[_Figure]:
    name = result.reference.name if result.reference else "reference"
    figures = []
    warm = [s for s in result.segments if s.temperature is not None and len(s.time) > 1]
    if warm:
        means = {k: v.value for k, v in result.temperature.items()}
        said = "; ".join(
            f"{s.name} {plus_minus(result.temperature[s.name].value, result.temperature[s.name].error)} K" for s in warm
        )
        figures.append(_Figure("Temperature", plots.temperature_plot(warm, means), f"Means: {said}."))
    if result.drift is not None and result.drift_segment is not None:
        drift = result.drift
        low, high = drift.interval
        text = (
            f"Slope {_number(drift.slope)} meV/atom/ps, {100 * drift.level:g} % interval {_number(low)} to "
            f"{_number(high)} from {drift.blocks} blocks; rms about the line "
            f"{_number(drift.fluctuation)} meV/atom."
        )
        if drift.protocol is not None:
            text += f" By the eSEN paper's protocol: {_number(drift.protocol)} meV/atom/ps."
        figures.append(_Figure("Total energy", plots.drift_plot(result.drift_segment, drift, result.atoms), text))
    for pair, found in result.pairs.items():
        text = ""
        if found.first_peak is not None:
            text = f"First peak at {found.first_peak:.3f} Å"
            if found.coordination is not None and found.coordination_radius is not None:
                a, b = pair
                text += f"; {found.coordination[0]:.2f} {b} around {a} within {found.coordination_radius:.2f} Å"
            text += ". "
        if found.difference is not None:
            article = "the " if name.startswith("reference") else ""
            text += f"Differs from {article}{name} by {100 * found.difference:.1f} %"
            if found.noise is not None and not math.isnan(found.noise):
                text += f"; sampling noise alone would give {100 * found.noise:.1f} %"
            text += "."
        svg = plots.rdf_plot(
            found.rdf, found.reference, names=(result.trajectory.name if result.trajectory else "run", name)
        )
        figures.append(_Figure(f"Structure: {'–'.join(pair)}", svg, text))
    if result.angles:
        said = "; ".join(f"{'–'.join(t)} {a.mean:.1f}° ± {a.spread:.1f}°" for t, (a, _) in result.angles.items())
        figures.append(_Figure(
            "Angles", plots.angle_plot(list(result.angles.values()), name=name),
            f"Mean and standard deviation: {said}.",
        ))  # fmt: skip
    if result.vdos is not None:
        peaks = ", ".join(f"{p:.1f}" for p in result.vdos.peaks()[:8])
        text = (
            result.vdos.message
            if result.vdos.aliases
            else f"Peaks at {peaks} THz, resolution {result.vdos.resolution:.2g} THz."
        )
        figures.append(
            _Figure("Vibrations", plots.vdos_plot(result.vdos, result.vdos_reference, name=name), _sentence(text))
        )
    if result.msd:
        moved: list[str] = []
        for element, diffusion in result.diffusion.items():
            if diffusion.diffusive:
                figure = plus_minus(diffusion.coefficient * FS_PER_PS, diffusion.error * FS_PER_PS)
                moved.append(f"D({element}) = {figure} Å²/ps")
            else:
                moved.append(f"{element} grows as time to the power {diffusion.exponent:.2f}, not by diffusion")
        figures.append(_Figure("Displacement", plots.msd_plot(result.msd), _sentence("; ".join(moved))))
    return figures


def _pair_rows(result: Analysis) -> list[dict[str, str]]:
    rows = []
    for (a, b), p in result.pairs.items():
        around = "" if p.coordination is None else f"{p.coordination[0]:.2f}"
        back = "" if p.coordination is None or a == b else f"{p.coordination[1]:.2f}"
        rows.append({
            "pair": f"{a}–{b}", "peak": "" if p.first_peak is None else f"{p.first_peak:.3f}",
            "around": around, "back": back,
            "difference": "" if p.difference is None else f"{100 * p.difference:.2f} %",
            "noise": "" if p.noise is None or math.isnan(p.noise) else f"{100 * p.noise:.2f} %",
        })  # fmt: skip
    return rows


def _equipartition_rows(result: Analysis) -> list[tuple[str, str, str]]:
    if result.equipartition is None:
        return []
    both = result.equipartition
    text = lambda e: plus_minus(e.value, e.error)  # noqa: E731
    return [(e, text(both.temperature[e]), text(both.ratio[e])) for e in both.ratio]


def _rows(table: Mapping[str, object]) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        if isinstance(value, Estimate):
            return plus_minus(value.value, value.error)
        if isinstance(value, float):
            return f"{value:.6g}"
        if isinstance(value, list | tuple):
            return ", ".join(str(v) for v in value)
        return str(value)

    return [(str(key), shown(value)) for key, value in table.items() if value is not None]


def _sentence(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
