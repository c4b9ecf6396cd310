// The engine-facing interface of a trained model. No engine knows how a model is stored.
#pragma once

#include "artifact/content.h"
#include "artifact/metadata.h"
#include "model/communicator.h"
#include "model/exchange.h"
#include "model/frame.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace equistride {

class Container;
struct ArchiveInfo;

class EQUISTRIDE_API Model {
public:
    /// Load an artifact, pick the container by its content, hold the metadata against the module, and run the
    /// self-test. Raises c10::ValueError with a sentence where the file is truncated, is something else, is newer than
    /// this build, declares what is not so, or does not reproduce its reference outputs. `verify = false` skips the
    /// self-test (bytes seen before).
    static std::unique_ptr<Model> load(const std::string &path, bool verify = true);
    static std::unique_ptr<Model> from_content(const Content &content, const std::string &name, bool verify = true);
    /// The same of bytes that were inspected already.
    static std::unique_ptr<Model> from_archive(Content content, const ArchiveInfo &info, const std::string &name,
                                               bool verify = true);
    Model(std::unique_ptr<Container> container, Metadata metadata);
    ~Model();

    /// What the model says of itself, with the charge and spin that are set; engines ask its contract what the model
    /// can do.
    const Metadata &metadata() const { return metadata_; }
    at::Device device() const { return device_; }
    at::ScalarType dtype() const { return dtype_; }
    /// Double precision, whatever the network's, but for a potential that takes the positions themselves: edge vectors
    /// are rounded, not what they come from, and a propagator's momenta are kept.
    at::ScalarType input_dtype() const {
        return metadata_.is_potential() && !metadata_.contract.decomposable ? dtype_ : at::kDouble;
    }
    void to(at::Device device, at::ScalarType dtype);

    /// Set total charge [e] and spin multiplicity (0: not given) of the frames to come, for models that take them.
    /// Raises c10::ValueError where the model does not, or a number is not whole or out of range.
    void set_system(double charge, double spin);
    /// Make this stride [fs] of a propagator from now on: metadata().stride_fs. Raises c10::ValueError where the model
    /// was not trained for it.
    void set_stride(double stride_fs);

    /// Evaluate one frame. Raises c10::ValueError that names the atom for positions that are not finite, for atoms
    /// on top of each other or beyond the model's limits, for outputs that are not finite and for strides that throw
    /// atoms. That the model holds for these atoms is for the caller to see, once a system: check_composition().
    /// @param forces  whether a potential's forces and virial are wanted; energies alone are cheaper
    Outputs compute(const Frame &frame, bool forces = true);
    /// The same also where a stride throws atoms, as it may on a self-test's frame, which is far from any training
    /// data.
    Outputs compute_anywhere(const Frame &frame, bool forces = true);
    /// Evaluate the first `owned` atoms of a frame, for decomposable models; the others complete their surroundings.
    /// Tensors of the frame are in double precision on the CPU. Every process must call it, also one without atoms,
    /// where there is an `exchange`. Raises as compute() does.
    /// @param gradient      whether a potential's gradient is wanted
    /// @param communicator  of the processes, all of which raise what one of them finds
    PartOutputs compute_part(const Frame &frame, std::int64_t owned, Exchange *exchange, bool gradient = true,
                             const Communicator &communicator = Communicator::self());
    /// The first `real` atoms of a frame whose others are padding, without edges between the two. Nothing is checked,
    /// so that nothing waits for a GPU, and a propagator's momenta are as the network gives them.
    Outputs compute_unchecked(const Frame &frame, std::int64_t real, bool forces);
    /// Energies [N] eV of decomposable potentials from edge vectors [E, 3], and the gradient [E, 3] of their sum.
    /// Nothing is checked.
    std::pair<at::Tensor, at::Tensor> compute_edges(const at::Tensor &vectors, const at::Tensor &species,
                                                    const at::Tensor &edge_index);
    /// How far the members of an ensemble disagree about the force on each atom [N] eV/A, float64 on the CPU.
    at::Tensor uncertainty(const Frame &frame);

    /// Raises c10::ValueError where the model holds for another composition than that of these atoms [N].
    void check_composition(const at::Tensor &species) const;
    /// Counts what changes results of the same frame: to() and set_system(), but not set_stride().
    std::int64_t version() const { return version_; }

private:
    friend void verify_reference(Model &model, const std::string &reference_json, const std::string &name);

    std::unique_ptr<Container> container_;
    Metadata metadata_;
    at::Device device_ = at::kCPU;
    at::ScalarType dtype_ = at::kDouble;
    std::int64_t version_ = 0;
};

} // namespace equistride
