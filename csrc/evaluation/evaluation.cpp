#include "evaluation/evaluation.h"

#include "gil.h"
#include "matmul_precision.h"
#include "model/checks.h"
#include "neighbors/status.h"
#include "operators.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

namespace equistride {
namespace {

constexpr double ROOM = 0.04;          // of the edges, for which there is room beside them
constexpr std::int64_t MORE_ROOM = 64; // edges
constexpr double SPARE_BOND = 0.75;    // length of edges between spare atoms, in cutoffs: as of true ones

// What the host is told of a step: the columns of report_.
enum StepReport : std::int64_t { SERIAL, EDGES, STATUS, SHORTEST, FASTEST, REPORT_SIZE };

std::tuple<at::Tensor, at::Tensor, at::Tensor> padded_list(const at::Tensor &positions, const at::Tensor &cell,
                                                           const at::Tensor &pbc, double cutoff, std::int64_t capacity,
                                                           std::int64_t extra) {
    static const auto op = find_operator<decltype(padded_list)>("equistride::neighbors_padded");
    return op.call(positions, cell, pbc, cutoff, capacity, extra);
}

at::Tensor lengths(const at::Tensor &vectors) { return at::linalg_vector_norm(vectors, 2, {1}); }

// Whether all outputs are finite, and no stride throws an atom.
at::Tensor sound(const Outputs &outputs, const Metadata &metadata) {
    const double fastest = metadata.contract.limits.fastest_atom;
    if (outputs.displacements.defined() && fastest > 0) { // which no number that is not finite is below
        const at::Tensor mean = outputs.displacements / metadata.stride_fs;
        return lengths(at::cat({mean, outputs.velocities})).max().le(THROWN * fastest);
    }
    std::vector<at::Tensor> sums;
    for (const auto &[key, of_atom, values] : outputs.named())
        if (of_atom)
            sums.push_back(values.sum(at::kDouble));
    return at::stack(sums).sum().isfinite();
}

} // namespace

SystemEvaluation::SystemEvaluation(Model &model, const at::Tensor &species, const at::Tensor &pbc, Lists lists)
    : model_(model), species_(outside_inference(species).to(model.device())),
      pbc_(outside_inference(pbc).to(model.device())), placement_(model, pbc),
      padded_(model.metadata().contract.padded &&
              (lists == Lists::padded || (lists == Lists::automatic && model.device().is_cuda()))),
      angular_(model.metadata().contract.angular_momentum && !pbc.any().item<bool>()) {
    model.check_composition(species_);
}

Outputs SystemEvaluation::compute(const Coordinates &now, bool forces) {
    const c10::InferenceMode no_inference(false); // what is kept here is used in any mode
    const c10::AutoGradMode no_gradients(false);
    failed_before_ = false;
    if (padded_)
        if (const auto outputs = compute_padded(now, forces))
            return *outputs;
    return compute_exactly(now, forces);
}

Outputs SystemEvaluation::compute_exactly(const Coordinates &now, bool forces) {
    Coordinates from = now;
    if (around_.before) { // on the host, where errors are raised
        from.positions = now.positions.cpu();
        from.velocities = around_.before({from.positions, now.velocities.cpu()});
    }
    Frame frame = placement_.place(from, species_);
    find_edges(frame, pbc_, model_.metadata().cutoff);
    Outputs outputs = model_.compute(frame, forces);
    if (around_.after)
        outputs.velocities = around_.after({from.positions + outputs.displacements.cpu(), outputs.velocities.cpu()})
                                 .to(outputs.velocities.device());
    return outputs;
}

void SystemEvaluation::set_around(Around around) {
    wait_for_steps();
    around_ = std::move(around);
    steps_.clear();
}

// None where the step must be done at leisure: lists that are exact say what is wrong.
std::optional<Outputs> SystemEvaluation::compute_padded(const Coordinates &now, bool forces) {
    const GilRelease released;
    const bool rounds = products_may_round();
    if (version_ != model_.version() || rounds_ != rounds) { // what was captured is another model's
        steps_.clear();
        version_ = model_.version();
        rounds_ = rounds;
    }
    for (const auto &[key, step] : steps_)
        if (step)
            step->join();
    upload(now);
    if (capacity_ == 0) { // the first time
        Frame frame = placement_.place(now, species_);
        find_edges(frame, pbc_, model_.metadata().cutoff);
        make_room(frame.edge_index.size(1));
    }
    do {
        if ((!steps_[kind(forces)] && !capture(forces)) || !take_step(forces))
            return std::nullopt;
    } while (!steps_[kind(forces)]); // there was no room for all edges, and now there is
    return outputs_[kind(forces)];
}

bool SystemEvaluation::capture(bool forces) {
    try {
        steps_[kind(forces)] =
            repeat(model_.device(), [this, forces](const auto &ready) { record_step(forces, ready); });
        start_over();
        return true;
    } catch (const c10::Error &error) {
        TORCH_WARN("a step of this model could not be captured (", error.what_without_backtrace(),
                   "); steps are slower without");
        padded_ = false;
        capacity_ = 0;
        steps_.clear();
        outputs_.clear();
        return false;
    }
}

// False where the step was not fine; without the step where there was no room for its edges.
bool SystemEvaluation::take_step(bool forces) {
    CapturedStep &step = *steps_[kind(forces)];
    serial_++;
    try {
        step.run();
    } catch (const c10::Error &) { // of an operator, which on the CPU looks at what it is given
        start_over();
        if (model_.device().is_cuda())
            throw;
        return false;
    }
    step.wait();
    const double *report = host_report_.const_data_ptr<double>();
    if (report[SERIAL] != static_cast<double>(serial_))
        step.finish();
    TORCH_CHECK(report[SERIAL] == static_cast<double>(serial_), "a step was not done; the GPU may have failed");
    if (model_.device().is_cuda())
        check(); // of the step before, which is done now
    const auto status = static_cast<int>(report[STATUS]);
    if (status == TOO_MANY_EDGES) {
        make_room(static_cast<std::int64_t>(report[EDGES]));
        return true;
    }
    const Limits &limits = model_.metadata().contract.limits;
    const bool fine = status == FINE && report[SHORTEST] >= std::max(COINCIDENT, limits.shortest_bond) &&
                      (limits.fastest_atom == 0 || report[FASTEST] < limits.fastest_atom);
    if (!fine)
        start_over();
    else if (model_.device().is_cpu())
        check();
    return fine;
}

void SystemEvaluation::upload(const Coordinates &now) {
    const auto options = at::TensorOptions().device(model_.device()).dtype(at::kDouble);
    const std::int64_t n = species_.size(0);
    TORCH_CHECK_VALUE(now.positions.dim() == 2 && now.positions.size(0) == n && now.positions.size(1) == 3,
                      "positions have the wrong shape; expected [", n, ", 3]; found ", now.positions.sizes());
    const bool moves = !model_.metadata().is_potential();
    TORCH_CHECK_VALUE(!moves || (now.velocities.defined() && now.velocities.sizes() == now.positions.sizes()),
                      "a propagator needs velocities of the shape of the positions");
    if (!positions_.defined()) {
        lattice_ = placement_.lattice(now.cell, n).to(options); // first: it may raise
        inverse_ = Placement::inverse_of(lattice_);
        positions_ = at::empty({n, 3}, options);
        velocities_ = moves ? at::empty({n, 3}, options) : at::Tensor();
        cell_ = at::zeros({3, 3}, options);
        host_cell_ = at::zeros({3, 3}, at::kDouble);
        const auto pinned = at::TensorOptions().dtype(at::kDouble).pinned_memory(model_.device().is_cuda());
        host_report_ = at::zeros({REPORT_SIZE}, pinned);
        host_failed_ = at::zeros({}, pinned);
        report_ = at::zeros({REPORT_SIZE}, options);
        failed_ = at::zeros({}, options);
        if (moves) {
            masses_ = at::tensor(model_.metadata().masses, options).index_select(0, species_).unsqueeze(1);
        }
    }
    positions_.copy_(now.positions, /*non_blocking=*/true);
    if (moves)
        velocities_.copy_(now.velocities, /*non_blocking=*/true);
    if (now.cell.defined() && !at::equal(now.cell, host_cell_)) {
        const at::Tensor rows = placement_.lattice(now.cell, n); // first: of a flat cell nothing is kept
        lattice_.copy_(rows);
        inverse_.copy_(Placement::inverse_of(rows));
        host_cell_.copy_(now.cell);
        cell_.copy_(host_cell_);
    }
}

void SystemEvaluation::make_room(std::int64_t edges) {
    const std::int64_t n = species_.size(0);
    capacity_ = edges + static_cast<std::int64_t>(ROOM * static_cast<double>(edges)) + MORE_ROOM;
    // As many spare atoms as have the neighbours that others have: nobody waits for one with a thousand.
    const std::int64_t degree = std::max<std::int64_t>(edges / std::max<std::int64_t>(n, 1), 8);
    extra_ = std::max<std::int64_t>(2, (capacity_ - edges) / degree / 2 * 2); // even: a ring of two places
    const at::Tensor places = at::arange(extra_, at::kLong).remainder(2).to(at::kDouble).unsqueeze(1);
    const at::Tensor bond = at::tensor({0.48, 0.6, 0.64}, at::kDouble) * (SPARE_BOND * model_.metadata().cutoff);
    spare_positions_ = (places * bond).to(model_.device());
    spare_velocities_ = at::zeros_like(spare_positions_);
    all_species_ = at::cat({species_, at::zeros({extra_}, species_.options())});
    steps_.clear();
}

void SystemEvaluation::record_step(bool forces, const std::function<void()> &ready) {
    const c10::InferenceMode no_inference(false);
    const c10::AutoGradMode no_gradients(false);
    const Metadata &metadata = model_.metadata();
    const bool moves = !metadata.is_potential();
    const at::ScalarType dtype = model_.input_dtype();
    const at::Tensor at = (moves ? positions_ : placement_.near_origin(positions_, lattice_, inverse_)).to(dtype);
    Frame frame;
    frame.cell = cell_.to(dtype);
    frame.species = all_species_;
    const auto [edges, shifts, summary] = padded_list(at, frame.cell, pbc_, metadata.cutoff, capacity_, extra_);
    frame.edge_index = edges;
    frame.shifts = shifts;
    frame.positions = at::cat({at, spare_positions_.to(dtype)});
    State before{positions_, velocities_};
    if (around_.before)
        before.velocities = around_.before(before);
    if (moves)
        frame.velocities = at::cat({before.velocities, spare_velocities_});
    frame.vectors = edge_vectors(frame);
    write_report(frame, before.velocities, summary);
    ready();
    Outputs outputs = model_.compute_unchecked(frame, species_.size(0), forces);
    if (moves)
        end_stride(outputs, before);
    failed_.logical_or_(sound(outputs, metadata).logical_not());
    host_failed_.copy_(failed_, /*non_blocking=*/true);
    outputs_[kind(forces)] = outputs;
}

void SystemEvaluation::write_report(const Frame &frame, const at::Tensor &velocities, const at::Tensor &summary) {
    const at::Tensor shortest = lengths(frame.vectors).min().to(at::kDouble);
    const at::Tensor fastest =
        velocities.defined() && velocities.size(0) > 0 ? lengths(velocities).max() : at::zeros({}, report_.options());
    const at::Tensor counts = summary.to(at::kDouble);
    at::stack_out(report_, {report_[SERIAL] + 1, counts[0], counts[1], shortest, fastest});
    host_report_.copy_(report_, /*non_blocking=*/true);
}

void SystemEvaluation::end_stride(Outputs &outputs, const State &before) const {
    const Stride kept = keep_momenta(before, {outputs.displacements, outputs.velocities}, masses_,
                                     model_.metadata().stride_fs, angular_);
    outputs.displacements = kept.displacements;
    outputs.velocities = kept.velocities;
    if (around_.after)
        outputs.velocities = around_.after({positions_ + outputs.displacements, outputs.velocities});
}

// Forget failures, also of steps that are still under way, and count steps from 0.
void SystemEvaluation::start_over() {
    wait_for_steps();
    for (const at::Tensor *report : {&report_, &failed_, &host_report_, &host_failed_})
        report->zero_();
    serial_ = 0;
}

void SystemEvaluation::finish() {
    failed_before_ = false;
    wait_for_steps();
    check();
}

void SystemEvaluation::wait_for_steps() {
    for (const auto &[key, step] : steps_)
        if (step)
            step->finish();
}

void SystemEvaluation::check() {
    if (!host_failed_.defined() || host_failed_.item<double>() == 0)
        return;
    start_over();
    failed_before_ = true;
    TORCH_CHECK_VALUE(false,
                      "the model gave a number that is not finite or threw an atom; the structure is too far from "
                      "the model's training data, or the model is broken");
}

} // namespace equistride
