#include "cuda/move_atoms.h"

#include "cuda/kernel_sources.h"
#include "equistride/units.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <openmm/common/ContextSelector.h>

using OpenMM::ContextImpl;
using OpenMM::ContextSelector;
using OpenMM::CudaContext;

namespace equistride {

CudaMoveAtomsKernel::CudaMoveAtomsKernel(const std::string &name, const OpenMM::Platform &platform, CudaContext &cu)
    : MoveAtomsKernel(name, platform), cu_(cu), primary_(cu.getDevice()), read_(cu.getContext()),
      torch_done_(primary_.get()) {}

CudaMoveAtomsKernel::~CudaMoveAtomsKernel() {
    {
        const ContextSelector selector(cu_);
        cuStreamSynchronize(cu_.getCurrentStream()); // nothing reads after_ any more
    }
    try { // what is torch's goes in torch's context
        const CurrentContext torch_side(primary_.get());
        before_ = after_ = State();
    } catch (const std::exception &) { // the GPU is lost
    }
}

at::Device CudaMoveAtomsKernel::device() const {
    return {at::kCUDA, static_cast<c10::DeviceIndex>(cu_.getDeviceIndex())};
}

void CudaMoveAtomsKernel::initialize(ContextImpl &) {
    {
        const CurrentContext torch_side(primary_.get());
        const c10::cuda::CUDAGuard guard(device());
        stream_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device().index());
        const auto options = at::TensorOptions().device(device()).dtype(at::kDouble);
        before_ = {at::zeros({cu_.getNumAtoms(), 3}, options), at::zeros({cu_.getNumAtoms(), 3}, options)};
        check_cuda(cuCtxSynchronize(), "make room for the atoms");
    }
    const ContextSelector selector(cu_);
    cell_offsets_.initialize(cu_);
    CUmodule module = cu_.createModule(KERNEL_SOURCES, std::map<std::string, std::string>());
    read_kernel_ = cu_.getKernel(module, "readAtoms");
    write_kernel_ = cu_.getKernel(module, "writeAtoms");
}

void CudaMoveAtomsKernel::move(ContextImpl &context, const std::function<void(State &)> &change) {
    {
        const ContextSelector selector(cu_);
        run(context, read_kernel_, before_);
        read_.record(cu_.getCurrentStream());
    }
    {
        const CurrentContext torch_side(primary_.get());
        const c10::cuda::CUDAStreamGuard guard(*stream_);
        read_.delay(stream_->stream());
        State state = before_;
        change(state);
        // OpenMM's stream wrote the old ones before it read these: their memory is free now.
        after_ = {state.positions.contiguous(), state.velocities.contiguous()};
        torch_done_.record(stream_->stream());
    }
    const ContextSelector selector(cu_);
    torch_done_.delay(cu_.getCurrentStream());
    run(context, write_kernel_, after_);
    cu_.reorderAtoms();
}

void CudaMoveAtomsKernel::run(ContextImpl &context, CUfunction kernel, const State &state) {
    OpenMM::Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    double3 rows[3];
    for (int k = 0; k < 3; k++)
        rows[k] = make_double3(box[k][0], box[k][1], box[k][2]);
    CUdeviceptr correction = cu_.getUseMixedPrecision() ? cu_.getPosqCorrection().getDevicePointer() : 0;
    CUdeviceptr offsets = cell_offsets_.get(cu_);
    auto *positions = state.positions.mutable_data_ptr<double>();
    auto *velocities = state.velocities.mutable_data_ptr<double>();
    int count = cu_.getNumAtoms();
    double length = units::ANGSTROM_PER_NM, speed = units::ANGSTROM_PER_NM / units::FS_PER_PS;
    void *arguments[] = {&positions,
                         &velocities,
                         &cu_.getPosq().getDevicePointer(),
                         &correction,
                         &cu_.getVelm().getDevicePointer(),
                         &cu_.getAtomIndexArray().getDevicePointer(),
                         &offsets,
                         &count,
                         &rows[0],
                         &rows[1],
                         &rows[2],
                         &length,
                         &speed};
    cu_.executeKernel(kernel, arguments, count);
}

} // namespace equistride
