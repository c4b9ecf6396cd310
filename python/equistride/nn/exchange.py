"""The hook between layers of message passing, for engines that divide the atoms among processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from equistride import _library  # noqa: F401 (registers the operator)

_NOTHING = "graph(%x):\n  return (%x)"
_SUM = """graph(%x):
  %none : NoneType = prim::Constant()
  %rows : int = prim::Constant[value=0]()
  %double : int = prim::Constant[value=7]()
  %no : bool = prim::Constant[value=0]()
  %axes : int[] = prim::ListConstruct(%rows)
  %y : Tensor = aten::sum(%x, %axes, %no, %double)
  return (%y)"""
_INSTEAD = {"exchange": _NOTHING, "own": _NOTHING, "total": _SUM}
"""What stands for our operators where equistride is not installed."""
_CALLS = tuple(f'name="{name}"' for name in _INSTEAD)
_wanted = ContextVar("exchanging", default=False)


def exchange(features: Tensor) -> Tensor:
    """Return features [N, ...] of all atoms, those that another process owns brought up to date by it, from features of the own
    atoms, as :func:`local_rows` gives them, or of all.

    In an exported model this is the operator ``equistride::exchange``, to which an engine lends its communication, forward
    and, for the gradient, backward. Everywhere else nothing happens. Call it before every layer in which atoms read their
    neighbours' features, but the first where those depend on the neighbour alone.
    """
    if torch.jit.is_scripting():
        return torch.ops.equistride.exchange(features)
    else:  # a branch, which TorchScript leaves out
        return torch.ops.equistride.exchange(features) if _wanted.get() else features


def local_rows(features: Tensor) -> Tensor:
    """Return the rows of the atoms that this process owns, which come first: all, but in an engine that divides the atoms."""
    if torch.jit.is_scripting():
        return torch.ops.equistride.own(features)
    else:
        return features


def head_rows(features: Tensor, like: Tensor) -> Tensor:
    """Return as many of the first rows as ``like`` has."""
    # a slice is free, but its gradient is not
    return features if features.size(0) == like.size(0) else features.narrow(0, 0, like.size(0))


def pad_to_all(values: Tensor, like: Tensor) -> Tensor:
    """Return values [n, ...] for all atoms, [N, ...], zeros where another process owns them; ``like`` has a row an atom."""
    missing = like.size(0) - values.size(0)
    if missing == 0:
        return values
    shape = [missing] + list(values.shape)[1:]  # noqa: RUF005 (TorchScript has no unpacking)
    return torch.cat([values, values.new_zeros(shape)])


def total(rows: Tensor) -> Tensor:
    """Return the sum [k] of rows [N, k] over all atoms, float64: in an engine that divides the atoms over those of all
    processes, none twice, and the same for its gradient.
    """
    if torch.jit.is_scripting():
        return torch.ops.equistride.total(rows)
    else:
        return rows.sum(0, dtype=torch.float64)


@contextmanager
def exchanging() -> Iterator[None]:
    """Let :func:`exchange` be the operator outside TorchScript too, to trace it."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def without_exchange(model: torch.jit.ScriptModule) -> None:
    """Take the operators out of a loaded model, in place, so that it runs where equistride is not installed."""
    # Inner modules first, and of them those that call it: to inline a method makes torch remember it as it was then.
    graphs: list[Any] = []
    for module in reversed(list(model.modules())):
        script: Any = module._c
        graphs += [script._get_method(name).graph for name in script._method_names()]
    # then all of them, for a model that has run or been looked at and is remembered already
    for graph in [g for g in graphs if any(call in str(g) for call in _CALLS)] + graphs:
        torch._C._jit_pass_inline(graph)
        for name, instead in _INSTEAD.items():
            pattern = f"graph(%x):\n  %y : Tensor = equistride::{name}(%x)\n  return (%y)"
            torch._C._jit_pass_custom_pattern_based_rewrite_graph(pattern, instead, graph)
