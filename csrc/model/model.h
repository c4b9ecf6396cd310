// The engine-facing interface of a trained model. No engine knows how a model is stored.
// Units: angstrom, eV, fs, amu. Shapes and signs as in the README of csrc/model.
#pragma once

#include "artifact/metadata.h"
#include "model/communicator.h"
#include "model/exchange.h"
#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace equistride {

/// One configuration. Floating tensors have the model's input_dtype(), all tensors its device.
struct Frame {
    at::Tensor positions;  ///< [N, 3] A
    at::Tensor velocities; ///< [N, 3] A/fs, propagators only
    at::Tensor species;    ///< [N] int64, index into Metadata::species
    at::Tensor cell;       ///< [3, 3] A, lattice vectors as rows, zeros where there is no box
    at::Tensor edge_index; ///< [2, E] int64, row 0 receiver i, row 1 sender j, sorted by i
    at::Tensor shifts;     ///< [E, 3] int32, r_ij = r_j - r_i + shifts @ cell
    /// The engine's own numbers of the atoms, for messages; null where they are 0, 1, ...
    const std::vector<std::int64_t> *labels = nullptr;
};

struct Outputs {
    at::Tensor atomic_energies; ///< [N] eV, potentials
    at::Tensor forces;          ///< [N, 3] eV/A, potentials
    at::Tensor virial;          ///< [3, 3] eV, -sum r_ij (x) f_ij, potentials
    at::Tensor displacements;   ///< [N, 3] A, propagators
    at::Tensor velocities;      ///< [N, 3] A/fs, propagators
};

/// What a model says of the first atoms of a frame, those that the caller owns; float64 on the CPU.
struct PartOutputs {
    at::Tensor atomic_energies; ///< [owned] eV, potentials
    at::Tensor vectors;         ///< [E, 3] A, r_ij
    at::Tensor gradient; ///< [E, 3] eV/A, potentials where wanted: derivative of the owned atoms' energy to r_ij; with
                         ///< an exchange, of the energy of all processes' atoms
    at::Tensor displacements; ///< [owned, 3] A, propagators: as the network gives them, momentum not yet kept
    at::Tensor velocities;    ///< [owned, 3] A/fs, propagators: likewise
};

class EQUISTRIDE_API Model {
public:
    virtual ~Model() = default;

    /// Load an artifact, pick the container by its content, and run its reference frame.
    /// Raises c10::ValueError with a sentence where the file is truncated, is something else, is newer than this
    /// build, or does not reproduce its reference outputs. `verify = false` skips the last (bytes seen before).
    static std::unique_ptr<Model> load(const std::string &path, bool verify = true);
    static std::unique_ptr<Model> from_bytes(std::shared_ptr<const std::string> bytes, const std::string &name,
                                             bool verify = true);

    const Metadata &metadata() const { return metadata_; }
    at::Device device() const { return device_; }
    at::ScalarType dtype() const { return dtype_; }
    /// A propagator takes double precision, whatever its network's: it keeps momenta to that.
    at::ScalarType input_dtype() const { return metadata_.kind == "propagator" ? at::kDouble : dtype_; }
    virtual void to(at::Device device, at::ScalarType dtype) = 0;

    /// Set total charge [e] and spin multiplicity (0: not given) of the frames to come, for models that know them.
    /// Raises c10::ValueError where the model does not, or a number is not whole or out of range.
    void set_system(double charge, double spin);

    /// Evaluate one frame. Raises c10::ValueError that names the atom for positions that are not finite, for atoms
    /// on top of each other, for outputs that are not finite and for strides that throw atoms.
    /// @param forces  whether a potential's forces and virial are wanted; energies alone are cheaper
    Outputs compute(const Frame &frame, bool forces = true);
    /// The same also where a stride throws atoms, as it may on a self-test's frame, which is far from any training
    /// data.
    Outputs compute_anywhere(const Frame &frame, bool forces = true);

    /// Whether compute_part() is there: the model's energies come from edge vectors, and forces are their gradient.
    virtual bool supports_domain_decomposition() const { return false; }
    /// How often the network asks for its neighbours' features anew (`equistride::exchange`); 0 where it never does.
    virtual int exchanges() const { return 0; }
    /// Evaluate the first `owned` atoms of a frame; the others complete their local. Tensors of the frame are in
    /// double precision on the CPU. Every process must call it, also one without atoms, where there is an `exchange`.
    /// Raises as compute() does; where `communicator` has them all, a c10::ValueError is raised on all or on none.
    /// @param forces  whether a potential's gradient is wanted; energies alone are cheaper
    PartOutputs compute_part(const Frame &frame, std::int64_t owned, Exchange *exchange, bool forces = true,
                             const Communicator &communicator = Communicator::self());

    /// Whether run_padded() is there, as on a GPU it must be for a step to be captured.
    virtual bool supports_padding() const { return false; }
    /// Counts what changes results of the same frame: to() and set_system().
    std::int64_t version() const { return version_; }

    /// Whether uncertainty() is there: the model is an ensemble.
    virtual bool has_uncertainty() const { return false; }
    /// How far the members of an ensemble disagree about the force on each atom [N] eV/A, float64 on the CPU.
    virtual at::Tensor uncertainty(const Frame &frame);

protected:
    friend class SystemEvaluation;

    /// What a network takes; 0 where it takes everything.
    struct Limits {
        double shortest = 0; ///< A, of bonds
        double fastest = 0;  ///< A/fs, of atoms
    };

    explicit Model(Metadata metadata);
    /// May give forces and virial where they are not wanted.
    virtual Outputs run(const Frame &frame, bool forces) = 0;
    /// May give a gradient where it is not wanted.
    virtual PartOutputs run_part(const Frame &frame, std::int64_t owned, bool forces);
    /// The first `real` atoms of a frame whose others are padding, without edges between the two. Checks nothing, so
    /// that nothing waits for a GPU: the caller looks at limits(). A propagator's momenta are as the network gives
    /// them.
    virtual Outputs run_padded(const Frame &frame, std::int64_t real, bool forces);
    virtual Limits limits() const { return {}; }
    /// A propagator's outputs of run_padded() with its momenta kept.
    virtual Outputs keep_momenta(const Frame &frame, const Outputs &outputs);
    virtual void apply_system(double charge, double spin);

    Metadata metadata_;
    at::Device device_ = at::kCPU;
    at::ScalarType dtype_ = at::kDouble;
    std::int64_t version_ = 0;
};

/// Fill edge_index and shifts with `equistride::neighbors`; `pbc` is a bool tensor of three.
EQUISTRIDE_API void find_edges(Frame &frame, const at::Tensor &pbc, double cutoff);

/// A caller in torch.inference_mode() hands over tensors that autograd refuses and that cannot be kept: a copy of such.
at::Tensor outside_inference(const at::Tensor &tensor);

/// r_ij [E, 3] A of a frame's edges, in the precision of its positions.
at::Tensor edge_vectors(const Frame &frame);

} // namespace equistride
