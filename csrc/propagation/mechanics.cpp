#include "propagation/mechanics.h"

#include "equistride/units.h"

#include <ATen/ATen.h>

#include <deque>

namespace equistride {
namespace {

at::Tensor acceleration(const at::Tensor &forces, const at::Tensor &masses) {
    return forces * (units::ACCELERATION / masses);
}

// Anderson mixing of a fixed-point iteration (Walker and Ni 2011).
class Anderson {
public:
    /// The next point, after `x` with the residual `f` = g(x) - x.
    at::Tensor next(const at::Tensor &x, const at::Tensor &f) {
        at::Tensor step = f;
        if (x_.defined()) {
            moves_.push_back((x - x_).flatten());
            changes_.push_back((f - f_).flatten());
            if (moves_.size() > DEPTH) {
                moves_.pop_front();
                changes_.pop_front();
            }
            const at::Tensor dx = at::stack(std::vector(moves_.begin(), moves_.end()), 1);
            const at::Tensor df = at::stack(std::vector(changes_.begin(), changes_.end()), 1);
            const at::Tensor gamma = std::get<0>(at::linalg_lstsq(df, f.flatten().unsqueeze(1)));
            step = f - (dx + df).matmul(gamma).view_as(f);
        }
        x_ = x;
        f_ = f;
        return x + step;
    }

private:
    static constexpr std::size_t DEPTH = 8;
    std::deque<at::Tensor> moves_, changes_;
    at::Tensor x_, f_;
};

} // namespace

bool Atoms::open() const { return !pbc.any().item<bool>(); }
bool Atoms::periodic() const { return pbc.all().item<bool>(); }

Potential::Potential(std::unique_ptr<Model> model, const Atoms &atoms, at::Device device) : model_(std::move(model)) {
    const Metadata &metadata = model_->metadata();
    TORCH_CHECK_VALUE(metadata.kind == "potential", "a guard needs the energy of a potential; found a ", metadata.kind,
                      "; give it the artifact of a potential of the same system");
    TORCH_CHECK_VALUE(!metadata.requires_box || atoms.periodic(),
                      "the guard's potential was trained on periodic systems alone, and this one has no box");
    std::vector<std::int64_t> species;
    for (const std::string &element : atoms.elements)
        species.push_back(metadata.species_index(element));
    model_->to(device, model_->dtype());
    evaluation_ = std::make_unique<SystemEvaluation>(*model_, at::tensor(species, at::kLong), atoms.pbc);
}

const Potential::Value &Potential::evaluate(const at::Tensor &positions, const at::Tensor &cell, bool forces) {
    const bool enough = value_.forces.defined() || !forces;
    if (enough && positions_.defined() && at::equal(positions_, positions) && at::equal(cell_, cell))
        return value_;
    positions_ = at::Tensor(); // an evaluation that fails leaves none
    Coordinates now;
    now.positions = positions;
    now.cell = cell;
    const Outputs outputs = evaluation_->compute(now, forces);
    evaluations_++;
    value_.energy = outputs.atomic_energies.sum(at::kDouble).item<double>();
    value_.forces = at::Tensor();
    if (forces) { // in a float32 model their sum is not quite zero, and the momentum would wander
        const at::Tensor all = outputs.forces.to(at::kCPU, at::kDouble);
        value_.forces = all - all.mean(0, /*keepdim=*/true);
    }
    evaluation_->check();
    positions_ = positions.clone();
    cell_ = cell.clone();
    return value_;
}

State velocity_verlet(Potential &potential, const State &before, const at::Tensor &masses, const at::Tensor &cell,
                      double dt, std::int64_t steps) {
    const double h = dt / static_cast<double>(steps);
    State now = before;
    at::Tensor a = acceleration(potential.evaluate(now.positions, cell, true).forces, masses);
    for (std::int64_t k = 0; k < steps; k++) {
        now.velocities = now.velocities + 0.5 * h * a;
        now.positions = now.positions + h * now.velocities;
        a = acceleration(potential.evaluate(now.positions, cell, true).forces, masses);
        now.velocities = now.velocities + 0.5 * h * a;
    }
    return now;
}

bool implicit_midpoint(Potential &potential, const State &before, State &guess, const at::Tensor &masses,
                       const at::Tensor &cell, double dt) {
    constexpr int MOST = 50;
    // A; a float32 model's forces have six digits, of a midpoint that lies 0.1 A off the straight line
    const double tolerance = potential.dtype() == at::kDouble ? 1e-10 : 1e-6;
    const at::Tensor straight = before.positions + 0.5 * dt * before.velocities;
    at::Tensor middle = 0.5 * (before.positions + guess.positions);
    Anderson mixing;
    for (int k = 0; k < MOST; k++) {
        const at::Tensor a = acceleration(potential.evaluate(middle, cell, true).forces, masses);
        const at::Tensor residual = straight + 0.25 * dt * dt * a - middle;
        if (residual.abs().max().item<double>() < tolerance) {
            guess.positions = before.positions + dt * (before.velocities + 0.5 * dt * a);
            guess.velocities = before.velocities + dt * a;
            return true;
        }
        middle = mixing.next(middle, residual);
    }
    return false;
}

} // namespace equistride
