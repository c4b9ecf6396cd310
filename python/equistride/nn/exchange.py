"""The hook between layers of message passing, for engines that divide the atoms among processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from equistride import _library  # noqa: F401 (registers the operator)

_PATTERN = "graph(%x):\n  %y : Tensor = equistride::exchange(%x)\n  return (%y)"
_NOTHING = "graph(%x):\n  return (%x)"
_CALL = 'name="exchange"'
_wanted = ContextVar("exchanging", default=False)


def exchange(features: Tensor) -> Tensor:
    """Return features [N, ...] of the atoms, those that another process owns brought up to date by it.

    In an exported model this is the operator ``equistride::exchange``, to which an engine lends its communication, forward
    and, for the gradient, backward. Everywhere else nothing happens. Call it before every layer in which atoms read their
    neighbours' features, but the first where those depend on the neighbour alone.
    """
    if torch.jit.is_scripting():
        return torch.ops.equistride.exchange(features)
    else:  # a branch, which TorchScript leaves out
        return torch.ops.equistride.exchange(features) if _wanted.get() else features


@contextmanager
def exchanging() -> Iterator[None]:
    """Let :func:`exchange` be the operator outside TorchScript too, to trace it."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def without_exchange(model: torch.jit.ScriptModule) -> None:
    """Take the operator out of a loaded model, in place, so that it runs where equistride is not installed."""
    # Inner modules first, and of them those that call it: to inline a method makes torch remember it as it was then.
    graphs: list[Any] = []
    for module in reversed(list(model.modules())):
        script: Any = module._c
        graphs += [script._get_method(name).graph for name in script._method_names()]
    # then all of them, for a model that has run or been looked at and is remembered already
    for graph in [g for g in graphs if _CALL in str(g)] + graphs:
        torch._C._jit_pass_inline(graph)
        torch._C._jit_pass_custom_pattern_based_rewrite_graph(_PATTERN, _NOTHING, graph)
