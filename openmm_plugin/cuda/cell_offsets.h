// The cells by which OpenMM has moved the atom of each slot into the box, on the device.
#pragma once

#include <openmm/cuda/CudaArray.h>
#include <openmm/cuda/CudaContext.h>

#include <cstring>
#include <vector>

namespace equistride {

class CellOffsets {
public:
    /// With OpenMM's context current, as for the next.
    void initialize(OpenMM::CudaContext &cu) {
        there_.initialize<OpenMM::mm_int4>(cu, static_cast<std::size_t>(cu.getPaddedNumAtoms()), "equistrideCells");
    }
    bool is_initialized() const { return there_.isInitialized(); }

    /// As they are now. Looked at each time: listeners to a reordering hear neither setPositions() nor a barostat that
    /// goes back.
    CUdeviceptr get(OpenMM::CudaContext &cu) {
        const std::vector<OpenMM::mm_int4> &now = cu.getPosCellOffsets();
        const bool same = here_.size() == now.size() &&
                          (now.empty() || std::memcmp(here_.data(), now.data(), now.size() * sizeof(now[0])) == 0);
        if (!same) {
            here_ = now;
            std::vector<OpenMM::mm_int4> padded = now;
            padded.resize(there_.getSize());
            there_.upload(padded);
        }
        return there_.getDevicePointer();
    }

private:
    OpenMM::CudaArray there_;
    std::vector<OpenMM::mm_int4> here_; // what was uploaded
};

} // namespace equistride
