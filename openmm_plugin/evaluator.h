// Energy and forces of a model in OpenMM's units, for any device: what the platforms share.
#pragma once

#include "export.h"
#include "force.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace OpenMM {
class ContextImpl;
} // namespace OpenMM

namespace equistride {

struct Request {
    at::Tensor positions;           ///< [n, 3] nm, float32 or float64, on the evaluator's device
    at::Tensor box;                 ///< [3, 3] nm, vectors as rows, on the CPU; undefined where there is no box
    std::vector<double> parameters; ///< one value a global parameter of the force
    bool forces = true;             ///< false where only the energy is wanted
    const std::vector<std::int64_t> *labels = nullptr; ///< indices in the System, for messages
};

/// What a Context asks now, but for the positions.
/// @param labels  indices in the System of the particles that the model sees; they must outlive the request
Request request_of(OpenMM::ContextImpl &context, const EquistrideForce &force, const std::vector<std::int64_t> &labels,
                   bool forces);

struct Result {
    at::Tensor energy;               ///< 0-dimensional, float64, kJ/mol
    at::Tensor forces;               ///< [n, 3] kJ/mol/nm; undefined where not wanted
    std::vector<double> derivatives; ///< d energy / d parameter, one a requested derivative
};

class Evaluator {
public:
    virtual ~Evaluator() = default;
    virtual Result evaluate(const Request &request) = 0;
    /// Raise c10::ValueError where results so far were not finite: for a caller that has waited for the device.
    virtual void check() {}
};

/// @param particles  number of particles that the model sees
/// @param precision  what `auto` means for a plain module (an artifact has its own)
std::unique_ptr<Evaluator> make_evaluator(const EquistrideForce &force, std::int64_t particles, at::Device device,
                                          at::ScalarType precision);

/// Raises c10::ValueError where the file is no TorchScript module with a forward method.
void check_torchforce_module(const std::shared_ptr<const std::string> &bytes, const std::string &name);

/// The device of a name; `automatic` is what `auto` means. Raises c10::Error for a device that is not there.
at::Device choose_device(const std::string &name, at::Device automatic);

} // namespace equistride
