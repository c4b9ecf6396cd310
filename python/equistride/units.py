"""The one table of constants and conversions (CODATA 2018, exact where the SI fixes them).

Inside equistride: angstrom, eV, fs, amu, e. Engines convert at their interface, with the factors below.
Run as a script, this file writes the same table as a C++ header.
"""

from __future__ import annotations

import sys
from pathlib import Path

ELEMENTARY_CHARGE = 1.602176634e-19
"""Charge of the proton [C]; also 1 eV in joule."""
BOLTZMANN_SI = 1.380649e-23
"""Boltzmann constant [J/K]."""
AVOGADRO = 6.02214076e23
"""Avogadro constant [1/mol]."""
ATOMIC_MASS = 1.66053906660e-27
"""Unified atomic mass unit [kg]."""

BOLTZMANN = BOLTZMANN_SI / ELEMENTARY_CHARGE
"""Boltzmann constant [eV/K]."""
EV_PER_KJ_MOL = 1000.0 / (AVOGADRO * ELEMENTARY_CHARGE)
"""1 kJ/mol in eV."""
KJ_MOL_PER_EV = AVOGADRO * ELEMENTARY_CHARGE / 1000.0
"""1 eV in kJ/mol."""
KJ_PER_KCAL = 4.184
"""1 kcal (thermochemical) in kJ."""
EV_PER_KCAL_MOL = KJ_PER_KCAL * EV_PER_KJ_MOL
"""1 kcal/mol in eV."""
HARTREE = 27.211386245988
"""1 hartree in eV."""
BOHR = 0.529177210903
"""1 bohr in angstrom."""
ANGSTROM_PER_NM = 10.0
"""1 nm in angstrom."""
FS_PER_PS = 1000.0
"""1 ps in fs."""
ACCELERATION = ELEMENTARY_CHARGE / ATOMIC_MASS * 1e-10
"""1 eV/(A amu) in A/fs^2: acceleration = ACCELERATION * force / mass."""
EV_PER_KINETIC = 1.0 / ACCELERATION
"""1 amu (A/fs)^2 in eV: kinetic energy = 0.5 * EV_PER_KINETIC * mass * speed^2."""
EV_PER_ANGSTROM3_IN_BAR = ELEMENTARY_CHARGE * 1e30 / 1e5
"""1 eV/A^3 in bar."""
BAR_PER_ATMOSPHERE = 1.01325
"""1 atm in bar."""


def cpp_header() -> str:
    """Return the table as a C++ header (namespace ``equistride::units``)."""
    lines = [
        "// Generated from python/equistride/units.py; do not edit.",
        "#pragma once",
        "",
        "namespace equistride::units {",
        "",
    ]
    for name, value in globals().items():
        if name.isupper():
            lines.append(f"inline constexpr double {name} = {value!r};")
    lines += ["", "} // namespace equistride::units", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(cpp_header())
