"""Facts of torch and of our operators, told by a process of its own."""

from equistride.doctor.children import tell
from equistride.errors import first_line


def main() -> None:
    """Import torch, look at its devices, and make a neighbour list of two atoms on each kind."""
    try:
        import torch
    except Exception as error:
        tell(missing=isinstance(error, ModuleNotFoundError) and error.name == "torch", error=first_line(error))
        return
    tell(version=torch.__version__, cuda=torch.version.cuda, threads=torch.get_num_threads())
    tell(capability=torch.backends.cpu.get_cpu_capability())
    try:
        gpus = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
        tell(gpus=[{"name": g.name, "capability": [g.major, g.minor], "memory": g.total_memory} for g in gpus])
        if torch.version.cuda is not None and not gpus:
            torch.cuda.init()  # which says why there is none
    except Exception as error:
        tell(gpu_error=first_line(error))
    try:
        from equistride.graph import neighbor_list

        for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            positions = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], device=device)
            edges, _ = neighbor_list(positions, torch.zeros(3, 3, device=device), False, 2.0)
            tell(**{f"{device}_edges": edges.size(1)})
    except Exception as error:
        tell(operators=first_line(error))


if __name__ == "__main__":
    main()
