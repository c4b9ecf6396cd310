"""Compiler, cores and threads, disk and memory."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from equistride.doctor.finding import Finding

PROGRAM = (
    '#include <vector>\n#include <span>\nextern "C" int f() { std::vector<int> v{1}; return std::span(v).front(); }\n'
)
LITTLE_DISK = 2**30
"""Bytes in the folder for temporary files: an artifact that is compiled takes some hundred megabytes."""


def of_compiler() -> list[Finding]:
    """Whether the compiler that AOTInductor takes, ``CXX`` or g++, compiles C++20."""
    words = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    needed = "install g++ or set CXX where you compile artifacts (--container aoti) or plugins"
    if shutil.which(words[0]) is None:
        return [Finding("compiler", "C++", f"there is no {words[0]}", "absent", needed)]
    with tempfile.TemporaryDirectory() as folder:
        command = [*words, "-std=c++20", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(Path(folder) / "f.so")]
        try:
            done = subprocess.run(command, input=PROGRAM, capture_output=True, text=True, timeout=120)
            said = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=120).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            return [Finding("compiler", "C++", f"{words[0]} does not run ({error})", "absent", needed)]
    version = (said.splitlines() or [words[0]])[0]
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["it said nothing"]
        return [Finding("compiler", "C++", f"{version} compiles no C++20 ({lines[0].strip()})", "absent", needed)]
    return [Finding("compiler", "C++", f"{version}, at {shutil.which(words[0])}")]


def quota() -> float | None:
    """Return the cores that the control group of this process may use, where it says (cgroup v2)."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else float(limit) / float(period)
    except (OSError, ValueError):
        return None


def of_threads(of_torch: int | None) -> list[Finding]:
    """Cores that may be used, and what the environment says of threads."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = quota()
    cores = allowed if share is None else min(allowed, max(1, round(share)))
    text = f"{cores} of {os.cpu_count()} may be used" + (f" (quota {share:g})" if share is not None else "")
    found = [Finding("threads", "cores", text)]
    said = os.environ.get("OMP_NUM_THREADS")
    counts = [part.strip() for part in said.split(",")] if said is not None else []
    if said is None:
        found.append(Finding("threads", "OMP_NUM_THREADS", f"not set; torch takes {of_torch or 'one a core'}"))
    elif not all(part.isdigit() and int(part) > 0 for part in counts):
        found.append(Finding("threads", "OMP_NUM_THREADS", f"{said!r} is no number of threads", "warning",
                             f"set it to {cores} or less, or unset it"))  # fmt: skip
    elif int(counts[0]) > cores:
        found.append(Finding("threads", "OMP_NUM_THREADS", f"{said}, more than there are cores: threads wait for each other",
                             "warning", f"set it to {cores} or less"))  # fmt: skip
    else:
        found.append(Finding("threads", "OMP_NUM_THREADS", f"{said}; torch takes {of_torch or 'as many'}"))
    policy = os.environ.get("OMP_WAIT_POLICY", "not set: torch's threads spin; set passive beside other programs")
    return [*found, Finding("threads", "OMP_WAIT_POLICY", policy)]


def of_disk() -> list[Finding]:
    """Folder for temporary files, this folder, and memory."""
    found = []
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
        little = free < LITTLE_DISK
        found.append(Finding("disk", "temporary", f"{folder}, {free / 2**30:.1f} GiB free", "warning" if little else "ok",
                             "set TMPDIR to a folder with more room" if little else ""))  # fmt: skip
    except OSError as error:
        found.append(Finding("disk", "temporary", f"no file can be made ({error.strerror})", "fault",
                             "set TMPDIR to a folder that can be written to"))  # fmt: skip
    try:
        here = Path.cwd()
        closed = not os.access(here, os.W_OK)
        found.append(Finding("disk", "this folder", f"{here}, {shutil.disk_usage(here).free / 2**30:.1f} GiB free"
                             + (", closed to you" if closed else ""), "warning" if closed else "ok",
                             "write with -o into another folder" if closed else ""))  # fmt: skip
    except OSError as error:
        found.append(
            Finding("disk", "this folder", f"cannot be read ({error.strerror})", "warning", "change to another")
        )
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        text = f"{kilobytes['MemAvailable'] / 2**20:.1f} of {kilobytes['MemTotal'] / 2**20:.1f} GiB free"
        found.append(Finding("disk", "memory", text))
    except (OSError, KeyError, ValueError, IndexError):
        pass
    return found
