"""Kinetic temperature by element, equipartition, and the Maxwell-Boltzmann test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equistride.errors import EquistrideError
from equistride.series import Estimate, Floats, Verdict, block_average, statistical_inefficiency
from equistride.trajectories.trajectory import Trajectory
from equistride.units import BOLTZMANN, EV_PER_KINETIC

_ZERO = 1e-4
_GEOMETRIES = 50
_MOST_ENERGIES = 1_000_000


@dataclass(frozen=True)
class Equipartition:
    """Temperature of each element over the temperature of all.

    Attributes
    ----------
    ratio
        Element -> T_element / T with its error (1 where energy is shared evenly).
    temperature
        Element -> temperature [K].
    """

    ratio: dict[str, Estimate]
    temperature: dict[str, Estimate]

    def verdict(self, tolerance: float = 0.02) -> Verdict:
        """Compare the ratios with 1.

        Returns
        -------
        str
            "pass" where every ratio with two standard errors lies within ``tolerance`` of 1, "fail" where one
            lies outside of it with two standard errors, else "undecided".
        """
        off = np.array([abs(r.value - 1.0) for r in self.ratio.values()])
        doubt = 2.0 * np.nan_to_num(np.array([r.error for r in self.ratio.values()]), nan=np.inf)
        if (off + doubt <= tolerance).all():
            return "pass"
        return "fail" if (off - doubt > tolerance).any() else "undecided"


@dataclass(frozen=True)
class MaxwellTest:
    """Kolmogorov-Smirnov test of the atoms' kinetic energies against the Maxwell-Boltzmann law.

    Attributes
    ----------
    distance
        Largest distance between the two cumulative distributions.
    p_value
        Chance of such a distance or a larger one if the law holds.
    effective_samples
        Independent samples after the autocorrelation of the kinetic energy.
    temperature
        Temperature of the law [K].
    """

    distance: float
    p_value: float
    effective_samples: float
    temperature: float


def kinetic_energy(trajectory: Trajectory) -> Floats:
    """Kinetic energy of every frame [F] (eV)."""
    velocities = trajectory.need_velocities("the kinetic energy")
    return 0.5 * EV_PER_KINETIC * np.einsum("n,fni,fni->f", trajectory.masses, velocities, velocities)


def momentum(trajectory: Trajectory) -> Floats:
    """Total momentum of every frame [F, 3] (amu A/fs)."""
    return np.einsum("n,fni->fi", trajectory.masses, trajectory.need_velocities("the momentum"))


def angular_momentum(trajectory: Trajectory) -> Floats:
    """Angular momentum about the centre of mass of every frame [F, 3] (amu A^2/fs); positions must be
    unwrapped.
    """
    velocities = trajectory.need_velocities("the angular momentum")
    return np.einsum("n,fni->fi", trajectory.masses, np.cross(_about_centre(trajectory), velocities))


def lost_freedom(trajectory: Trajectory) -> Floats:
    """Degrees of freedom that conserved quantities take from each atom [N].

    Where the total momentum is zero (rms below 1 % of the thermal one), each atom loses 3 m / M, since then
    <m v^2> = 3 k T (1 - m / M). Where the angular momentum of a system without a box is zero too, it also
    loses its part of the rotations, sum over principal axes of m |e x q|^2 / I, averaged over the run.

    Parameters
    ----------
    trajectory
        With velocities. Rigid bonds are not known here: with them the temperature reads too low.
    """
    masses, atoms = trajectory.masses, trajectory.atoms
    per_atom = 2.0 * kinetic_energy(trajectory).mean() / (EV_PER_KINETIC * atoms)
    lost = np.zeros(atoms)
    if (momentum(trajectory) ** 2).sum(axis=1).mean() > _ZERO * per_atom * masses.sum():
        return lost
    lost += 3.0 * masses / masses.sum()
    if trajectory.periodic or atoms < 2:
        return lost
    places = _about_centre(trajectory)
    inertia = np.einsum("n,fni,fni->f", masses, places, places).mean()
    if (angular_momentum(trajectory) ** 2).sum(axis=1).mean() > _ZERO * per_atom * inertia:
        return lost
    some = places[np.linspace(0, len(places) - 1, min(_GEOMETRIES, len(places))).round().astype(int)]
    for q in some:
        tensor = np.einsum("n,nij->ij", masses, (q**2).sum(1)[:, None, None] * np.eye(3) - q[:, :, None] * q[:, None])
        moments, axes = np.linalg.eigh(tensor)
        for moment, axis in zip(moments, axes.T, strict=True):
            if moment > 1e-6 * moments[-1]:
                lost += masses * (np.cross(axis, q) ** 2).sum(axis=1) / (moment * len(some))
    return lost


def _about_centre(trajectory: Trajectory) -> Floats:
    centre = np.einsum("n,fni->fi", trajectory.masses, trajectory.positions) / trajectory.masses.sum()
    return trajectory.positions - centre[:, None]


def degrees_of_freedom(trajectory: Trajectory, element: str | None = None) -> float:
    """Degrees of freedom that carry kinetic energy, of one element or of all atoms; see
    :func:`lost_freedom`.
    """
    chosen = np.arange(trajectory.atoms) if element is None else trajectory.indices(element)
    freedom = float(3.0 * len(chosen) - lost_freedom(trajectory)[chosen].sum())
    if freedom <= 1e-9:
        raise EquistrideError(
            "no degree of freedom is left",
            expected="two atoms or more that move",
            found=f"{trajectory.atoms} atom(s)",
            hint="use a larger system",
        )
    return freedom


def kinetic_series(trajectory: Trajectory, element: str | None = None) -> Floats:
    """Kinetic temperature of every frame [F] (K), 2 K / (f k)."""
    velocities = trajectory.need_velocities("the kinetic temperature")
    chosen = np.arange(trajectory.atoms) if element is None else trajectory.indices(element)
    freedom = degrees_of_freedom(trajectory, element)
    part = velocities[:, chosen]
    twice = EV_PER_KINETIC * np.einsum("n,fni,fni->f", trajectory.masses[chosen], part, part)
    return twice / (freedom * BOLTZMANN)


def kinetic_temperature(trajectory: Trajectory, element: str | None = None) -> Estimate:
    """Mean kinetic temperature with its block error (K); see :func:`kinetic_series`.

    Raises
    ------
    EquistrideError
        Without velocities, or for an element that is not there.
    """
    return block_average(kinetic_series(trajectory, element), name="the kinetic temperature")


def equipartition(trajectory: Trajectory) -> Equipartition:
    """Temperature of each element against that of all atoms.

    The error of a ratio is that of the mean of T_element(t) - ratio T(t), over T, so that common fluctuations
    cancel.

    Raises
    ------
    EquistrideError
        Without velocities, or where nothing moves.
    """
    whole = kinetic_series(trajectory)
    mean = float(whole.mean())
    if mean <= 0.0:
        raise EquistrideError("nothing moves", expected="a temperature above 0 K", found="0 K", hint="run it warm")
    ratio, temperature = {}, {}
    for element in trajectory.elements:
        series = kinetic_series(trajectory, element)
        value = float(series.mean()) / mean
        spread = block_average(series - value * whole)
        temperature[element] = block_average(series)
        ratio[element] = Estimate(
            value, spread.error / mean, spread.block, spread.samples, spread.blocks, spread.converged
        )
    return Equipartition(ratio, temperature)


def maxwell_test(trajectory: Trajectory, *, temperature: float | None = None) -> MaxwellTest:
    """Compare the kinetic energies of the atoms with Maxwell and Boltzmann's law.

    Each atom's energy over kT, corrected for conserved momenta, should follow a gamma distribution of
    shape 3/2. With the temperature taken from the data the test is conservative. In a microcanonical run of
    few atoms the law itself differs (a beta distribution); from some 20 atoms on the difference is below what
    the test sees.

    Parameters
    ----------
    trajectory
        With velocities.
    temperature
        Of the bath [K]; None takes the mean kinetic temperature.

    Returns
    -------
    MaxwellTest
    """
    from scipy.stats import gamma, kstwo

    velocities = trajectory.need_velocities("the Maxwell-Boltzmann test")
    kelvin = float(kinetic_series(trajectory).mean()) if temperature is None else float(temperature)
    if kelvin <= 0.0:
        raise EquistrideError(
            "the temperature must be positive", found=f"{kelvin} K", hint="pass the bath's temperature"
        )
    masses = trajectory.masses
    share = np.maximum(1.0 - lost_freedom(trajectory) / 3.0, 1e-9)
    energies = 0.5 * EV_PER_KINETIC * masses / (share * BOLTZMANN * kelvin) * (velocities**2).sum(axis=2)
    inefficiency = 1.0
    longest = max(trajectory.pieces(), key=lambda p: p.stop - p.start)
    if longest.stop - longest.start >= 4:
        inefficiency = statistical_inefficiency(energies[longest])
    effective = max(energies.size / inefficiency, 1.0)
    some = energies[:: max(1, energies.size // _MOST_ENERGIES)]
    effective = min(effective, float(some.size))
    ordered = np.sort(some, axis=None)
    law = gamma.cdf(ordered, 1.5)
    ranks = np.arange(len(ordered) + 1) / len(ordered)
    distance = float(max((ranks[1:] - law).max(), (law - ranks[:-1]).max()))
    return MaxwellTest(distance, float(kstwo.sf(distance, max(round(effective), 1))), effective, kelvin)
