// EquistrideForce on OpenMM's CUDA platform: positions and forces stay on the device.
#pragma once

#include "cuda/cell_offsets.h"
#include "cuda/streams.h"
#include "evaluator.h"
#include "kernel.h"

#include <c10/cuda/CUDAStream.h>
#include <openmm/cuda/CudaArray.h>
#include <openmm/cuda/CudaContext.h>

#include <memory>
#include <optional>
#include <vector>

namespace equistride {

class CudaCalcEquistrideForceKernel final : public CalcEquistrideForceKernel {
public:
    CudaCalcEquistrideForceKernel(const std::string &name, const OpenMM::Platform &platform, OpenMM::CudaContext &cu);
    ~CudaCalcEquistrideForceKernel() override;

    void initialize(OpenMM::ContextImpl &context, const EquistrideForce &force,
                    const std::vector<std::int64_t> &particles) override;
    double execute(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy) override;

private:
    void copy_positions(OpenMM::ContextImpl &context);
    void add_forces(); // with OpenMM's context current

    OpenMM::CudaContext &cu_;
    PrimaryContext primary_;
    Event positions_ready_, torch_done_;
    const EquistrideForce *force_ = nullptr;
    std::vector<std::int64_t> labels_;
    std::unique_ptr<Evaluator> evaluator_;
    std::optional<c10::cuda::CUDAStream> stream_; // torch's side works here
    at::Tensor positions_;                        // [n, 3] double, nm
    at::Tensor forces_;                           // [n, 3] double; kept until OpenMM's stream has read it
    OpenMM::CudaArray order_;                     // row of each atom in the model, -1 for atoms that it does not see
    CellOffsets cell_offsets_;                    // used where the model sees no box
    CUfunction copy_kernel_ = nullptr, add_kernel_ = nullptr;
};

} // namespace equistride
