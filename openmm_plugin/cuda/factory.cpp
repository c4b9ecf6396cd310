// The plugin library for OpenMM's CUDA platform: it adds its kernels.
#include "cuda/cuda_kernel.h"
#include "cuda/move_atoms.h"
#include "export.h"

#include <openmm/KernelFactory.h>
#include <openmm/Platform.h>
#include <openmm/cuda/CudaPlatform.h>

namespace equistride {
namespace {

class CudaKernelFactory final : public OpenMM::KernelFactory {
public:
    OpenMM::KernelImpl *createKernelImpl(std::string name, const OpenMM::Platform &platform,
                                         OpenMM::ContextImpl &context) const override {
        auto &data = *static_cast<OpenMM::CudaPlatform::PlatformData *>(context.getPlatformData());
        if (name == CalcEquistrideForceKernel::Name())
            return new CudaCalcEquistrideForceKernel(name, platform, *data.contexts[0]);
        if (name == MoveAtomsKernel::Name())
            return new CudaMoveAtomsKernel(name, platform, *data.contexts[0]);
        throw OpenMM::OpenMMException("there is no CUDA kernel '" + name + "' in equistride");
    }
};

} // namespace
} // namespace equistride

extern "C" EQUISTRIDE_OPENMM_API void registerPlatforms() {}

extern "C" EQUISTRIDE_OPENMM_API void registerKernelFactories() {
    for (int i = 0; i < OpenMM::Platform::getNumPlatforms(); i++) {
        OpenMM::Platform &platform = OpenMM::Platform::getPlatform(i);
        if (platform.getName() == "CUDA")
            for (const std::string &name :
                 {equistride::CalcEquistrideForceKernel::Name(), equistride::MoveAtomsKernel::Name()})
                platform.registerKernelFactory(name, new equistride::CudaKernelFactory);
    }
}
