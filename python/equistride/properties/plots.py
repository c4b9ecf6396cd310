"""PNG figures of properties: one colour a potential, the model over its reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from equistride.properties.conductivity import Conductivity
from equistride.properties.elastic import VOIGT, Elastic
from equistride.properties.eos import EquationOfState
from equistride.properties.phonons import Bands, Density
from equistride.properties.relax import Relaxation
from equistride.writing import whole_file

_COLOURS = ("#1f5fa8", "#c8501e", "#3c7d44", "#7a4b94")
_STYLE: Any = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "grid.color": "#dcdcdc",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@contextmanager
def _figure(path: Path, columns: int = 1, size: tuple[float, float] = (6.0, 3.8), **grid: Any) -> Iterator[list[Axes]]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False, **grid)[0]
        yield list(axes)
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=160, metadata={"Software": None})


def relaxation_plot(results: Mapping[str, Relaxation], path: Path) -> None:
    """Energy above the end against the step."""
    with _figure(path) as (axes,):
        for colour, (name, found) in zip(_COLOURS, results.items(), strict=False):
            gain = 1000 * (found.energies - found.energies[-1]) / len(found.atoms)
            axes.plot(gain, color=colour, label=name)
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_xlabel("step")
        axes.set_ylabel("energy above the end (meV/atom)")
        axes.grid(True)
        axes.legend()


def eos_plot(results: Mapping[str, EquationOfState], path: Path) -> None:
    """Energy above the minimum against volume: points and fitted curves."""
    with _figure(path) as (axes,):
        for colour, (name, found) in zip(_COLOURS, results.items(), strict=False):
            dense = np.linspace(found.volumes.min(), found.volumes.max(), 200)
            for volumes, energies, style in (
                (found.volumes, found.energies, {"marker": "o", "linestyle": "", "markersize": 4}),
                (dense, found.curve(dense), {"label": f"{name}, B = {found.bulk_modulus:.1f} GPa"}),
            ):
                above = 1000 * (energies - found.energy) / found.atoms
                axes.plot(volumes / found.atoms, above, color=colour, **style)
        axes.set_xlabel("volume (Å³/atom)")
        axes.set_ylabel("energy above the minimum (meV/atom)")
        axes.grid(True)
        axes.legend()


def elastic_plot(results: Mapping[str, Elastic], path: Path) -> None:
    """The matrices of elastic constants in GPa."""
    largest = max(float(np.abs(e.constants).max()) for e in results.values())
    with _figure(path, len(results), (4.2 * len(results), 3.9)) as all_axes:
        for axes, (name, found) in zip(all_axes, results.items(), strict=True):
            axes.imshow(found.constants, cmap="RdBu_r", vmin=-1.3 * largest, vmax=1.3 * largest)
            for (i, j), value in np.ndenumerate(found.constants):
                if abs(value) > 0.05:
                    axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7.5)
            axes.set_xticks(range(6), VOIGT)
            axes.set_yticks(range(6), VOIGT)
            axes.tick_params(length=0)
            axes.set_title(f"{name}: C (GPa)", fontsize=9.5)


def phonon_plot(results: Mapping[str, tuple[Bands, Density]], path: Path) -> None:
    """Bands and density of states; each potential's own path is drawn on the length of the first's."""
    first = next(iter(results.values()))[0]
    with _figure(path, 2, (8.4, 4.2), sharey=True, gridspec_kw={"width_ratios": [3, 1]}) as (left, right):
        for k, (name, (bands, density)) in enumerate(results.items()):
            colour, style = _COLOURS[k % 4], "-" if k == 0 else "--"
            stretch = first.ticks[-1][0] / bands.ticks[-1][0]
            label: str | None = name
            for distance, frequencies in zip(bands.distance, bands.frequencies, strict=True):
                for band in frequencies.T:
                    left.plot(stretch * distance, band, style, color=colour, linewidth=1.0, label=label)
                    label = None
            right.plot(density.total, density.frequency, style, color=colour, linewidth=1.0)
        for position, _ in first.ticks:
            left.axvline(position, color="#dcdcdc", linewidth=0.8, zorder=0)
        left.axhline(0, color="#9a9a9a", linewidth=0.6)
        left.set_xticks([p for p, _ in first.ticks], [n.replace("G", "Γ") for _, n in first.ticks])
        left.set_xlim(0, first.ticks[-1][0])
        ends = [(f.min(), f.max()) for bands, _ in results.values() for f in bands.frequencies]
        lowest, highest = min(0.0, *(e[0] for e in ends)), max(e[1] for e in ends)
        left.set_ylim(1.05 * lowest, 1.1 * highest)
        left.set_ylabel("frequency (THz)")
        left.legend(loc="upper right", fontsize=8)
        right.set_xlabel("states (1/THz)")
        right.set_xlim(left=0)


def conductivity_plot(results: Mapping[str, Conductivity], path: Path) -> None:
    """What modes up to a frequency carry; beside it, where there are several temperatures, the whole against them."""
    several = len(next(iter(results.values())).temperatures) > 1
    with _figure(path, 1 + several, (5.0 + 3.6 * several, 3.8)) as axes:
        for colour, (name, found) in zip(_COLOURS, results.items(), strict=False):
            axes[0].plot(found.frequencies, found.cumulative, color=colour, label=name)
            if several:
                axes[1].loglog(found.temperatures, found.mean, color=colour, marker="o", markersize=3, label=name)
        temperature = next(iter(results.values())).temperatures[0]
        axes[0].set_xlabel("frequency (THz)")
        axes[0].set_ylabel(f"conductivity of modes below, {temperature:g} K (W/m/K)")
        axes[0].legend()
        if several:
            axes[1].set_xlabel("temperature (K)")
            axes[1].set_ylabel("conductivity (W/m/K)")
        for a in axes:
            a.grid(True)
