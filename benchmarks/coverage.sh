#!/usr/bin/env bash
# Which lines of engines, artifact and operators the tests of these rooms run.
# usage: benchmarks/coverage.sh [python|native [TESTS...]]; `native` builds with gcov in a folder of its own, and counts both
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-python}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- tests/ops tests/artifact tests/engines
python=${PYTHON:-.venv/bin/python} run=$python
if [ "$kind" = native ]; then
  benchmarks/instrumented.sh build/coverage "--coverage -fprofile-update=atomic -O1" --coverage
  run=build/coverage/python/bin/python
  find build/coverage -name '*.gcda' -delete
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" PATH="$(realpath "$(dirname "$python")"):$PATH"
status=0
"$run" -m coverage run -m pytest -q "$@" || status=$?
"$run" -m coverage combine --quiet
"$run" -m coverage report
if [ "$kind" = native ]; then
  "$run" -m gcovr --root . --filter csrc/ --filter openmm_plugin/ --filter lammps_plugin/ --exclude-throw-branches \
    --gcov-ignore-parse-errors=all build/coverage
fi
exit $status
