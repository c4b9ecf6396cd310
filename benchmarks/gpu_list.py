"""A captured neighbour list on the GPU, 4,374 atoms of quartz, 5 A; beside it nvalchemi's cell list, where that is installed.

python benchmarks/gpu_list.py [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from machine import captured, event_time, publish

from equistride.bench.kernels import graph_of, padded_list_arguments

CUTOFF, REPEATS = 5.0, 20


def main() -> None:
    """Print the times and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    where = parser.parse_args().json
    figures: dict[str, object] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for system in ("quartz-4374", "quartz-34992"):
        graph = graph_of(system, torch.float32, CUTOFF, "cuda")
        arguments = padded_list_arguments(graph, CUTOFF)
        replay, _ = captured(lambda at=arguments: torch.ops.equistride.neighbors_padded(*at))
        figures[f"{system}, us"] = 1e6 * event_time(replay, REPEATS)
        publish(figures, where)
        try:
            from nvalchemiops.torch.neighbors import neighbor_list
        except ImportError:
            continue
        most = (int(torch.bincount(graph.edge_index[0]).max()) + 15) // 8 * 8
        theirs = {"cell": graph.cell, "pbc": arguments[2], "method": "cell_list", "max_neighbors": most}
        seconds = event_time(lambda at=graph.positions, more=theirs: neighbor_list(at, CUTOFF, **more), REPEATS)
        figures[f"{system}, nvalchemi, us"] = 1e6 * seconds
        publish(figures, where)


if __name__ == "__main__":
    main()
