"""Charge and spin of frames: which frames have them, and a network that is told those of each frame of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from equistride.data.frames import Frames
from equistride.errors import EquistrideError, tell
from equistride.nn.system import CHARGE_LIMIT, SPIN_LIMIT, SystemEmbedding


@contextmanager
def systems_of(network: nn.Module, charge: Tensor, spin: Tensor, frame: Tensor) -> Iterator[None]:
    """Let a network that takes charge and spin see, atom by atom, those of the B frames of a batch; others see nothing new.

    ``frame`` [N] is the frame of each atom.
    """
    system = getattr(network, "system", None)
    if not isinstance(system, SystemEmbedding):
        yield
        return
    before = system.charge, system.spin
    system.charge, system.spin = charge[frame, None], spin[frame, None]
    try:
        yield
    finally:
        system.charge, system.spin = before


def usual_system(groups: Sequence[Frames]) -> dict[str, float]:
    """Return the charge and the spin that most frames have: what an exported model computes with until another is set."""
    pairs: Counter[tuple[float, float]] = Counter()
    for g in groups:
        given = [np.zeros(len(g)) if v is None else np.nan_to_num(v) for v in (g.charge, g.spin)]
        pairs.update(zip(*(v.tolist() for v in given), strict=True))
    ((charge, spin), _), *_ = pairs.most_common(1)
    return {"charge": charge, "spin": spin}


def check_systems(groups: Sequence[Frames], taken: bool, why_not: str = "model.charge_spin: off") -> None:
    """Compare the charges and spins that frames have with what the model takes.

    Parameters
    ----------
    groups
        Frames, one entry a composition.
    taken
        The model takes charge and spin (``model.charge_spin`` is not off).
    why_not
        Why it does not take them, where it does not.

    Raises
    ------
    EquistrideError
        Where the model takes them and no frame has one, or one is out of its range.
    """
    count = sum(len(g) for g in groups)
    values = {}
    for name in ("charge", "spin"):
        given = [v for g in groups if (v := getattr(g, name)) is not None]
        values[name] = np.concatenate([v[np.isfinite(v)] for v in given] or [np.zeros(0)])
    charge, spin = values["charge"], values["spin"]
    if not taken:
        for name, found, usual in (("charges", charge, (0,)), ("spin multiplicities", spin, (0, 1))):
            kinds = sorted({f"{v:g}" for v in found})
            if len(kinds) > 1 or not np.isin(found, usual).all():
                tell(
                    f"the frames have {name} of {', '.join(kinds[:8])}, which the model does not take "
                    f"({why_not}): frames that differ in them alone look the same to it"
                )
        return
    if not len(charge) and not len(spin):
        raise EquistrideError(
            "model.charge_spin is on and no frame has a charge or a spin, so nothing of it would be learnt",
            expected="charge [e] and spin (multiplicity 2 S + 1) on the frames",
            hint="add them to the data, or set model.charge_spin: off",
        )
    for name, found, (lowest, highest) in (
        ("charge", charge, (-CHARGE_LIMIT, CHARGE_LIMIT)), ("spin", spin, (0, SPIN_LIMIT)),
    ):  # fmt: skip
        if len(found) and (found.min() < lowest or found.max() > highest):
            raise EquistrideError(
                f"a {name} of the frames is out of range", expected=f"{lowest} to {highest}",
                found=f"{found.min():g} to {found.max():g}",
            )  # fmt: skip
        if len(found) < count:
            meaning = "neutral" if name == "charge" else "of a spin that is not given"
            tell(f"{count - len(found)} of {count} frames have no {name}; to the model they are {meaning}")
        if len(found) == count and len(set(found.tolist())) == 1:
            tell(f"all frames have a {name} of {found[0]:g}: what another one does is not learnt")
