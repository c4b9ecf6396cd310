"""Pretraining with direct forces: one backward instead of two, bfloat16 where hardware has it, denoising (DeNS).

Liao et al., arXiv 2403.09549: in some batches atoms are displaced at random, the network is told the forces that they had
before, and learns to give back the displacements; it sees structures off the trajectories and learns what a force means.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig
from equistride.models.potential import DirectPotential
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.spherical import SphericalLinear
from equistride.training.data import Batch
from equistride.training.systems import systems_of


def require_bfloat16(device: torch.device) -> None:
    """Refuse a device without matrix products in bfloat16."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not has:
        raise EquistrideError(
            f"the device {device.type} has no bfloat16", hint="train with trainer.bfloat16=false or on another machine"
        )


class Denoiser(nn.Module):
    """The layers that denoising adds: forces in, displacements out.

    Parameters
    ----------
    config
        Sizes of the network.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.harmonics = SphericalHarmonics(config.l_max)
        self.embedding = SphericalLinear(config.l_max, 1, config.channels)
        self.head = SphericalLinear(1, config.channels, 1)

    def encode(self, forces: Tensor) -> Tensor:
        """Return what is added to the features [N, (l_max+1)^2, C] for forces [N, 3] in units of the target scale."""
        length = torch.linalg.vector_norm(forces, dim=1, keepdim=True) / math.sqrt(3.0)
        return self.embedding((self.harmonics(forces) * length)[:, :, None])

    def displacements(self, features: Tensor) -> Tensor:
        """Return displacements [N, 3] in units of their standard deviation."""
        return self.head(features[:, :4])[:, 1:].squeeze(2)


def displaced(batch: Batch, noise: Tensor) -> Tensor:
    """Return the edge vectors [E, 3] after atoms moved by ``noise`` [N, 3] A; bonds keep their neighbours."""
    receiver, sender = batch.edge_index[0].long(), batch.edge_index[1].long()
    return batch.vectors + noise.index_select(0, sender) - noise.index_select(0, receiver)


def direct_outputs(
    model: DirectPotential, batch: Batch, vectors: Tensor, extra: Tensor | None = None, bfloat16: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return energies [B] (eV, float64), forces [N, 3] (eV/A) and features [N, (l_max+1)^2, C] of a batch.

    Parameters
    ----------
    model, batch, vectors
        The potential, the batch, and its edge vectors [E, 3] A.
    extra
        Added to the features at the start, of :meth:`Denoiser.encode`.
    bfloat16
        Run matrix products in bfloat16; bond frames, radial functions and sums over atoms keep their precision.
    """
    network: Any = model.network
    edges = network.edges(vectors, batch.species, batch.edge_index)
    systems = systems_of(network, batch.charge, batch.spin, batch.frame)
    with systems, torch.autocast(vectors.device.type, torch.bfloat16, enabled=bfloat16):
        features = network.features(batch.species, edges, extra)
        out, forces = network.energies(features), network.direct_forces(features)
    atomic = model.in_ev(out, batch.species)
    energies = atomic.new_zeros(batch.num_frames).index_add(0, batch.frame, atomic)
    return energies, forces.to(vectors.dtype) * model.scale, features.to(vectors.dtype)
