// A model on one system, evaluated at every step of a simulation.
#pragma once

#include "evaluation/captured_step.h"
#include "evaluation/placement.h"
#include "model/momenta.h"

#include <map>
#include <optional>
#include <utility>

namespace equistride {

/// A model on the atoms of a run, wherever they are.
class EQUISTRIDE_API Evaluation {
public:
    virtual ~Evaluation() = default;

    virtual Model &model() const = 0;
    /// Outputs of this process's atoms; a propagator's keep the momenta of all. Raises as Model::compute() does; that
    /// outputs are not finite is raised by check() or the next call where the device was not waited for.
    /// @param forces  whether a potential's forces are wanted
    virtual Outputs compute(const Coordinates &now, bool forces = true) = 0;
    /// Raise c10::ValueError where outputs so far were not finite. For a caller that has waited for the device.
    virtual void check() {}
};

/// All atoms of a system on one process: places them, finds their neighbours and calls the model.
///
/// On the CPU, lists are as long as they must be. On a GPU everything has a fixed size: a list has room for some edges
/// more, which lie between atoms that nothing else sees, so that a whole step is captured once and replayed. While the
/// network works, the host reads how many edges there are and whether positions are fine. Where they are not, or the
/// room does not suffice, the step is done again at leisure; so no list is ever cut short and every error names its
/// atom.
class EQUISTRIDE_API SystemEvaluation final : public Evaluation {
public:
    enum class Lists { automatic, exact, padded };

    /// @param model    on the device where it will run; it must outlive this
    /// @param species  [N] int64, index into the model's species
    /// @param pbc      bool [3]
    /// @param lists    `automatic` pads on a GPU
    SystemEvaluation(Model &model, const at::Tensor &species, const at::Tensor &pbc, Lists lists = Lists::automatic);

    /// What is done to the velocities before and after a propagator's stride, and belongs to its step.
    struct Around {
        /// New velocities of a state, on its device, without waiting for it; empty for none.
        std::function<at::Tensor(const State &)> before, after;
    };
    void set_around(Around around);
    /// Lists of a fixed size from now on, where the model takes them; as on a GPU.
    void pad() { padded_ = model_.metadata().contract.padded; }

    Model &model() const override { return model_; }
    /// The outputs on the model's device; on a GPU they may still be under way, and the next call overwrites them.
    Outputs compute(const Coordinates &now, bool forces = true) override;
    void check() override;
    /// Wait for the device, then check().
    void finish();

    /// Whether the last call raised because of a step before it, whose outputs its caller has.
    bool failed() const { return failed_before_; }

    /// Room for edges; 0 where lists are not padded.
    std::int64_t capacity() const { return capacity_; }

private:
    Outputs compute_exactly(const Coordinates &now, bool forces);
    std::optional<Outputs> compute_padded(const Coordinates &now, bool forces);
    bool capture(bool forces);
    bool take_step(bool forces);
    void upload(const Coordinates &now);
    void make_room(std::int64_t edges);
    void record_step(bool forces, const std::function<void()> &ready);
    void write_report(const Frame &frame, const at::Tensor &velocities, const at::Tensor &summary);
    void end_stride(Outputs &outputs, const State &before) const;
    void start_over();
    void wait_for_steps();

    Model &model_;
    at::Tensor species_, pbc_;
    Placement placement_;
    Around around_;
    bool padded_, angular_ = false; // whether a stride keeps angular momentum
    std::int64_t version_ = -1;     // of the model, for which the steps are,
    bool rounds_ = false;           // and whether its products are rounded
    std::int64_t capacity_ = 0, extra_ = 0;
    at::Tensor positions_, velocities_, cell_, lattice_, inverse_, host_cell_; // float64
    at::Tensor all_species_, spare_positions_, spare_velocities_, masses_;
    std::int64_t serial_ = 0; // of the last step
    bool failed_before_ = false;
    at::Tensor report_, failed_, host_report_, host_failed_;
    using Kind = std::pair<bool, double>; // whether with forces; the stride
    Kind kind(bool forces) const { return {forces, model_.metadata().stride_fs}; }
    std::map<Kind, std::unique_ptr<CapturedStep>> steps_;
    std::map<Kind, Outputs> outputs_;
};

} // namespace equistride
