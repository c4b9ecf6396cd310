"""The plan for the minutes on a GPU: benchmarks/gpu.sh on a machine without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"
LIMITS = {1: 480, 2: 240}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("number", LIMITS)
def test_time_outs_add_up_to_less_than_the_limit(number: int) -> None:
    done = run("--run", str(number), "--dry")
    assert done.returncode == 0
    *parts, total = done.stdout.splitlines()
    seconds = sum(int(re.match(r"\S+ +(\d+) s", part)[1]) for part in parts)  # type: ignore[index]
    assert total == f"run {number}: {seconds} s at most, of {LIMITS[number]} s"
    assert seconds < LIMITS[number]


@pytest.mark.parametrize("number", LIMITS)
def test_what_the_plan_names_is_there(number: int) -> None:
    """Scripts and tests; so that nobody finds a moved file on the day."""
    words = run("--run", str(number), "--dry").stdout.split()
    files = [word for word in words if re.match(r"(benchmarks|tests)/\S+\.py$", word)]
    assert files
    for file in files:
        assert (SCRIPT.parents[1] / file).exists(), file


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_ends_in_one_sentence(tmp_path: Path) -> None:
    done = run(str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "benchmarks/gpu.sh: torch finds no GPU here; expected a CUDA build of torch and a driver"
    )
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_known_is_refused() -> None:
    done = run("--run", "3")
    assert done.returncode == 2
    assert "there are runs 1 and 2; found '3'" in done.stderr
