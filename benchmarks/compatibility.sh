#!/usr/bin/env bash
# Build and test with each Python and torch that this machine and the index have; a line each, and the log of what failed.
# usage: benchmarks/compatibility.sh [torch versions, "2.10.0 2.11.0" say]
set -uo pipefail
cd "$(dirname "$0")/.."
versions=${1:-"2.10.0 2.11.0 2.12.0 2.13.0"}
failed=0
for name in python3.11 python3.12 python3.13; do
  command -v "$name" >/dev/null || { echo "$name: not on this machine"; continue; }
  for torch in $versions; do
    place=build/compatibility/$name-$torch
    mkdir -p "$place"
    # a build of its own: that of the checkout is for its own torch
    if SKBUILD_BUILD_DIR="$place/cmake" make PYTHON="$name" TORCH="torch==$torch" VENV="$place/venv" "$place/venv/.weights" >"$place/build.log" 2>&1 &&
      "$place/venv/bin/python" -m pytest -q tests/artifact tests/ops/test_neighbors.py tests/engines/test_openmm_force.py \
        >"$place/test.log" 2>&1; then
      echo "$name, torch $torch: passes ($(tail -1 "$place/test.log"))"
    else
      echo "$name, torch $torch: FAILS, see $place"
      failed=1
    fi
  done
done
exit $failed
