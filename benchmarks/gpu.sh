#!/usr/bin/env bash
# Everything that wants a GPU, in one go and under ten minutes: build, the tests marked `cuda`, benchmarks as JSON.
#
#   benchmarks/gpu.sh [FOLDER]      FOLDER for logs and JSON; benchmarks/results by default
#
# Needs a Python with a CUDA build of torch >= 2.10 and an nvcc. Where the machine has no network, put the wheels of what is
# missing (openmm, openmm-cuda-13, pybind11, scikit-build-core, swig, pydantic, e3nn, ase, mdtraj, pytest, ...) into .whl first.
# LAMMPS may be missing. Built with torch 2.11.0+cu130 and Python 3.12, on 16 cores the edge block's kernels take longest.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"
python=${PYTHON:-python3}

if [ -d .whl ]; then
  "$python" -m pip install -q --no-index --no-deps .whl/*.whl || exit 1
fi
"$python" - <<'PY' || exit 1
import sys, torch
if not torch.cuda.is_available():
    sys.exit("benchmarks/gpu.sh: torch finds no GPU here; expected a CUDA build of torch and a driver")
PY
name=$("$python" -c "import torch; print(torch.cuda.get_device_name().replace(' ', '-').lower())")
"$python" -c "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name())" | tee "$out/$name-machine.txt"

"$python" -m pip install -q --no-build-isolation --no-deps --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=native \
  -e . 2>&1 | tee "$out/$name-build.log" | tail -n 20
timeout 300 "$python" -m pytest -q -m cuda 2>&1 | tee "$out/$name-tests.log" | tail -n 40
tests=${PIPESTATUS[0]}
timeout 60 "$python" benchmarks/neighbors.py --rounds 5 --json "$out/$name-neighbors.json" || true
timeout 120 "$python" benchmarks/tensor_product.py --device cuda --json "$out/$name-tensor-product.json" \
  2>&1 | tee "$out/$name-tensor-product.log" || true
timeout 120 "$python" benchmarks/esen_speed.py --device cuda --json "$out/$name-esen-speed.json" \
  2>&1 | tee "$out/$name-esen-speed.log" || true
timeout 150 "$python" benchmarks/steps.py --device cuda --json "$out/$name-steps.json" 2>&1 | tee "$out/$name-steps.log" || true
timeout 120 "$python" -m equistride.cli.main bench --test potential-quartz-4374,propagator-quartz-4374,kernels-quartz-4374 \
  --seconds 5 --outfile "$out/$name-bench.json" || true
exit "$tests"
