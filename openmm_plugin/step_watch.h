// What a force looks at beside its model, on platforms whose arrays are the host's: the state before each step, which
// an error brings back, and bounds beyond which a run is no longer believed.
#pragma once

#include "export.h"

#include <ATen/core/Tensor.h>
#include <openmm/Vec3.h>
#include <openmm/internal/ContextImpl.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace equistride {

/// Bounds of a run; 0 for none.
struct Bounds {
    double force = 0;       ///< eV/A, on one atom
    double temperature = 0; ///< K, of the particles that the model sees
    double distance = 0;    ///< A, between two of them
    bool stops = true;      ///< else a broken bound is told once
    std::string frame;      ///< file for the frame that broke, extended XYZ; empty for none

    /// From the properties of a force, which are texts. Raises c10::ValueError for what is no number, 0 or more.
    explicit Bounds(const std::map<std::string, std::string> &properties);
};

class StepWatch {
public:
    /// `particles`: those that the model sees; `elements`: their symbols, or empty.
    StepWatch(Bounds bounds, std::vector<std::int64_t> particles, std::vector<std::string> elements, bool periodic);

    /// At the beginning of a step: keep the state, and raise c10::ValueError for velocities that are not finite or too
    /// fast for the bound, before anything has moved.
    void begin(OpenMM::ContextImpl &context);
    /// At what the model was given and gave: raises c10::ValueError where a bound is broken.
    /// @param positions  [n, 3] nm, of the particles that the model sees
    /// @param box        [3, 3] nm, undefined where there is none
    /// @param forces     kJ/mol/nm, of all particles
    void look(const at::Tensor &positions, const at::Tensor &box, const std::vector<OpenMM::Vec3> &forces);
    /// After an error with this sentence: save the frame, bring the state of the step's beginning back, and return the
    /// sentence with where the frame is.
    std::string undo(OpenMM::ContextImpl &context, const std::string &sentence);

private:
    void broken(const char *bound, const std::string &sentence);
    void check_distance(const at::Tensor &positions, const at::Tensor &box);
    std::string save(OpenMM::ContextImpl &context, const std::string &sentence) const;

    Bounds bounds_;
    std::vector<std::int64_t> particles_;
    std::vector<std::string> elements_;
    bool periodic_;
    std::set<std::string> told_;
    long long step_ = -1; // whose beginning is kept
    std::vector<OpenMM::Vec3> positions_, velocities_;
    OpenMM::Vec3 box_[3];
};

} // namespace equistride
