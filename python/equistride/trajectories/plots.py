"""Figures as inline SVG whose colours and font follow the page, so that they suit light and dark."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from equistride.conservation.drift import MEV_PER_EV, Drift
from equistride.series import Floats, block_means
from equistride.trajectories.angles import AngleDistribution
from equistride.trajectories.msd import MSD
from equistride.trajectories.rdf import RDF
from equistride.trajectories.thermo import Segment
from equistride.trajectories.vdos import VDOS
from equistride.units import FS_PER_PS

# Placeholders that become CSS variables of the page.
_INK, _MUTED, _RULE, _REFERENCE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
_SERIES = tuple(f"#0a0b1{k}" for k in range(6))
_VARIABLES = {
    _INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _REFERENCE: "--reference",
    **{colour: f"--series-{k}" for k, colour in enumerate(_SERIES)},
}  # fmt: skip
_MOST_POINTS = 1200

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


class _Plot:
    """One pair of axes in the page's style; ``svg()`` gives the markup."""

    def __init__(self, name: str, x: str, y: str, *, size: tuple[float, float] = (5.6, 3.1)) -> None:
        self.name = name
        self.style: Any = {**_STYLE, "svg.hashsalt": name}
        with matplotlib.rc_context(self.style):
            self.figure = Figure(figsize=size, layout="constrained")
            self.axes: Axes = self.figure.add_subplot()
            self.axes.set_xlabel(x)
            self.axes.set_ylabel(y)
            self.axes.tick_params(length=0, pad=5)
            self.axes.margins(x=0)

    def svg(self, *, legend: bool = False) -> str:
        """The figure as SVG, with its legend above the axes."""
        with matplotlib.rc_context(self.style):
            if legend:
                count = len(self.axes.get_legend_handles_labels()[1])
                self.axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=min(count, 6), borderpad=0.1)
            self.figure.patch.set_alpha(0.0)
            self.axes.patch.set_alpha(0.0)
            buffer = io.StringIO()
            FigureCanvasSVG(self.figure).print_svg(buffer, metadata={"Date": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        head, body = text.split(">", 1)
        view = head[head.index("viewBox") :].split('"')[1]
        return f'<svg class="plot" role="img" aria-label="{self.name}" viewBox="{view}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def temperature_plot(segments: Sequence[Segment], means: Mapping[str, float]) -> str:
    """Temperature of all segments, one after the other, with their means."""
    plot = _Plot("Temperature against time", "time (ps)", "temperature (K)")
    offset = 0.0
    for k, segment in enumerate(segments):
        if segment.temperature is None:
            continue
        time = segment.time / FS_PER_PS
        start = time[0] + (offset if time[0] < offset - 1e-9 else 0.0)
        time = time - time[0] + start
        offset = float(time[-1])
        label = f"{segment.name} ({segment.ensemble})" if segment.ensemble else segment.name
        plot.axes.plot(*_thin(time, segment.temperature), color=_SERIES[k % 6], linewidth=1.0, label=label)
        if segment.name in means:
            plot.axes.hlines(means[segment.name], time[0], time[-1], color=_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    return plot.svg(legend=len(segments) > 1)


def drift_plot(segment: Segment, drift: Drift, atoms: int) -> str:
    """Total energy about its start, with the fitted line and the cone of its confidence interval."""
    plot = _Plot("Total energy against time", "time (ps)", "total energy − mean (meV/atom)")
    time = (segment.time - segment.time[0]) / FS_PER_PS
    total = np.zeros_like(time) if segment.total is None else segment.total
    energy = (total - total.mean()) * MEV_PER_EV / atoms
    centre = float(time.mean())
    ends = np.linspace(time[0], time[-1], 31)
    plot.axes.plot(*_thin(time, energy), color=_SERIES[0], linewidth=1.0, label="total energy")
    low, high = (np.outer(ends - centre, drift.interval)).T
    plot.axes.fill_between(
        ends, np.minimum(low, high), np.maximum(low, high), color=_SERIES[1], alpha=0.25, linewidth=0
    )
    plot.axes.plot(
        ends,
        drift.slope * (ends - centre),
        color=_SERIES[1],
        label=f"slope, {100 * drift.level:g} % interval",
    )
    plot.axes.ticklabel_format(axis="y", useOffset=False)
    return plot.svg(legend=True)


def rdf_plot(rdf: RDF, reference: RDF | None, *, names: tuple[str, str] = ("run", "reference")) -> str:
    """One partial RDF with its error band, over the reference."""
    plot = _Plot(f"Radial distribution function {'-'.join(rdf.pair)}", "r (Å)", f"g(r)  {'–'.join(rdf.pair)}")
    band = np.nan_to_num(rdf.error)
    plot.axes.fill_between(rdf.r, rdf.g - 2 * band, rdf.g + 2 * band, color=_SERIES[0], alpha=0.25, linewidth=0)
    plot.axes.plot(rdf.r, rdf.g, color=_SERIES[0], label=names[0])
    if reference is not None:
        plot.axes.plot(
            reference.r, reference.g, color=_REFERENCE, linewidth=1.2, linestyle=(0, (4, 2.5)), label=names[1]
        )
    plot.axes.axhline(1.0, color=_RULE, linewidth=0.8)
    plot.axes.set_ylim(bottom=0.0)
    return plot.svg(legend=reference is not None)


def angle_plot(pairs: Sequence[tuple[AngleDistribution, AngleDistribution | None]], *, name: str = "reference") -> str:
    """Several angle distributions, each over its reference."""
    plot = _Plot("Angle distributions", "angle (degrees)", "density (1/degree)")
    low, high = 180.0, 0.0
    labelled = False
    for k, (angle, reference) in enumerate(pairs):
        plot.axes.plot(angle.angle, angle.density, color=_SERIES[k % 6], label="–".join(angle.triple))
        shown = angle.angle[angle.density > 0.002 * angle.density.max()]
        low, high = min(low, shown[0]), max(high, shown[-1])
        if reference is not None:
            plot.axes.plot(
                reference.angle, reference.density, color=_REFERENCE, linewidth=1.2, linestyle=(0, (4, 2.5)),
                label=None if labelled else name,
            )  # fmt: skip
            labelled = True
    plot.axes.set_xlim(max(low - 5.0, 0.0), min(high + 5.0, 180.0))
    plot.axes.set_ylim(bottom=0.0)
    return plot.svg(legend=True)


def vdos_plot(vdos: VDOS, reference: VDOS | None, *, name: str = "reference") -> str:
    """Vibrational density of states by element, over the reference."""
    plot = _Plot("Vibrational density of states", "frequency (THz)", "density of states (1/THz)")
    for k, (element, part) in enumerate(vdos.by_element.items()):
        colour = _SERIES[(k + 1) % 6]
        plot.axes.fill_between(vdos.frequency, 0.0, part, color=colour, alpha=0.18, linewidth=0)
        plot.axes.plot(vdos.frequency, part, color=colour, linewidth=1.0, label=element)
    plot.axes.plot(vdos.frequency, vdos.density, color=_SERIES[0], label="all")
    if reference is not None:
        plot.axes.plot(
            reference.frequency,
            reference.density,
            color=_REFERENCE,
            linewidth=1.2,
            linestyle=(0, (4, 2.5)),
            label=name,
        )
    busy = vdos.frequency[vdos.density > 0.002 * vdos.density.max()]
    plot.axes.set_xlim(0.0, min(1.08 * float(busy[-1]) + 1.0, vdos.nyquist))
    plot.axes.set_ylim(0.0, 1.05 * float(vdos.density.max()))
    return plot.svg(legend=True)


def msd_plot(curves: Mapping[str, MSD]) -> str:
    """Mean square displacement by element with error bands."""
    plot = _Plot("Mean square displacement", "time (ps)", "mean square displacement (Å²)")
    for k, (element, msd) in enumerate(curves.items()):
        time, band = msd.time / FS_PER_PS, np.nan_to_num(msd.error)
        colour = _SERIES[(k + 1) % 6]
        plot.axes.fill_between(time, msd.values - 2 * band, msd.values + 2 * band, color=colour, alpha=0.2, linewidth=0)
        plot.axes.plot(time, msd.values, color=colour, label=element)
    plot.axes.set_ylim(bottom=0.0)
    return plot.svg(legend=len(curves) > 1)


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most _MOST_POINTS points: the lowest and the highest of each stretch, so that the spread stays
    visible.
    """
    if len(x) <= _MOST_POINTS:
        return x, y
    block = int(np.ceil(len(x) / (_MOST_POINTS // 2)))
    start = len(x) % block
    stretches = y[start:].reshape(-1, block)
    centres = block_means(x, block)
    both = np.stack([stretches.min(axis=1), stretches.max(axis=1)], axis=1)
    step = 0.25 * (centres[1] - centres[0])
    return np.stack([centres - step, centres + step], axis=1).ravel(), both.ravel()
