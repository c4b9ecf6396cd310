#!/usr/bin/env bash
# Build operators, model and plugins with sanitizers in a folder of its own, and run the tests of native code with them.
# usage: [ROOMS=...] benchmarks/sanitize.sh address|thread [build|TESTS...]; `address` is AddressSanitizer and UBSan in one build
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address or thread}
shift
operators=(tests/ops/test_{neighbors,neighbor_list,neighbors_random,edge_vectors,exchange,tensor_product,edge_block,atom_block,esen_operator}.py
  tests/ops/test_{symmetric_contraction,operators,threads}.py)
models=(tests/artifact/test_{digest,sandbox,step,compute,batch,contract,formats,refusals}.py)
openmm=(tests/engines/test_{openmm_errors,openmm_force,openmm_refusals,integrator,integrator_guard,openmm_simulation}.py)
lammps=(tests/engines/test_lammps_{pair,propagate,settings,openmm}.py)
case $kind in
  address)
    # torch's own classes have no type data
    flags="-fsanitize=address,undefined,float-cast-overflow -fno-sanitize=vptr -fno-sanitize-recover=all"
    library=libasan.so
    tests=("${operators[@]}" "${models[@]}" "${openmm[@]}" "${lammps[@]}")
    ;;
  thread)
    flags=-fsanitize=thread library=libtsan.so
    tests=("${operators[@]}" "${openmm[@]}" -k "thread or context or integrator")
    ;;
  *) echo "$kind: expected address or thread" && exit 2 ;;
esac
target=build/sanitize-$kind
benchmarks/instrumented.sh "$target" "$flags -fno-omit-frame-pointer -g1 -O1" "$flags"
[ "${1:-}" = build ] && exit
# A program that links no libstdc++ has none to hand to the sanitizer, which needs it where an exception is thrown.
export LD_PRELOAD="$(gcc -print-file-name=$library) $(gcc -print-file-name=libstdc++.so.6)"
export OMP_NUM_THREADS=1 PATH="$(realpath "$(dirname "${PYTHON:-.venv/bin/python}")"):$PATH"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# torch, OpenMP and OpenMM are not built for it: what they do alone is not ours to mend
export TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1 die_after_fork=0"
[ $# -gt 0 ] && tests=("$@")
"$target/python/bin/python" -m pytest -q -p no:faulthandler "${tests[@]}"
if [ "$kind" = address ] && [ $# -eq 0 ]; then
  (cd benchmarks && "../$target/python/bin/python" fuzz.py --minutes 1 --left "../$target/fuzz")
fi
