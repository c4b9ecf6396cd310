"""Attention over the neighbours of each atom, as published and in a form that is smooth as neighbours come and go."""

import torch
from torch import Tensor


def neighbor_attention(scores: Tensor, receiver: Tensor, num_atoms: int, envelope: Tensor | None) -> Tensor:
    """Return the share [E, H] of each edge in the sum over the neighbours of its receiver.

    Without envelope the softmax of Equiformer (arXiv 2206.11990): an edge has a share up to the cutoff, and the others' shares
    jump as it goes. With it ``u exp(z) / sum(u exp(z)) * u``: the second u lets also an only neighbour fade out.

    Parameters
    ----------
    scores [E, H]
        z, one for each head.
    receiver [E]
        Atom over whose edges shares are normalised.
    num_atoms
        N.
    envelope [E]
        u, zero at the cutoff; None for the published form.
    """
    index = receiver[:, None].expand_as(scores)
    logs = scores.detach()
    if envelope is not None:
        logs = logs + envelope.detach().log()[:, None]
    # the largest term of each sum is 1 after this shift; it cancels, so that no gradient need pass through it
    largest = scores.new_full([num_atoms, scores.size(1)], -torch.inf).scatter_reduce(0, index, logs, "amax")
    shift = torch.where(torch.isfinite(largest), largest, 0.0).index_select(0, receiver)
    terms = torch.exp((scores - shift).clamp(max=80.0))
    if envelope is not None:
        terms = terms * envelope[:, None]
    total = scores.new_zeros(num_atoms, scores.size(1)).index_add(0, receiver, terms).clamp(min=1e-30)
    shares = terms / total.index_select(0, receiver)
    return shares if envelope is None else shares * envelope[:, None]
