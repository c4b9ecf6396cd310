#!/usr/bin/env bash
# Everything that wants a GPU, in two runs of at most 480 and 240 seconds, in the order of worth.
#
#   benchmarks/gpu.sh [--run 1|2] [--dry] [FOLDER]      FOLDER for logs and JSON; benchmarks/results/gpu by default
#
# Run 1 builds, tells right from wrong within a minute, and measures; run 2 keeps the build: bars, engines, the other tests. A
# part that is done is not done again, so a run that was cut off goes on where it was. A failed build ends it. FOLDER.tar.gz has
# all logs and figures, as far as they are there. --dry prints the plan.
#
# Needs a Python with a CUDA build of torch >= 2.10 and an nvcc. Where the machine has no network, put the wheels of what is
# missing (openmm, openmm-cuda-13, ase, pydantic, pydantic-core, annotated-types, swig: 24 MB) into .whl first; they go into
# torch's own environment, where OpenMM's RUNPATH and the search for swig find them. LAMMPS and mdtraj may be missing.
set -uo pipefail
cd "$(dirname "$0")/.."

run=1 dry=0 out=
while [ $# -gt 0 ]; do
  case $1 in
    --run) run=${2:-}; shift ;;
    --dry) dry=1 ;;
    -*) echo "benchmarks/gpu.sh: $1 is not known; expected --run 1, --run 2 or --dry" >&2; exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
case $run in
  1) limit=480 ;;
  2) limit=240 ;;
  *) echo "benchmarks/gpu.sh: there are runs 1 and 2; found '$run'" >&2; exit 2 ;;
esac
out=${out:-benchmarks/results/gpu}
python=${PYTHON:-python3}
# the profiler beside graphs that live
export TEARDOWN_CUPTI=0 DISABLE_CUPTI_LAZY_REINIT=1 OMP_WAIT_POLICY=passive
build="-m pip install -v --no-build-isolation --no-deps --config-settings=cmake.define.EQUISTRIDE_CUDA=ON"
build="$build --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES=${ARCHITECTURES:-90} -e ."
tests="-m pytest -m cuda -q -n 4 --dist loadfile -rfE --durations=10"
kernels="--clock-control none --kernel-name regex:run_tiles|sparse_forward --launch-count 4 --set basic"

# name, seconds at most, command
if [ "$run" = 1 ]; then
  plan=(
    "versions|25|$python benchmarks/gpu_versions.py"
    "build|210|$python $build"
    "smoke|30|$python benchmarks/gpu_smoke.py --json $out/smoke.json"
    "steps|75|$python benchmarks/steps.py --device cuda --json $out/steps.json"
    "list|10|$python benchmarks/gpu_list.py --json $out/list.json"
    "ncu|45|ncu $kernels $python benchmarks/steps.py --device cuda --repeats 1 --plain --json $out/ncu.json"
    "tests|80|$python $tests tests/ops/test_neighbors_cuda.py tests/ops/test_tensor_product_cuda.py tests/artifact/test_step.py tests/engines/test_device_strides.py"
  )
else
  plan=(
    "bars|45|$python -m pytest -m cuda -q -s -rfE tests/bench/test_gpu_bars.py"
    "openmm|45|$python -m pytest -m cuda -q -rfE --durations=10 tests/engines/test_openmm_cuda.py"
    "others|85|$python $tests tests/ops/test_atom_block_cuda.py tests/ops/test_edge_block_cuda.py"
    "bench|60|$python -m equistride.cli.main bench --test potential-quartz-4374,propagator-quartz-4374 --seconds 5 --outfile $out/bench.json"
  )
fi

if [ $dry = 1 ]; then
  total=0
  for part in "${plan[@]}"; do
    IFS='|' read -r name seconds _ <<<"$part"
    printf '%-10s %4d s  %s\n' "$name" "$seconds" "${part#*|*|}"
    total=$((total + seconds))
  done
  echo "run $run: $total s at most, of $limit s"
  [ $total -lt $limit ]
  exit
fi

if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null; then
  echo "benchmarks/gpu.sh: torch finds no GPU here; expected a CUDA build of torch and a driver" >&2
  exit 1
fi
mkdir -p "$out"
begun=$SECONDS failed=
if [ "$run" = 1 ] && [ -d .whl ] && [ ! -e "$out/wheels.done" ]; then
  "$python" -m pip install -q --no-index --no-deps .whl/*.whl >"$out/wheels.log" 2>&1 || { tail -n 5 "$out/wheels.log" >&2; exit 1; }
  touch "$out/wheels.done"
fi
for part in "${plan[@]}"; do
  IFS='|' read -r name seconds _ <<<"$part"
  command=${part#*|*|}
  [ -e "$out/$name.done" ] && continue
  left=$((limit - 5 - (SECONDS - begun)))
  [ $left -lt 5 ] && { echo "$name: no time is left; run it again"; failed="$failed $name"; break; }
  [ "$seconds" -gt $left ] && seconds=$left
  start=$SECONDS
  read -ra words <<<"$command"
  if timeout -k 5 "$seconds" "${words[@]}" >"$out/$name.log" 2>&1; then
    touch "$out/$name.done"
    echo "$name: done in $((SECONDS - start)) s"
  else
    echo "$name: failed after $((SECONDS - start)) s; the end of $out/$name.log:"
    failed="$failed $name"
  fi
  tail -n 12 "$out/$name.log"
  tar czf "$out.tar.gz" "$out"
  [ "$name" = build ] && [ ! -e "$out/build.done" ] && break
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
