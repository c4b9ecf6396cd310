"""Feed changed bytes to the readers of native code until the time is over; a crash ends the process and leaves its input.

``python benchmarks/fuzz.py --minutes 60`` tries the archive, the metadata, the code of a model and the neighbour list in turns.
With atheris installed (``pip install atheris``) and ``--guided``, branches of Python guide the changes; without they are random,
from good inputs. Native code is not instrumented unless it was built so: ``make sanitize`` builds it with AddressSanitizer, and
runs this too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fault_inputs as good
import numpy as np

from equistride.artifact.native import open_native
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list

Target = Callable[[bytes], None]


def _open(content: bytes) -> None:
    try:
        open_native(content)
    except EquistrideError as refused:
        if len(str(refused).splitlines()) != 1:
            raise RuntimeError(f"a refusal of several lines: {refused}") from None


def targets(folder: Path) -> dict[str, tuple[Target, bytes]]:
    """Each target with a good input."""
    artifact = good.artifact(folder)
    with zipfile.ZipFile(artifact) as archive:
        read = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    code = next(name for name in read if name.startswith("code/") and b"atomic_energies" in read[name])

    def record(name: str) -> Target:
        return lambda data: _open(good.resealed(artifact, lambda n, old: data if n == name else old))

    def neighbours(data: bytes) -> None:
        import torch

        numbers = np.frombuffer(data[: len(data) // 8 * 8], np.float64)
        if len(numbers) < 16:
            return
        count = min(40, (len(numbers) - 10) // 3)
        try:
            neighbor_list(
                torch.tensor(numbers[10 : 10 + 3 * count].reshape(count, 3)),
                torch.tensor(numbers[:9].reshape(3, 3)),
                bool(data[0] % 2),
                float(np.clip(abs(np.nan_to_num(numbers[9])), 0.5, 6.0)),
            )
        except (EquistrideError, RuntimeError, ValueError):
            return

    cell = np.concatenate([np.diag([9.0, 8.0, 7.0]).ravel(), [4.0], good.positions().ravel()])
    return {
        "archive": (_open, artifact.read_bytes()),
        "metadata": (record("extra/metadata.json"), read["extra/metadata.json"]),
        "reference": (record("extra/reference.json"), read["extra/reference.json"]),
        "code": (record(code), read[code]),
        "data": (record("data.pkl"), read["data.pkl"]),
        "neighbours": (neighbours, cell.tobytes()),
    }


def guided(name: str, target: Target, first: bytes, minutes: float, left: Path) -> None:
    """Let atheris choose the inputs."""
    import atheris

    corpus = left / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    (corpus / "good").write_bytes(first)
    words = [sys.argv[0], str(corpus), f"-max_total_time={round(60 * minutes)}", f"-artifact_prefix={left}/"]
    atheris.Setup(words, target)
    atheris.Fuzz()


def main() -> None:
    """Run one target with atheris, or all in turns without."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", help="one alone; needed with --guided")
    parser.add_argument("--guided", action="store_true", help="by atheris")
    parser.add_argument("--left", type=Path, default=Path("fuzz"), help="folder for the input of a crash")
    options = parser.parse_args()
    options.left.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = targets(Path(folder))
        if options.guided:
            target, first = chosen[options.target]
            guided(options.target, target, first, options.minutes, options.left)
            return
        rng, end, tried = np.random.default_rng(options.seed), time.monotonic() + 60 * options.minutes, Counter[str]()
        while time.monotonic() < end:
            for name, (target, first) in chosen.items():
                if options.target not in (None, name):
                    continue
                data = good.damaged(first, rng)
                if rng.random() < 0.3:
                    data = good.damaged(data, rng)
                (options.left / "last").write_bytes(data)
                target(data)
                tried[name] += 1
    (options.left / "last").unlink()
    print(json.dumps({"seed": options.seed, "tried": tried}))


if __name__ == "__main__":
    main()
