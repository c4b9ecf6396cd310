// Newton's equations under a potential, for the guard of a propagator.
#pragma once

#include "evaluation/evaluation.h"
#include "model/momenta.h"

#include <memory>

namespace equistride {

/// The atoms of a run; they stay while positions and velocities change.
struct Atoms {
    std::vector<std::string> elements; ///< symbols
    at::Tensor masses;                 ///< [N, 1] amu, float64, CPU
    at::Tensor pbc;                    ///< [3] bool, CPU

    bool open() const;
    bool periodic() const;
};

/// A potential for certain atoms.
class EQUISTRIDE_API Potential {
public:
    struct Value {
        double energy = 0; ///< eV
        at::Tensor forces; ///< [N, 3] eV/A, float64, CPU, their sum zero; undefined where not asked for
    };

    /// Raises c10::ValueError where the model is no potential, does not know an element or needs a box.
    Potential(std::unique_ptr<Model> model, const Atoms &atoms, at::Device device);

    /// At positions [N, 3] A in a cell [3, 3] A (float64, CPU). Asked again for the same atoms, it does not compute.
    const Value &evaluate(const at::Tensor &positions, const at::Tensor &cell, bool forces);
    /// Calls of the model.
    std::int64_t evaluations() const { return evaluations_; }
    at::ScalarType dtype() const { return model_->dtype(); }

private:
    std::unique_ptr<Model> model_;
    std::unique_ptr<SystemEvaluation> evaluation_;
    at::Tensor positions_, cell_;
    Value value_;
    std::int64_t evaluations_ = 0;
};

/// Velocity Verlet: `steps` steps over the time `dt` [fs].
EQUISTRIDE_API State velocity_verlet(Potential &potential, const State &before, const at::Tensor &masses,
                                     const at::Tensor &cell, double dt, std::int64_t steps);

/// One step of the implicit midpoint rule over `dt` [fs], which is symplectic and time-reversible:
/// m = x + dt v / 2 + dt^2 a(m) / 4, x' = 2 m - x, v' = v + dt a(m). The midpoint between `before` and `guess` starts
/// the iteration (Anderson mixing); false where it does not converge.
EQUISTRIDE_API bool implicit_midpoint(Potential &potential, const State &before, State &guess, const at::Tensor &masses,
                                      const at::Tensor &cell, double dt);

} // namespace equistride
