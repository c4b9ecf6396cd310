// Strides on OpenMM's CUDA platform: positions and velocities stay on the device.
#pragma once

#include "cuda/cell_offsets.h"
#include "cuda/streams.h"
#include "kernel.h"

#include <c10/cuda/CUDAStream.h>
#include <openmm/cuda/CudaContext.h>

#include <optional>

namespace equistride {

class CudaMoveAtomsKernel final : public MoveAtomsKernel {
public:
    CudaMoveAtomsKernel(const std::string &name, const OpenMM::Platform &platform, OpenMM::CudaContext &cu);
    ~CudaMoveAtomsKernel() override;

    void initialize(OpenMM::ContextImpl &context) override;
    at::Device device() const override;
    void move(OpenMM::ContextImpl &context, const std::function<void(State &)> &change) override;

private:
    void run(OpenMM::ContextImpl &context, CUfunction kernel, const State &state); // with OpenMM's context current

    OpenMM::CudaContext &cu_;
    PrimaryContext primary_;
    Event read_, torch_done_;
    std::optional<c10::cuda::CUDAStream> stream_; // torch's side works here
    State before_, after_;                        // [N, 3] double; kept until OpenMM's stream has used them
    CellOffsets cell_offsets_;
    CUfunction read_kernel_ = nullptr, write_kernel_ = nullptr;
};

} // namespace equistride
