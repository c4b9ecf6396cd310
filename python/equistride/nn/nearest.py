"""A limit on the number of neighbours: a defect to study, not a feature to use.

Where the limit bites, an atom drops out of the sum while its message is not zero: energy and forces jump, and no integrator
conserves the energy (arXiv 2502.12147). Some pretraining recipes use it for speed.
"""

import torch
from torch import Tensor


def nearest(distances: Tensor, receiver: Tensor, num_atoms: int, limit: int, slack: float = -1.0) -> Tensor:
    """Return which edges stay, in their order, when each receiver keeps its ``limit`` nearest senders.

    Parameters
    ----------
    distances [E], receiver [E]
        Bond lengths and receivers, in any order. Of equal distances the first edges stay.
    num_atoms
        N.
    limit
        Edges kept for each receiver.
    slack
        A^2: from 0 on, all edges stay whose squared length is at most this above that of the nearest sender beyond the
        limit, so that it is one edge more or several. The rule of fairchem-core's graphs.
    """
    order = torch.sort(distances, dim=0, stable=True)[1]
    order = order.index_select(0, torch.sort(receiver.index_select(0, order), dim=0, stable=True)[1])
    count = torch.bincount(receiver, minlength=num_atoms)
    first = torch.cumsum(count, 0) - count
    if slack >= 0:
        crowded = count > limit
        beyond = (first + limit).masked_select(crowded)
        farthest = torch.full([num_atoms], float("inf"), dtype=distances.dtype, device=distances.device)
        squares = distances.square()
        farthest[crowded] = squares.index_select(0, order.index_select(0, beyond)) + slack
        return torch.nonzero(squares <= farthest.index_select(0, receiver)).flatten()
    rank = torch.arange(order.size(0), device=order.device) - first.index_select(0, receiver.index_select(0, order))
    return torch.sort(order.masked_select(rank < limit), dim=0)[0]
