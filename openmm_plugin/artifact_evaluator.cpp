#include "artifact_evaluator.h"

#include "equistride/units.h"
#include "model/checks.h"
#include "model/model.h"
#include "model/placement.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

class ArtifactEvaluator final : public Evaluator {
public:
    ArtifactEvaluator(const EquistrideForce &force, at::Device device, at::ScalarType dtype)
        : model_(Model::from_bytes(force.getModel(), force.getFile(), /*verify=*/false)) {
        model_->to(device, dtype);
        std::vector<std::int64_t> indices;
        for (const std::string &element : force.getElements())
            indices.push_back(model_->metadata().species_index(element));
        species_ = at::tensor(indices, at::kLong).to(device);
        pbc_ = at::full({3}, force.usesPeriodicBoundaryConditions(), at::kBool).to(device);
    }

    Result evaluate(const Request &request) override {
        Frame frame;
        frame.labels = request.labels;
        frame.species = species_;
        frame.positions = request.positions.to(model_->device()) * units::ANGSTROM_PER_NM;
        check_positions(frame);
        const at::Tensor box = request.box.defined() ? request.box * units::ANGSTROM_PER_NM : request.box;
        place(frame, frame.positions, box, box.defined(), *model_);
        find_edges(frame, pbc_, model_->metadata().cutoff);
        if (request.parameters != system_) { // charge and spin, in the order of force.cpp
            model_->set_system(request.parameters.at(0), request.parameters.at(1));
            system_ = request.parameters;
        }
        const Outputs outputs = model_->compute(frame, request.forces);
        Result result;
        result.energy = outputs.atomic_energies.sum(at::kDouble) * units::KJ_MOL_PER_EV;
        if (request.forces)
            result.forces =
                outputs.forces.to(request.positions.options()) * (units::KJ_MOL_PER_EV * units::ANGSTROM_PER_NM);
        return result;
    }

private:
    std::unique_ptr<Model> model_;
    at::Tensor species_, pbc_;
    std::vector<double> system_;
};

} // namespace

std::unique_ptr<Evaluator> make_artifact_evaluator(const EquistrideForce &force, std::int64_t particles,
                                                   at::Device device, at::ScalarType dtype) {
    const Metadata &metadata = force.getMetadata();
    TORCH_CHECK_VALUE(static_cast<std::int64_t>(force.getElements().size()) == particles,
                      "the number of elements of the force is wrong; expected ", particles, ", one a particle; found ",
                      force.getElements().size(), "; call setElements()");
    TORCH_CHECK_VALUE(!metadata.requires_box || force.usesPeriodicBoundaryConditions(),
                      "the model was trained on periodic systems alone, and this force has no box; give the topology "
                      "its box vectors and call setUsesPeriodicBoundaryConditions(True)");
    return std::make_unique<ArtifactEvaluator>(force, device, dtype);
}

} // namespace equistride
