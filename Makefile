# `make demo` and `make test` set up all they need: a virtual environment, the dependencies, the build.
# Variables: PYTHON (which Python), TORCH (which torch pip installs where none is there), VENV (where).
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check --quiet
NATIVE := CMakeLists.txt VERSION $(wildcard models/quartz-*/*.pt) $(wildcard cmake/*.cmake csrc/*.* csrc/*/*.* openmm_plugin/*.* openmm_plugin/*/*.* lammps_plugin/*.*)
# threads that spin while they wait cost more than they gain on a shared machine
export OMP_WAIT_POLICY ?= passive

.PHONY: all demo test slow lint docs format faults fuzz sanitize coverage soak audit compatibility clean gpu-wheel
all: $(VENV)/.built

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.dependencies: pyproject.toml $(VENV)/.python
	$(PIP) install "$(TORCH)"
	$(PIP) install 'scikit-build-core>=0.11' 'pybind11>=2.13' 'swig>=4.4' 'openmm>=8.6.1,<8.7' 'lammps[mpi]==2025.7.22.4.0' numpy ninja cmake
	touch $@

$(VENV)/.built: $(VENV)/.dependencies $(NATIVE) python/equistride/units.py
	$(PIP) install --no-build-isolation --editable '.[train,test]'
	touch $@

# weights of others that tests read; the packages themselves are not imported
$(VENV)/.weights: $(VENV)/.built
	$(PIP) install --no-deps 'sevenn==0.13.0'
	touch $@

$(VENV)/.lint: $(VENV)/.built
	$(PIP) install --no-build-isolation --editable '.[train,test,dev,docs]'
	touch $@

# quartz in OpenMM under the released potential, then in strides of the released propagator, with a report of both in demo/
demo: $(VENV)/.built
	$(RUN)/equistride demo --model models/quartz-esen/quartz-esen.pt \
	  --propagator models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt --output demo

test: $(VENV)/.weights
	$(RUN)/python -m pytest

# physics that takes minutes
slow: $(VENV)/.weights
	$(RUN)/python -m pytest -m slow

# damage, full disks, kills: the table of docs/trust.md, some 5,000 trials
faults: $(VENV)/.built
	$(RUN)/python benchmarks/faults.py --write docs/trust.md

# an hour of changed bytes for the readers of native code
fuzz: $(VENV)/.built
	$(RUN)/python benchmarks/fuzz.py --minutes 60

# operators, model and plugins with AddressSanitizer and UBSan in one build, ThreadSanitizer in another; the tests of native code with each
sanitize: $(VENV)/.built
	for kind in address thread; do PYTHON=$(RUN)/python benchmarks/sanitize.sh $$kind || exit 1; done

# lines of engines, artifact and operators that their tests run, Python and C++
coverage: $(VENV)/.weights
	$(PIP) install 'coverage>=7.10' 'gcovr>=8'
	PYTHON=$(RUN)/python benchmarks/coverage.sh native

# known holes of the packages that are installed, where the list of them can be reached
audit: $(VENV)/.weights
	$(PIP) install pip-audit
	$(RUN)/pip-audit --local --skip-editable

# hours: memory and speed over 200,000 steps, 20,000 strides, 500 Contexts and four threads
soak: $(VENV)/.built
	$(RUN)/python benchmarks/soak.py

# each Python and torch that are there
compatibility:
	benchmarks/compatibility.sh

lint: $(VENV)/.lint
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/python -m mypy
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --quiet
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs $(RUN)/clang-format --dry-run --Werror

# the site, in build/site/index.html
docs: $(VENV)/.lint
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --quiet

format: $(VENV)/.lint
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs $(RUN)/clang-format -i

# a wheel for GPUs, on a host with nvcc and without a GPU: in an environment of its own, whose torch brings CUDA (3 GB);
# TORCH=torch==2.11.0 for a host that has that one
GPU_VENV ?= .gpu-venv
gpu-wheel:
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip --disable-pip-version-check --quiet install "$(TORCH)" 'scikit-build-core>=0.11' 'pybind11>=2.13' \
	  'swig>=4.4' 'openmm[cuda13]>=8.6.1,<8.7' 'lammps[mpi]==2025.7.22.4.0' numpy ninja cmake
	PATH="$(abspath $(GPU_VENV))/bin:$$PATH" $(GPU_VENV)/bin/python -m pip --disable-pip-version-check wheel --no-build-isolation --no-deps \
	  --config-settings=cmake.define.EQUISTRIDE_CUDA=ON --wheel-dir dist .

clean:
	rm -rf $(VENV) build demo
