# docker build -f packaging/cuda.Dockerfile -t equistride:cuda .        # no GPU is needed to build
# docker run --rm --gpus all -v "$PWD":/data equistride:cuda doctor --need gpu
# The CUDA of the toolkit must be that of torch: 13 for torch 2.13 as PyPI has it.
ARG CUDA=13.0.1
ARG TORCH=2.13.0

FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build
ARG TORCH
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-dev python3-venv g++ && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /env
ENV PATH=/env/bin:$PATH
RUN pip install --no-cache-dir "torch==${TORCH}" \
 && pip install --no-cache-dir 'scikit-build-core>=0.11' 'pybind11>=2.13' 'swig>=4.4' 'openmm[cuda13]>=8.6.1,<8.7' 'lammps[mpi]==2025.7.22.4.0' numpy ninja cmake
COPY . /source
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --config-settings=cmake.define.EQUISTRIDE_CUDA=ON --wheel-dir /wheels /source

FROM ubuntu:24.04
ARG TORCH
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* && python3 -m venv /env
ENV PATH=/env/bin:$PATH
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "torch==${TORCH}" 'openmm[cuda13]>=8.6.1,<8.7' \
 && pip install --no-cache-dir "$(ls /wheels/*.whl)[lammps,train,properties,report]" && rm -rf /wheels
WORKDIR /data
ENTRYPOINT ["equistride"]
CMD ["--help"]
