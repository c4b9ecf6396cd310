"""Are the virials of a file in eV, with the sign of ours? Energies, forces and volumes of its frames tell.

Between two frames of the same atoms the energy changes by the work of forces and stress. To third order in what lies between,

    E_b - E_a = -1/2 sum_i (F_a + F_b)_i . u_i - 1/2 tr((W_a + W_b)^T e),

with u the displacements beside the strain e. Where cells differ, the slope of the energy that forces leave over the work of
the virials is therefore 1, and 1/1602 for stresses in kbar. Where they do not, virials differ as forces let them, and no matter
has tens of eV an atom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.errors import EquistrideError
from equistride.units import EV_PER_ANGSTROM3_IN_BAR

Array = NDArray[np.float64]
MOST = 20.0
"""eV an atom: iron in the Earth's core has 16 (360 GPa)."""
UNEVEN = 10.0
"""Largest deviation of virials in units of force times distance between atoms times the root of their number; silicon and quartz
have 0.15 to 0.6, from 30 to 1000 K."""
RIGHT = (0.4, 3.0)
"""Slopes that are near 1 for what the third order leaves, of frames far apart; units are a factor of 160 off, or the sign."""
GPA = EV_PER_ANGSTROM3_IN_BAR / 1e4
"""1 eV/A^3 [GPa]."""
UNITS = {
    -1.0: "the other sign", GPA: "GPa", -GPA: "GPa, the other sign", 10 * GPA: "kbar", -10 * GPA: "kbar, the other sign",
}  # fmt: skip
"""What stresses may have been written in, by its number in our unit."""


def check_virials(frames: Frames, path: object) -> None:
    """Refuse virials that energies, forces or volumes of the frames contradict.

    Parameters
    ----------
    frames
        Of one composition, labelled.
    path
        Their file, for the message.

    Raises
    ------
    EquistrideError
        With the factor that the virials are wrong by, where the cells of the frames differ enough to tell it.
    """
    if frames.virial is None:
        return
    frames = frames[np.flatnonzero(np.isfinite(frames.virial).all((1, 2)))]
    assert frames.virial is not None
    atoms = len(frames.numbers)
    found = slope_of_work(frames)
    if found is not None and (found[0] + 5 * found[1] < RIGHT[0] or found[0] - 5 * found[1] > RIGHT[1]):
        slope = found[0]
        near = min(UNITS, key=lambda times: abs(np.log(abs(times * slope))) + 9 * (times * slope < 0))
        named = near * slope > 0 and abs(np.log(near * slope)) < 1.2
        times = near if named else 1 / slope
        _refuse(
            path, f"the work that they do as the cell changes is {times:.4g} times what the energies of its frames say"
            + (f", as in {UNITS[near]}" if named else ""), f"divide them by {times:.6g}",
        )  # fmt: skip
    size = float(np.sqrt(np.mean(frames.virial**2))) / atoms
    if size > MOST:
        _refuse(
            path,
            f"they mean {size:.3g} eV an atom, and no matter has more than {MOST:g}",
            "convert them: kbar / 1602.18, GPa / 160.218",
        )
    _, which, counts = np.unique(frames.cell.round(6), axis=0, return_inverse=True, return_counts=True)
    frames = frames[which.ravel() == counts.argmax()]
    if len(frames) > 3 and frames.virial is not None:
        force = float(np.sqrt(np.mean(frames.forces**2)))
        usual = force * float(np.cbrt(np.abs(np.linalg.det(frames.cell[0])) / atoms)) * atoms**0.5
        spread = float(np.sqrt(np.mean((frames.virial - frames.virial.mean(0)) ** 2)))
        if spread > UNEVEN * usual > 0:
            _refuse(
                path, f"they differ from frame to frame by {spread:.3g} eV, where forces of {force:.2g} eV/A let them "
                f"differ by some {usual:.2g}", "convert them: kbar / 1602.18, GPa / 160.218",
            )  # fmt: skip


def _refuse(path: object, why: str, hint: str) -> None:
    raise EquistrideError(
        f"the stresses or virials of {path} cannot be in eV/A^3 and eV: {why}",
        expected="stress [eV/A^3] of ASE's sign, or virial [eV] = -volume x stress",
        hint=hint,
    )


def slope_of_work(frames: Frames) -> tuple[float, float] | None:
    """Return the slope of the energy that forces leave over the work of the virials, and its error; 1 where units are right.

    None where the cells of the frames do not differ.
    """
    number = len(frames)
    if number < 2 or frames.virial is None or not frames.pbc.all():
        return None
    rng = np.random.default_rng(0)
    first = np.concatenate([np.arange(number - 1), rng.integers(number, size=200)])
    second = np.concatenate([np.arange(1, number), rng.integers(number, size=200)])
    strained = np.abs(frames.cell[first] - frames.cell[second]).max((1, 2)) > 1e-6
    first, second = first[strained], second[strained]
    if len(first) < 20:
        return None
    a, b = frames[first], frames[second]
    middle = 0.5 * (a.cell + b.cell)
    strain = np.linalg.solve(middle, b.cell - a.cell)
    inside = [np.einsum("fni,fij->fnj", f.positions, np.linalg.inv(f.cell)) for f in (a, b)]
    moved = inside[1] - inside[0]
    moved = np.einsum("fni,fij->fnj", moved - np.round(moved), middle)
    assert a.virial is not None
    assert b.virial is not None
    left = b.energy - a.energy + 0.5 * np.einsum("fni,fni->f", a.forces + b.forces, moved)
    work = -0.5 * np.einsum("fij,fij->f", a.virial + b.virial, strain)
    far = (moved**2).sum((1, 2))
    near = far <= np.quantile(far, 0.3)  # what the third order leaves is least
    left, work = left[near], work[near]
    square = float(work @ work)
    if square == 0:
        return None
    slope = float(work @ left) / square
    # pairs share frames: half of them count
    error = float(np.sqrt(np.sum((left - slope * work) ** 2 * work**2))) / square * 2**0.5
    return slope, error
