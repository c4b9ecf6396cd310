#!/usr/bin/env bash
# Build operators, model and plugins with a sanitizer in a folder of its own, and run the tests of native code with it.
# usage: benchmarks/sanitize.sh address|undefined|thread [minutes of fuzzing]
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address, undefined or thread} minutes=${2:-1}
python=${PYTHON:-.venv/bin/python}
target=$PWD/build/sanitize-$kind
flags="-fsanitize=$kind -fno-omit-frame-pointer -g -O1"
[ "$kind" = undefined ] && flags="$flags -fno-sanitize=vptr -fno-sanitize-recover=all" # torch's own classes have no type data
mkdir -p "$target"
"$python" -m pip install --quiet --no-build-isolation --no-deps --target "$target/site" --upgrade . \
  --config-settings=build-dir="$target/cmake" --config-settings=cmake.build-type=None \
  --config-settings=cmake.define.CMAKE_CXX_FLAGS="$flags" --config-settings=cmake.define.CMAKE_SHARED_LINKER_FLAGS="-fsanitize=$kind" \
  --config-settings=cmake.define.CMAKE_MODULE_LINKER_FLAGS="-fsanitize=$kind"
library=$(gcc -print-file-name="lib$(case $kind in address) echo asan;; undefined) echo ubsan;; thread) echo tsan;; esac).so")
export PYTHONPATH="$target/site" LD_PRELOAD="$library" OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# torch, OpenMP and OpenMM are not built for it: what they do alone is not ours to mend
export TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1"
"$python" -m pytest -q -x -p no:faulthandler tests/ops/test_neighbors.py tests/ops/test_edge_vectors.py tests/ops/test_exchange.py \
  tests/artifact/test_digest.py tests/artifact/test_sandbox.py tests/artifact/test_step.py tests/engines/test_openmm_errors.py
(cd benchmarks && "$python" fuzz.py --minutes "$minutes" --left "$target/fuzz")
