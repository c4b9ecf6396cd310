#include "propagation/mechanics.h"

#include "equistride/units.h"

#include <ATen/ATen.h>

#include <deque>

namespace equistride {
namespace {

at::Tensor acceleration(const at::Tensor &forces, const at::Tensor &masses) {
    return forces * (units::ACCELERATION / masses);
}

double largest_of(const at::Tensor &values, const Communicator &communicator) {
    return communicator.largest(values.numel() ? values.abs().max().item<double>() : 0.0);
}

// The least squares of a x = b [k, m], [k, 1], whose rows all processes share: their triangles say all that matters of
// them, and are the same on each.
at::Tensor least_squares(const at::Tensor &a, const at::Tensor &b, const Communicator &communicator) {
    const std::int64_t m = a.size(1);
    const at::Tensor triangle = std::get<1>(at::linalg_qr(at::cat({a, b}, 1), "r"));
    at::Tensor blocks = at::zeros({communicator.size(), m + 1, m + 1}, a.options());
    blocks[communicator.rank()].narrow(0, 0, triangle.size(0)).copy_(triangle);
    blocks = communicator.sum(blocks).flatten(0, 1);
    return std::get<0>(at::linalg_lstsq(blocks.narrow(1, 0, m), blocks.narrow(1, m, 1)));
}

// Anderson mixing of a fixed-point iteration (Walker and Ni 2011).
class Anderson {
public:
    explicit Anderson(const Communicator &communicator) : communicator_(communicator) {}

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
            step = f - (dx + df).matmul(least_squares(df, f.flatten().unsqueeze(1), communicator_)).view_as(f);
        }
        x_ = x;
        f_ = f;
        return x + step;
    }

private:
    static constexpr std::size_t DEPTH = 8;
    const Communicator &communicator_;
    std::deque<at::Tensor> moves_, changes_;
    at::Tensor x_, f_;
};

} // namespace

Potential::Potential(Evaluation &evaluation, const Communicator &communicator)
    : evaluation_(evaluation), communicator_(communicator) {
    const std::string &kind = evaluation.model().metadata().kind;
    TORCH_CHECK_VALUE(kind == "potential", "a guard needs the energy of a potential; found a ", kind,
                      "; give it the artifact of a potential of the same system");
}

bool Potential::knows(const at::Tensor &positions, const at::Tensor &cell, bool forces) const {
    const bool here = (value_.forces.defined() || !forces) && positions_.defined() &&
                      at::equal(positions_, positions) && at::equal(cell_, cell);
    return communicator_.largest(here ? 0 : 1) == 0;
}

const Potential::Value &Potential::evaluate(const at::Tensor &positions, const Particles &particles, bool forces) {
    if (knows(positions, particles.cell, forces))
        return value_;
    positions_ = at::Tensor(); // an evaluation that fails leaves none
    const Outputs outputs = evaluation_.compute({positions, at::Tensor(), particles.cell, particles.labels}, forces);
    evaluations_++;
    value_.energy = communicator_.sum(outputs.atomic_energies.sum(at::kDouble).item<double>());
    value_.forces = at::Tensor();
    if (forces) { // in a float32 model their sum is not quite zero, and the momentum would wander
        const at::Tensor own = outputs.forces.to(positions.options());
        value_.forces = own - communicator_.sum(own.sum(0, /*keepdim=*/true)) / static_cast<double>(particles.count);
    }
    evaluation_.check();
    positions_ = positions.clone();
    cell_ = particles.cell.clone();
    return value_;
}

State velocity_verlet(Potential &potential, const State &before, const Particles &particles, double dt,
                      std::int64_t steps) {
    const double h = dt / static_cast<double>(steps);
    State now = before;
    at::Tensor a = acceleration(potential.evaluate(now.positions, particles, true).forces, particles.masses);
    for (std::int64_t k = 0; k < steps; k++) {
        now.velocities = now.velocities + 0.5 * h * a;
        now.positions = now.positions + h * now.velocities;
        a = acceleration(potential.evaluate(now.positions, particles, true).forces, particles.masses);
        now.velocities = now.velocities + 0.5 * h * a;
    }
    return now;
}

bool implicit_midpoint(Potential &potential, const State &before, State &guess, const Particles &particles, double dt) {
    constexpr int MOST = 50;
    // A; a float32 model's forces have six digits, of a midpoint that lies 0.1 A off the straight line
    const double tolerance = potential.dtype() == at::kDouble ? 1e-10 : 1e-6;
    const at::Tensor straight = before.positions + 0.5 * dt * before.velocities;
    at::Tensor middle = 0.5 * (before.positions + guess.positions);
    Anderson mixing(potential.communicator());
    for (int k = 0; k < MOST; k++) {
        const at::Tensor a = acceleration(potential.evaluate(middle, particles, true).forces, particles.masses);
        const at::Tensor residual = straight + 0.25 * dt * dt * a - middle;
        if (largest_of(residual, potential.communicator()) < tolerance) {
            guess.positions = before.positions + dt * (before.velocities + 0.5 * dt * a);
            guess.velocities = before.velocities + dt * a;
            return true;
        }
        middle = mixing.next(middle, residual);
    }
    return false;
}

} // namespace equistride
