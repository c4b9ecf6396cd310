"""A module of one's own as a program that TorchScript holds: compiled as it stands, or exported and compiled."""

from __future__ import annotations

import builtins
import io
import linecache
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn

from equistride.artifact.aoti import require_open_sizes
from equistride.artifact.native import open_script
from equistride.artifact.own_call import Adapter
from equistride.artifact.own_trials import BOUND, Frame, Lab, apart, energies_at, energies_by_edges, frame_of, random
from equistride.errors import EquistrideError, first_line

CHECKS = {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"}
"""Operators of an exported program that look at it and compute nothing."""


class Padded(nn.Module):
    """A network with two more atoms, bound to one another alone, so that no number of atoms or edges is 0 or 1.

    Parameters
    ----------
    network
        With the ``forward(vectors, species, edge_index)``.
    length
        Of the two edges [A].
    """

    def __init__(self, network: nn.Module, length: float) -> None:
        super().__init__()
        self.network, self.length = network, length

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] from edge vectors [E, 3] A."""
        n = species.size(0)
        ends = torch.arange(2, device=species.device) + n
        along = torch.ones([2, 1], dtype=vectors.dtype, device=vectors.device) * self.length
        more = torch.cat([along, along * 0.1, along * 0.2], 1)
        more = torch.cat([more[:1], -more[1:]])
        out = self.network(
            torch.cat([vectors, more]), torch.cat([species, torch.zeros_like(ends)]),
            torch.cat([edge_index, torch.stack([ends, ends.flip(0)])], 1),
        )  # fmt: skip
        return out[:n]


def _first_sentence(error: Exception) -> str:
    return first_line(error).rstrip(":.")


def _where(text: str) -> str:
    """Return the file, line and source that an error of TorchScript's compiler points to: the last, which is the user's."""
    found = re.findall(r'File "([^"]+)", line (\d+)', text)
    for file, line in found:
        if "/torch/" not in file and not file.startswith("<"):
            source = linecache.getline(file, int(line)).strip()
            return f" at {file}, line {line}: {source}" if source else f" at {file}, line {line}"
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what torch prints of a program that it cannot take from the user, who gets a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def scripted(module: nn.Module) -> Any:
    """Return a module compiled by TorchScript, or the error of its compiler, or of the look at operators that a file may have."""
    with _silence():
        try:
            program = torch.jit.script(module)
            content = io.BytesIO()
            torch.jit.save(program, content)
            open_script(content.getvalue(), "it")
            return program
        except Exception as error:  # of many kinds: it compiles what somebody else wrote
            return error


def exported(network: Adapter, lab: Lab) -> nn.Module:
    """Return the network as torch.export takes it, in operators of torch that TorchScript compiles.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For one whose program holds for some numbers of atoms or edges alone.
    """
    frame = lab.blob
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic}, {0: dynamic}, {1: dynamic})
    arguments = (frame.vectors, frame.species, frame.edge_index)
    with _silence():
        try:
            program = torch.export.export(network, arguments, dynamic_shapes=shapes, strict=False)
        except Exception:  # a number of Python from a tensor, as in int(batch.max()) + 1, which the bytecode shows
            program = torch.export.export(network, arguments, dynamic_shapes=shapes, strict=True)
    require_open_sizes(program, 2)
    module = program.module(check_guards=False)
    graph = fx.Graph()
    found: dict[fx.Node, Any] = {}
    vectors: fx.Node | None = None
    for node in module.graph.nodes:
        if node.op == "output":
            (out,) = node.args[0]
            graph.output(found[out])
        elif getattr(node.target, "overloadpacket", None) is not None and node.target.overloadpacket.__name__ in CHECKS:
            continue
        else:
            copy = graph.node_copy(node, found.__getitem__)
            copy.type = None
            found[node] = copy
            if node.op == "placeholder" and vectors is None:
                vectors = copy
            if node.op == "call_function":
                _for_script(graph, copy, vectors)
    graph.lint()
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


def _for_script(graph: fx.Graph, node: fx.Node, vectors: fx.Node | None) -> None:
    """Call the operator by its name, in the precision and on the device of the vectors."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    if target.overloadpacket in (torch.ops.aten.item, torch.ops.aten._local_scalar_dense):
        node.target = int  # it becomes a size
        return
    node.target = target.overloadpacket

    def given(value: Any) -> Any:
        if value is torch.float64 or isinstance(value, torch.device):
            with graph.inserting_before(node):
                return graph.call_function(
                    builtins.getattr, (vectors, "device" if value is not torch.float64 else "dtype")
                )
        return value

    node.args = tuple(given(value) for value in node.args)
    node.kwargs = {key: given(value) for key, value in node.kwargs.items() if key != "pin_memory"}


def _agree(network: nn.Module, adapter: Adapter, lab: Lab) -> float:
    """Return how far a program is from the module on frames of many sizes."""
    expected_at = energies_at(adapter)
    frames: list[Frame] = [lab.box, lab.moved, lab.blob]
    for count in (2, 3, 5, 27):
        places = count ** (1 / 3) * 0.8 * lab.cutoff * random(count, 3, seed=count)
        frames.append(frame_of(places, torch.arange(count) % lab.elements, lab.cutoff))
    worst = 0.0
    for frame in frames:
        if frame.edge_index.size(1) > 1:
            worst = max(worst, apart(energies_by_edges(network, frame), expected_at(frame)))
    return worst / lab.scale(adapter)


def _said(error: Exception) -> str:
    return f"{_first_sentence(error)}{_where(str(error))}"


def require_scripted(potential: nn.Module, foreign: nn.Module) -> None:
    """Refuse a module that looks at all atoms and that TorchScript does not compile."""
    program = scripted(potential)
    if isinstance(program, Exception):
        raise EquistrideError(
            f"{type(foreign).__name__} cannot be compiled: TorchScript says {_said(program)!r}",
            hint="annotate its arguments and use tensors alone; what may be divided among processes is exported as well",
        )


def program_of(adapter: Adapter, lab: Lab) -> nn.Module:
    """Return a network with the ``forward(vectors, species, edge_index)`` that TorchScript compiles and that is the module.

    Raises
    ------
    EquistrideError
        Where neither TorchScript nor torch.export takes it, with the place.
    """
    program = scripted(adapter)
    if not isinstance(program, Exception):
        return adapter
    first = _said(program)
    try:
        network = exported(adapter, lab)
        compiled = scripted(network)
        if isinstance(compiled, Exception):
            raise RuntimeError(f"TorchScript does not take its program, {_first_sentence(compiled)}")
        worst = _agree(compiled, adapter, lab)
        if not worst <= 0.01 * BOUND:
            raise RuntimeError(f"its program gives other energies, by {worst:.1g}")
    except Exception as error:  # whatever tracing somebody else's code may raise
        raise EquistrideError(
            f"{type(adapter.foreign).__name__} cannot be compiled: TorchScript says {first!r}, "
            f"torch.export says {_first_sentence(error)!r}",
            hint="annotate its arguments and use tensors alone, or let no Python number depend on a tensor's values",
        ) from None
    return Padded(network, 0.5 * lab.cutoff)
