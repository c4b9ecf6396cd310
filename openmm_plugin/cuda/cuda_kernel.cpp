#include "cuda/cuda_kernel.h"

#include "cuda/kernel_sources.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <openmm/System.h>
#include <openmm/common/ContextSelector.h>

using OpenMM::ContextImpl;
using OpenMM::ContextSelector;
using OpenMM::CudaContext;
using OpenMM::OpenMMException;
using OpenMM::Vec3;

namespace equistride {

CudaCalcEquistrideForceKernel::CudaCalcEquistrideForceKernel(const std::string &name, const OpenMM::Platform &platform,
                                                             CudaContext &cu)
    : CalcEquistrideForceKernel(name, platform), cu_(cu), primary_(cu.getDevice()), positions_ready_(cu.getContext()),
      torch_done_(primary_.get()) {}

CudaCalcEquistrideForceKernel::~CudaCalcEquistrideForceKernel() {
    {
        const ContextSelector selector(cu_);
        cuStreamSynchronize(cu_.getCurrentStream()); // nothing reads forces_ any more
    }
    try { // what is torch's goes in torch's context
        const CurrentContext torch_side(primary_.get());
        evaluator_.reset();
        forces_ = positions_ = at::Tensor();
    } catch (const std::exception &) { // the GPU is lost
    }
}

void CudaCalcEquistrideForceKernel::initialize(ContextImpl &context, const EquistrideForce &force,
                                               const std::vector<std::int64_t> &particles) {
    if (cu_.getNumContexts() > 1)
        throw OpenMMException("an EquistrideForce runs on one GPU; expected one device in DeviceIndex; found " +
                              std::to_string(cu_.getNumContexts()));
    force_ = &force;
    labels_ = particles;
    const auto n = static_cast<std::int64_t>(labels_.size());
    {
        const CurrentContext torch_side(primary_.get());
        const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(cu_.getDeviceIndex()));
        const c10::cuda::CUDAGuard guard(device);
        stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index());
        const at::ScalarType precision = cu_.getUseDoublePrecision() ? at::kDouble : at::kFloat;
        evaluator_ = make_evaluator(force, n, choose_device(force.getProperties().at("device"), device), precision);
        positions_ = at::zeros({n, 3}, at::TensorOptions().device(device).dtype(at::kDouble));
        check_cuda(cuCtxSynchronize(), "wait for the model to be copied");
    }
    for (int i = 0; i < force.getNumEnergyParameterDerivatives(); i++)
        cu_.addEnergyParameterDerivative(force.getEnergyParameterDerivativeName(i));
    std::vector<int> order(static_cast<std::size_t>(context.getSystem().getNumParticles()), -1);
    for (std::int64_t row = 0; row < n; row++)
        order[static_cast<std::size_t>(labels_[static_cast<std::size_t>(row)])] = static_cast<int>(row);
    const ContextSelector selector(cu_);
    order_.initialize<int>(cu_, order.size(), "equistrideOrder");
    order_.upload(order);
    if (!force.usesPeriodicBoundaryConditions())
        cell_offsets_.initialize(cu_);
    CUmodule module = cu_.createModule(KERNEL_SOURCES, std::map<std::string, std::string>());
    copy_kernel_ = cu_.getKernel(module, "copyPositions");
    add_kernel_ = cu_.getKernel(module, "addForces");
}

double CudaCalcEquistrideForceKernel::execute(ContextImpl &context, bool includeForces, bool includeEnergy) {
    copy_positions(context);
    double energy = 0;
    {
        const CurrentContext torch_side(primary_.get());
        const c10::cuda::CUDAStreamGuard guard(*stream_);
        positions_ready_.delay(stream_->stream());
        Request request = request_of(context, *force_, labels_, includeForces);
        request.positions = positions_;
        const Result result = evaluator_->evaluate(request);
        // OpenMM's stream read the old forces before it wrote these positions: their memory is free now.
        forces_ = includeForces ? result.forces.to(positions_.options()).contiguous() : at::Tensor();
        torch_done_.record(stream_->stream());
        if (includeEnergy) {
            energy = result.energy.item<double>();
            evaluator_->check();
        }
        for (std::size_t i = 0; i < result.derivatives.size(); i++)
            cu_.getEnergyParamDerivWorkspace()[force_->getEnergyParameterDerivativeName(static_cast<int>(i))] +=
                result.derivatives[i];
    }
    const ContextSelector selector(cu_);
    // Also without forces: OpenMM's next positions must not overtake the model that still reads these.
    torch_done_.delay(cu_.getCurrentStream());
    if (includeForces)
        add_forces();
    return energy;
}

void CudaCalcEquistrideForceKernel::copy_positions(ContextImpl &context) {
    const ContextSelector selector(cu_);
    CUdeviceptr correction = cu_.getUseMixedPrecision() ? cu_.getPosqCorrection().getDevicePointer() : 0;
    CUdeviceptr offsets = cell_offsets_.is_initialized() ? cell_offsets_.get(cu_) : 0;
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    double3 rows[3];
    for (int k = 0; k < 3; k++)
        rows[k] = make_double3(box[k][0], box[k][1], box[k][2]);
    auto *target = positions_.mutable_data_ptr<double>();
    int count = cu_.getNumAtoms();
    void *arguments[] = {&target,
                         &cu_.getPosq().getDevicePointer(),
                         &correction,
                         &cu_.getAtomIndexArray().getDevicePointer(),
                         &order_.getDevicePointer(),
                         &offsets,
                         &count,
                         &rows[0],
                         &rows[1],
                         &rows[2]};
    cu_.executeKernel(copy_kernel_, arguments, count);
    positions_ready_.record(cu_.getCurrentStream());
}

void CudaCalcEquistrideForceKernel::add_forces() {
    const auto *source = forces_.const_data_ptr<double>();
    int count = cu_.getNumAtoms(), padded = cu_.getPaddedNumAtoms();
    void *arguments[] = {&source,
                         &cu_.getForce().getDevicePointer(),
                         &cu_.getAtomIndexArray().getDevicePointer(),
                         &order_.getDevicePointer(),
                         &count,
                         &padded};
    cu_.executeKernel(add_kernel_, arguments, count);
}

} // namespace equistride
