// How a model is stored: the network alone, behind one interface. Frames come checked, placed and in the model's
// precision; what is around the network (edge vectors, forces, virial, momenta, limits) is the Model's.
#pragma once

#include "artifact/content.h"
#include "artifact/metadata.h"
#include "model/frame.h"
#include "model/momenta.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

namespace equistride {

/// What torch's own products in a network take an edge, for Threads: one with a weight matrix of mean size, and another
/// in its company.
template <class Tensors> double work_of_an_edge(const Tensors &weights) {
    std::int64_t numbers = 0, matrices = 0;
    for (const at::Tensor &tensor : weights)
        if (tensor.dim() >= 2) {
            numbers += tensor.numel();
            matrices++;
        }
    return 4.0 * static_cast<double>(numbers) / static_cast<double>(std::max<std::int64_t>(matrices, 1));
}

class Container {
public:
    struct Energies {
        at::Tensor atomic;   ///< [N] eV, float64
        at::Tensor gradient; ///< [E, 3] eV/A, of the sum of the energies of the first atoms; undefined if not wanted
    };
    virtual ~Container() = default;

    virtual void to(at::Device device, at::ScalarType dtype) = 0;
    virtual void set_system(double charge, double spin) = 0;
    /// Which of a propagator's strides is made from now on; called where there are several.
    virtual void set_stride(std::size_t index) = 0;

    /// Of decomposable potentials, from edge vectors [E, 3]: the energies, and the gradient to the vectors of the sum
    /// over the first `count` atoms.
    virtual Energies energies(const at::Tensor &vectors, const at::Tensor &species, const at::Tensor &edge_index,
                              std::int64_t count, bool gradient) = 0;
    /// Of decomposable propagators; momenta are not yet kept.
    virtual Stride stride(const at::Tensor &vectors, const at::Tensor &velocities, const at::Tensor &species,
                          const at::Tensor &edge_index) = 0;
    /// Of any other model.
    virtual Outputs whole(const Frame &frame) = 0;
    /// Of ensembles: [N] eV/A.
    virtual at::Tensor uncertainty(const Frame &frame) = 0;
};

/// Load a container and hold it against its metadata, which for a file of format 1 are completed. Raises
/// c10::ValueError.
std::unique_ptr<Container> load_torchscript(const Content &content, Metadata &metadata, const std::string &name);
std::unique_ptr<Container> load_aoti(const Content &content, Metadata &metadata, const std::string &name);

} // namespace equistride
