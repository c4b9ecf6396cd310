"""Everything that can be said of a run, in one pass; what cannot be said becomes a note."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, TypeVar

import numpy as np

from equistride.cell import heights
from equistride.conservation.drift import Drift, energy_drift
from equistride.errors import EquistrideError
from equistride.series import Estimate, block_average
from equistride.trajectories.angles import AngleDistribution, angle_distribution
from equistride.trajectories.msd import MSD, Diffusion, mean_square_displacement
from equistride.trajectories.rdf import RDF, coordination_number, radial_distribution, rdf_difference, rdf_noise
from equistride.trajectories.temperature import (
    Equipartition,
    MaxwellTest,
    equipartition,
    kinetic_temperature,
    maxwell_test,
)
from equistride.trajectories.thermo import Segment, segment_of
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.vdos import VDOS, vibrational_density

Pair = tuple[str, str]
Triple = tuple[str, str, str]
T = TypeVar("T")

_STRUCTURE_FRAMES = 400
_ATOM_FRAMES = 200_000
_PAIRS_SHOWN = 6
_ANGLES_SHOWN = 4


@dataclass(frozen=True)
class Bounds:
    """What counts as good.

    Attributes
    ----------
    drift
        Largest drift of the total energy [meV/atom/ps].
    rdf
        Largest difference of a radial distribution function from the reference, as a share of its integral.
    equipartition
        Largest deviation of an element's temperature, as a share.
    """

    drift: float = 0.1
    rdf: float = 0.02
    equipartition: float = 0.02


@dataclass(frozen=True)
class PairResult:
    """One partial RDF, its first peak (A), coordination both ways, and how it compares with the reference."""

    rdf: RDF
    first_peak: float | None
    coordination: tuple[float, float] | None
    coordination_radius: float | None
    reference: RDF | None = None
    difference: float | None = None
    noise: float | None = None


@dataclass
class Analysis:
    """Results of :func:`analyse`; a field is None or empty where there was nothing to take it from, and
    ``notes`` say why.
    """

    atoms: int
    bounds: Bounds
    trajectory: Trajectory | None = None
    reference: Trajectory | None = None
    segments: list[Segment] = field(default_factory=list)
    temperature: dict[str, Estimate] = field(default_factory=dict)
    drift_segment: Segment | None = None
    drift: Drift | None = None
    equipartition: Equipartition | None = None
    maxwell: MaxwellTest | None = None
    pairs: dict[Pair, PairResult] = field(default_factory=dict)
    angles: dict[Triple, tuple[AngleDistribution, AngleDistribution | None]] = field(default_factory=dict)
    vdos: VDOS | None = None
    vdos_reference: VDOS | None = None
    msd: dict[str, MSD] = field(default_factory=dict)
    diffusion: dict[str, Diffusion] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def worst_rdf(self) -> PairResult | None:
        """The pair that differs most from the reference."""
        compared = [p for p in self.pairs.values() if p.difference is not None]
        return max(compared, key=lambda p: p.difference or 0.0, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; NaN becomes None."""
        results: dict[str, Any] = {
            "atoms": self.atoms,
            "bounds": asdict(self.bounds),
            "segments": [
                {"name": s.name, "ensemble": s.ensemble, "samples": len(s.time), "span_ps": s.span,
                 "speed_ns_per_day": s.speed}
                for s in self.segments
            ],
            "temperature_K": self.temperature,
            "drift_meV_per_atom_per_ps": self.drift,
            "drift_verdict": self.drift.verdict(self.bounds.drift) if self.drift else None,
            "equipartition": self.equipartition,
            "equipartition_verdict": (
                self.equipartition.verdict(self.bounds.equipartition) if self.equipartition else None
            ),
            "maxwell_boltzmann": self.maxwell,
            "rdf": {
                "-".join(pair): {
                    "first_peak_A": p.first_peak,
                    "coordination": p.coordination,
                    "coordination_radius_A": p.coordination_radius,
                    "difference_from_reference": p.difference,
                    "difference_by_noise_alone": p.noise,
                    "r_A": p.rdf.r, "g": p.rdf.g, "g_error": p.rdf.error,
                    "g_reference": p.reference.g if p.reference else None,
                }
                for pair, p in self.pairs.items()
            },
            "angles": {
                "-".join(t): {"mean_deg": a.mean, "spread_deg": a.spread, "per_centre": a.per_centre,
                              "reference_mean_deg": b.mean if b else None,
                              "angle_deg": a.angle, "density": a.density}
                for t, (a, b) in self.angles.items()
            },
            "vdos": None if self.vdos is None else {
                "peaks_THz": self.vdos.peaks(), "nyquist_THz": self.vdos.nyquist,
                "aliased": self.vdos.aliased,
                "resolution_THz": self.vdos.resolution, "frequency_THz": self.vdos.frequency,
                "density_per_THz": self.vdos.density, "by_element": self.vdos.by_element,
            },
            "msd": {e: {"time_fs": m.time, "A2": m.values, "error_A2": m.error} for e, m in self.msd.items()},
            "diffusion_A2_per_fs": self.diffusion,
            "notes": self.notes,
        }  # fmt: skip
        plain: dict[str, Any] = _plain(results)
        return plain


def analyse(
    trajectory: Trajectory | None = None,
    *,
    segments: Sequence[Segment] = (),
    reference: Trajectory | None = None,
    atoms: int | None = None,
    bounds: Bounds | None = None,
    r_max: float | None = None,
    triples: Sequence[Triple] | None = None,
) -> Analysis:
    """Take every analysis that the data allow.

    Parameters
    ----------
    trajectory
        Frames for structure, vibrations and diffusion.
    segments
        Stretches of the run with temperature and energies; the drift is taken on the last one in NVE. Where
        none is given, they come from the trajectory.
    reference
        Frames to compare with.
    atoms
        Number of atoms; needed without a trajectory.
    bounds
        What counts as good.
    r_max
        Longest distance of the RDFs (A). None: half the cell, but at least 6 and at most 8 A.
    triples
        Angles to show as (end, centre, end); the most frequent ones otherwise.

    Returns
    -------
    Analysis

    Raises
    ------
    EquistrideError
        Where there is neither a trajectory nor a segment, or two segments share a name.
    """
    if trajectory is None and not segments:
        raise EquistrideError(
            "there is nothing to analyse", expected="a trajectory or segments", hint="pass one or the other"
        )
    count = atoms if trajectory is None else trajectory.atoms
    if count is None:
        raise EquistrideError("the number of atoms is unknown", hint="pass atoms=N or a trajectory")
    result = Analysis(count, bounds or Bounds(), trajectory, reference, list(segments))
    if trajectory is not None and not segments:
        own = segment_of(trajectory)
        result.segments = [] if own is None else [own]
    names = [s.name for s in result.segments]
    if len(set(names)) < len(names):
        raise EquistrideError(
            "two segments share a name", expected="different names", found=", ".join(names), hint="rename one"
        )
    _energies(result)
    if trajectory is not None:
        if reference is not None and reference.elements != trajectory.elements:
            result.notes.append(
                f"The reference holds {', '.join(reference.elements)} and the run "
                f"{', '.join(trajectory.elements)}: only what both have is compared."
            )
        _motion(result, trajectory, reference)
        _structure(result, trajectory, reference, r_max, triples)
    return result


def _attempt(result: Analysis, what: str, task: Callable[..., T], *args: Any) -> T | None:
    try:
        return task(*args)
    except EquistrideError as error:
        note = f"{what}: {error}."
        if note not in result.notes:
            result.notes.append(note)
        return None


def _energies(result: Analysis) -> None:
    for segment in result.segments:
        if segment.temperature is not None:
            result.temperature[segment.name] = block_average(segment.temperature)
    closed = [s for s in result.segments if s.ensemble == "NVE" and s.total is not None]
    if not closed:
        result.notes.append("No drift: there is no segment in the NVE ensemble with a total energy.")
        return
    segment = closed[-1]
    result.drift = _attempt(result, "No drift", energy_drift, segment.time, segment.total, result.atoms)
    result.drift_segment = segment if result.drift else None


def _motion(result: Analysis, run: Trajectory, reference: Trajectory | None) -> None:
    if run.velocities is not None:
        result.equipartition = _attempt(result, "No equipartition", equipartition, run)
        if not result.temperature:
            mean = _attempt(result, "No temperature", kinetic_temperature, run)
            result.temperature = {} if mean is None else {run.name: mean}
        result.maxwell = _attempt(result, "No Maxwell-Boltzmann test", maxwell_test, run)
    else:
        result.notes.append("No equipartition and no Maxwell-Boltzmann test: the trajectory has no velocities.")
    result.vdos = _attempt(result, "No vibrational density of states", _spectrum, run)
    if result.vdos is not None and reference is not None:
        result.vdos_reference = _attempt(result, "No reference spectrum", _spectrum, reference)
    for spectrum, who in ((result.vdos, "run"), (result.vdos_reference, "reference")):
        if spectrum is not None and spectrum.aliases:
            result.notes.append(f"Spectrum of the {who}: {spectrum.message}")
        elif spectrum is not None and math.isnan(spectrum.aliased):
            result.notes.append(
                f"Spectrum of the {who}: it comes from positions, so motion above its limit of "
                f"{spectrum.nyquist:.1f} THz would be folded back unseen."
            )
    for element in run.elements:
        msd = _attempt(result, "No mean square displacement", mean_square_displacement, run, element)
        if msd is None:
            break
        result.msd[element] = msd
        diffusion = _attempt(result, "No diffusion coefficient", msd.diffusion)
        if diffusion is not None:
            result.diffusion[element] = diffusion


def _spectrum(run: Trajectory) -> VDOS:
    return vibrational_density(run, source="positions" if run.velocities is None else "velocities")


def _structure(
    result: Analysis, run: Trajectory, reference: Trajectory | None, r_max: float | None,
    triples: Sequence[Triple] | None,
) -> None:  # fmt: skip
    some = _thin(run)
    other = None if reference is None else _thin(reference)
    if run.periodic:
        reach = r_max or _reach(some, other)
        common = sorted(run.pairs, key=lambda p: -run.symbols.count(p[0]) * run.symbols.count(p[1]))
        for pair in [p for p in run.pairs if p in common[:_PAIRS_SHOWN]]:
            found = _attempt(result, f"No RDF of {'-'.join(pair)}", _pair, some, other, pair, reach)
            if found is not None:
                result.pairs[pair] = found
    else:
        result.notes.append("No RDF: the trajectory has no periodic box.")
    for triple in triples if triples is not None else _common_angles(some):
        angle = _attempt(result, f"No angle {'-'.join(triple)}", angle_distribution, some, *triple)
        if angle is None:
            continue
        compare = None
        if other is not None and set(triple) <= set(other.elements):
            compare = _attempt(result, f"No reference angle {'-'.join(triple)}", angle_distribution, other, *triple)
        result.angles[triple] = (angle, compare)


def _thin(run: Trajectory) -> Trajectory:
    return run.thinned(max(10, min(_STRUCTURE_FRAMES, _ATOM_FRAMES // run.atoms)))


def _reach(run: Trajectory, reference: Trajectory | None) -> float:
    halves = [0.5 * float(heights(t.cells[0]).min()) for t in (run, reference) if t is not None and t.periodic]
    return float(np.clip(min(halves), 6.0, 8.0))


def _pair(run: Trajectory, reference: Trajectory | None, pair: Pair, reach: float) -> PairResult:
    rdf = radial_distribution(run, *pair, r_max=reach)
    try:
        peak: float | None = rdf.first_peak
        found = coordination_number(rdf)
        back = found.number * run.symbols.count(pair[0]) / run.symbols.count(pair[1])
        coordination: tuple[float, float] | None = (found.number, back)
        radius: float | None = found.radius
    except EquistrideError:
        peak, coordination, radius = None, None, None
    if reference is None or not reference.periodic or not set(pair) <= set(reference.elements):
        return PairResult(rdf, peak, coordination, radius)
    other = radial_distribution(reference, *pair, r_max=reach)
    return PairResult(rdf, peak, coordination, radius, other, rdf_difference(rdf, other), rdf_noise(rdf, other))


def _common_angles(run: Trajectory) -> list[Triple]:
    first = run.select(slice(0, 1))
    counted: list[tuple[float, Triple]] = []
    for centre in run.elements:
        for end, far in run.pairs:
            try:
                angle = angle_distribution(first, end, centre, far)
            except EquistrideError:
                continue
            counted.append((angle.per_centre * run.symbols.count(centre), angle.triple))
    counted.sort(key=lambda c: (-c[0], c[1]))
    return [triple for _, triple in counted[:_ANGLES_SHOWN]]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({key: getattr(value, key) for key in value.__dataclass_fields__})
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
