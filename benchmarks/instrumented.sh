#!/usr/bin/env bash
# Build equistride with more flags of the compiler in a folder of its own, and a Python there that finds this build first;
# all else it has from the Python that builds. usage: benchmarks/instrumented.sh FOLDER "FLAGS" ["LINKER'S FLAGS"]
# ROOMS="csrc/artifact csrc/neighbors/search.cpp" has these alone compiled so: a full build takes some 25 minutes of a processor.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$PWD/$1 flags=${2// /;} link=$3
python=${PYTHON:-.venv/bin/python}
rooms=()
[ -z "${ROOMS:-}" ] || rooms=(--config-settings=cmake.define.EQUISTRIDE_ROOMS="${ROOMS// /;}")
mkdir -p "$target"
"$python" -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps --target "$target/site" --upgrade . \
  --config-settings=build-dir="$target" --config-settings=install.strip=false \
  --config-settings=cmake.define.CMAKE_PROJECT_INCLUDE="$PWD/cmake/Instrumented.cmake" "${rooms[@]}" \
  --config-settings=cmake.define.EQUISTRIDE_INSTRUMENT="$flags" \
  --config-settings=cmake.define.CMAKE_SHARED_LINKER_FLAGS="$link" \
  --config-settings=cmake.define.CMAKE_MODULE_LINKER_FLAGS="$link"
# An editable installation is found before PYTHONPATH is looked at, so that a Python without it is needed.
[ -e "$target/python/bin/python" ] || "$python" -m venv --without-pip "$target/python"
packages=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
printf '%s\n' "$target/site" "$packages" >"$(echo "$target"/python/lib/python*/site-packages)/instrumented.pth"
found=$(cd / && "$target/python/bin/python" -c "import importlib.util as u; print(u.find_spec('equistride').origin)")
[ "$found" = "$target/site/equistride/__init__.py" ] || { echo "the tests would run $found"; exit 1; }
