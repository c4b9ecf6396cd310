"""Total charge and spin multiplicity of the system, for potentials that know them.

A potential's arguments are the same for all models, so these two numbers are not among them: an artifact is *set* to a charge
and a spin, which its metadata name under ``system``. Setting them takes a moment and gives a file, or a loaded model, that
every engine takes as it is. In OpenMM they are parameters of the Context, ``charge`` and ``spin``, too.
"""

from __future__ import annotations

from pathlib import Path

from equistride.artifact.archive import save, script_of
from equistride.artifact.metadata import Metadata
from equistride.artifact.native import open_native
from equistride.errors import EquistrideError
from equistride.nn.system import CHARGE_LIMIT, SPIN_LIMIT


def no_system(what: str = "the model") -> EquistrideError:
    """Return the refusal of a charge or spin by a model that knows neither."""
    return EquistrideError(f"{what} knows no charge and no spin", hint="choose a model that was trained with them")


def _checked(value: float, name: str, lowest: int, highest: int) -> float:
    if value != round(value) or not lowest <= value <= highest:
        raise EquistrideError(
            f"the {name} is out of range", expected=f"a whole number from {lowest} to {highest}", found=f"{value:g}"
        )
    return float(value)


def with_system(
    path: str | Path, output: str | Path, *, charge: float | None = None, spin: float | None = None
) -> Metadata:
    """Write an artifact that computes with another charge or spin multiplicity.

    Parameters
    ----------
    path, output
        The artifact, and where the new one goes.
    charge, spin
        Total charge [e] and spin multiplicity (1: singlet; 0: not given); as before where left out.

    Returns
    -------
    Metadata
        Of the new file.

    Raises
    ------
    EquistrideError
        Where the file is no artifact, its model knows neither or was made for one value of them, or a value is out of range.
    """
    metadata = Metadata.of(open_native(path, verify=False), path)
    if not metadata.system:
        raise no_system(f"the model of {path}")
    if metadata.charge_spin == "fixed":
        raise EquistrideError(
            f"charge and spin are fixed in the model of {path}", found=metadata.system,
            hint="import or export it for others",
        )  # fmt: skip
    charge = metadata.system["charge"] if charge is None else _checked(charge, "charge", -CHARGE_LIMIT, CHARGE_LIMIT)
    spin = metadata.system["spin"] if spin is None else _checked(spin, "spin multiplicity", 0, SPIN_LIMIT)
    module = script_of(path)
    for part in module.modules():
        if hasattr(part, "set_system"):  # one network, or the members of an ensemble
            part.set_system(charge, spin)
    metadata = metadata.model_copy(update={"system": {"charge": charge, "spin": spin}})
    save(module, metadata, Path(output))
    return metadata
