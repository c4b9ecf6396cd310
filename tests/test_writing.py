"""Files appear whole or not at all: full disks, limits, kills; folders that another process writes to."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from file_limit import file_limit

from equistride.errors import EquistrideError
from equistride.writing import PARTIAL, locked, whole_file, write, write_arrays


def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "one")
    path.chmod(0o640)
    write(path, "zwei: ä")
    assert path.read_bytes() == "zwei: ä".encode()
    (tmp_path / "link").symlink_to("a.txt")
    write(tmp_path / "link", b"three")
    assert path.read_bytes() == b"three"
    assert (tmp_path / "link").is_symlink()
    write_arrays(tmp_path / "b.npz", {"x": np.arange(3)})
    assert np.load(tmp_path / "b.npz")["x"].tolist() == [0, 1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.npz", "link"]
    write("/dev/null", "what is no plain file is written to as it is")


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")

    def breaks() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        breaks()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [True, False])
def test_a_limit_of_file_size(tmp_path: Path, old: bool) -> None:
    """The kernel refuses the write in its middle, as where a disk is full."""
    path = tmp_path / "a.bin"
    if old:
        write(path, "old")
    with file_limit(4096), pytest.raises(OSError, match="File too large") as refused:
        write(path, os.urandom(10_000))
    assert refused.value.errno == errno.EFBIG
    assert [p.read_text() for p in tmp_path.iterdir()] == (["old"] if old else [])


def test_kills_leave_a_whole_file_and_no_litter_behind_the_next_write(tmp_path: Path) -> None:
    """Each generation of the file is a byte throughout; a process that writes without end is killed five times."""
    path = tmp_path / "a.bin"
    program = (
        "import sys; from equistride.writing import write\n"
        "k = 0\nwhile True:\n    write(sys.argv[1], bytes([k % 256]) * 3_000_000)\n    k += 1\n"
        "    print(flush=True) if k == 1 else None"
    )
    rng = np.random.default_rng(3)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05 * rng.random())
            writer.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == 3_000_000
        assert len(set(data)) == 1
    write(path, "end")
    assert list(tmp_path.iterdir()) == [path]


def test_who_still_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        first.write_text("first")
        write(path, "second")
        assert first.exists()
    assert path.read_text() == "first"
    assert not list(tmp_path.glob(f".*{PARTIAL}*"))


def test_a_folder_is_locked_while_its_process_lives(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from equistride.writing import locked\n"
        "with locked(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said = r"another process is writing into .*; wait until it has ended"
        with pytest.raises(EquistrideError, match=said), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
