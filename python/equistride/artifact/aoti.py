"""Compile a model for one machine: the program inside an artifact of the AOTInductor container.

The program is the network alone, from edge vectors to atomic energies and their gradient, or to a free stride; what surrounds it
is the container's part (``csrc/model/aoti.cpp``). One trace takes both the forward and the backward pass, so that the compiler
fuses across them. Operators of ours stay calls. Numbers of atoms and edges stay open, from two on.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from equistride.artifact.metadata import Capabilities, Compiled, Metadata
from equistride.errors import EquistrideError, first_line, quiet
from equistride.models.potential import ConservativePotential, DirectPotential
from equistride.models.propagator import Propagator
from equistride.nn.exchange import exchanging

if TYPE_CHECKING:
    from torch.export import ExportedProgram

EXCHANGE_HERE: Final = -1
"""What ``exchange_backward`` takes for "whatever the calling thread exchanges with"; at tracing there is nobody."""
ATOMS, EDGES = 13, 29
"""Sizes of the example that is traced: equal to no size of a network."""
SIMD_BITS = {"portable": 1, "avx2": 256, "avx512": 512}
TORCHSCRIPT = "export it with --container torchscript"

Program = Callable[..., tuple[Tensor, ...]]


def target() -> Compiled:
    """Return what a program compiled on this machine runs on."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return Compiled(
        torch=torch.__version__.partition("+")[0],
        machine=platform.machine(),
        instruction_set=capability if capability in SIMD_BITS else "portable",  # type: ignore[arg-type]
    )


def _example(cutoff: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    vectors = (torch.rand(EDGES, 3, generator=generator, dtype=dtype) + 0.1) * (0.5 * cutoff)
    edges = torch.randint(ATOMS, (2, EDGES), generator=generator)
    edges[0] = edges[0].sort()[0]
    return vectors, torch.zeros(ATOMS, dtype=torch.int64), edges


def _of_potential(potential: ConservativePotential) -> tuple[Program, tuple[Tensor, ...]]:
    """Return energies [N] and the gradient of their weighted sum [E, 3], from vectors, species, edges and weights [N]."""

    def program(vectors: Tensor, species: Tensor, edge_index: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        vectors = vectors.detach().requires_grad_(True)
        energies = potential.atomic_energies(vectors, species, edge_index)
        (gradient,) = torch.autograd.grad([(energies * weights).sum()], [vectors])
        return energies.detach(), gradient

    return program, (torch.ones(ATOMS, dtype=torch.float64),)


def _of_propagator(propagator: Propagator) -> tuple[Program, tuple[Tensor, ...]]:
    """Return the free stride, from vectors, species, edges and velocities [N, 3]."""

    def program(vectors: Tensor, species: Tensor, edge_index: Tensor, velocities: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return propagator.free_stride(velocities, species, vectors, edge_index)

    return program, (torch.ones(ATOMS, 3, dtype=torch.float64),)


def _checked(model: nn.Module, metadata: Metadata) -> nn.Module:
    """Return a copy in the precision that it will run in, which looks at no value."""
    if isinstance(model, DirectPotential):
        raise EquistrideError(
            "a network with direct forces cannot be compiled", expected="forces that are a gradient", hint=TORCHSCRIPT
        )
    if metadata.global_sums:
        raise EquistrideError(
            "a network that sums over all atoms cannot be compiled, because a compiled program holds two atoms more",
            expected="no balanced channels", hint=TORCHSCRIPT,
        )  # fmt: skip
    model = copy.deepcopy(model).to(getattr(torch, metadata.dtype)).eval().requires_grad_(False)
    for part in model.modules():
        for setting, value in (("checked", False), ("portion", 0)):
            if hasattr(part, setting):
                setattr(part, setting, value)
        if hasattr(part, "pack"):
            part.pack()  # type: ignore[operator]  # what was packed before is in double precision
    return model


def trace(model: nn.Module, metadata: Metadata) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """Return the graph of a potential's or a propagator's program, and arguments for it.

    Raises
    ------
    EquistrideError
        For a model whose program depends on the values that go in.
    """
    model = _checked(model, metadata)
    of_model = _of_propagator if isinstance(model, Propagator) else _of_potential
    program, more = of_model(model)  # type: ignore[arg-type]
    arguments = (*_example(metadata.cutoff, getattr(torch, metadata.dtype)), *more)
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with exchanging():
            graph = make_fx(program, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refusal(error) from None
    for node in graph.graph.nodes:
        if node.target is torch.ops.equistride.exchange_backward.default:
            node.args = (node.args[0], EXCHANGE_HERE)
    graph.recompile()
    return graph, arguments


def _refusal(error: Exception) -> EquistrideError:
    return EquistrideError(f"the model cannot be compiled ({first_line(error)})", hint=TORCHSCRIPT)


def _settings(made_for: Compiled) -> dict[str, Any]:
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler

    if not hasattr(config.cpp, "march"):
        raise EquistrideError(
            "this torch cannot compile for a given instruction set", expected="torch 2.13 or newer",
            found=torch.__version__, hint=f"update torch, or {TORCHSCRIPT}",
        )  # fmt: skip
    try:
        get_cpp_compiler()
    except RuntimeError:
        raise EquistrideError(
            "there is no C++ compiler", found=str(config.cpp.cxx[-1]), hint=f"install g++ or set CXX, or {TORCHSCRIPT}"
        ) from None
    # not for the builder's own processor: every one with the same instruction set shall run it. One thread, because its sums
    # over neighbours would be atomic on several and differ from run to run; operators that it calls use all threads.
    return {"cpp.march": "", "cpp.simdlen": SIMD_BITS[made_for.instruction_set], "cpp.threads": 1}


def require_open_sizes(program: ExportedProgram, least: int) -> None:
    """Refuse an exported program that does not hold for all numbers of atoms and edges from two on.

    Raises
    ------
    RuntimeError
        Where one is bounded, or fewer than ``least`` are open.
    """
    bounds = [(int(r.lower), r.upper) for r in program.range_constraints.values()]
    if len(bounds) < least or any(low > 2 or high < 2**31 for low, high in bounds):
        raise RuntimeError(f"its program holds for some numbers of atoms and edges alone, {bounds}")


def compile_program(model: nn.Module, metadata: Metadata, package: BytesIO) -> Metadata:
    """Compile a model's program with AOTInductor for the CPU of this machine; it takes a minute and a C++ compiler.

    Parameters
    ----------
    model
        A conservative potential or a propagator.
    metadata
        Its facts; the program computes in ``metadata.dtype``.
    package
        Where torch's package goes, ending in ``.pt2``.

    Returns
    -------
    Metadata
        With what the program was compiled for, and its contract.

    Raises
    ------
    EquistrideError
        Where the model cannot be compiled, or there is no compiler.
    """
    made_for = target()
    settings = _settings(made_for)
    graph, arguments = trace(model, metadata)
    targets = [str(node.target).removesuffix(".default").replace(".", "::", 1) for node in graph.graph.nodes]
    calls = targets.count("equistride::exchange")
    sizes = {ATOMS, EDGES}
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(argument.shape) if size in sizes}
        for argument in arguments
    )
    try:
        with quiet("torch._inductor"):
            exported = torch.export.export(graph, arguments, dynamic_shapes=shapes)
            require_open_sizes(exported, 0)
            torch._inductor.aoti_compile_and_package(exported, package_path=package, inductor_configs=settings)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refusal(error) from None
    potential = metadata.kind == "potential"
    shortest = getattr(model.network, "shortest", 0.0)  # of a TrajCast with tables
    limits = metadata.limits.model_copy(update={"shortest_bond": shortest or None})
    capabilities = Capabilities(
        decomposable=True, batched=potential, angular_momentum=not potential and getattr(model, "keep_spin", True)
    )
    return metadata.model_copy(
        update={
            "compiled": made_for.model_copy(update={"exchanges": calls, "cutoff": metadata.cutoff}),
            "interaction_range": metadata.message_passing_steps * metadata.cutoff,
            "capabilities": capabilities,
            "limits": limits,
            "operators": {name: 1 for name in sorted(set(targets)) if name.startswith("equistride::")},
            "charge_spin": "fixed" if metadata.system else "none",
        }
    )
