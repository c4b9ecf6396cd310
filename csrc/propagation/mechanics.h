// Newton's equations under a potential, for the guard of a propagator.
#pragma once

#include "evaluation/evaluation.h"
#include "propagation/particles.h"

namespace equistride {

/// The energy of a run's atoms and its forces.
class EQUISTRIDE_API Potential {
public:
    struct Value {
        double energy = 0; ///< eV, of all processes' atoms
        at::Tensor forces; ///< [n, 3] eV/A, float64, where positions are, their sum over all zero; undefined where not
                           ///< asked for
    };

    /// Raises c10::ValueError where the model is no potential. Both must outlive this.
    Potential(Evaluation &evaluation, const Communicator &communicator);

    /// At positions [n, 3] A (float64). Asked again for the same atoms, it does not compute.
    const Value &evaluate(const at::Tensor &positions, const Particles &particles, bool forces);
    /// Calls of the model.
    std::int64_t evaluations() const { return evaluations_; }
    at::ScalarType dtype() const { return evaluation_.model().dtype(); }
    const Communicator &communicator() const { return communicator_; }

private:
    bool knows(const at::Tensor &positions, const at::Tensor &cell, bool forces) const;

    Evaluation &evaluation_;
    const Communicator &communicator_;
    at::Tensor positions_, cell_;
    Value value_;
    std::int64_t evaluations_ = 0;
};

/// Velocity Verlet: `steps` steps over the time `dt` [fs].
EQUISTRIDE_API State velocity_verlet(Potential &potential, const State &before, const Particles &particles, double dt,
                                     std::int64_t steps);

/// One step of the implicit midpoint rule over `dt` [fs], which is symplectic and time-reversible:
/// m = x + dt v / 2 + dt^2 a(m) / 4, x' = 2 m - x, v' = v + dt a(m). The midpoint between `before` and `guess` starts
/// the iteration (Anderson mixing); false where it does not converge.
EQUISTRIDE_API bool implicit_midpoint(Potential &potential, const State &before, State &guess,
                                      const Particles &particles, double dt);

} // namespace equistride
