#include "artifact_evaluator.h"

#include "equistride/units.h"
#include "evaluation/evaluation.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

class ArtifactEvaluator final : public Evaluator {
public:
    ArtifactEvaluator(const EquistrideForce &force, at::Device device, at::ScalarType dtype)
        : model_(force.takeModel()) {
        model_->to(device, dtype);
        std::vector<std::int64_t> indices;
        for (const std::string &element : force.getElements())
            indices.push_back(model_->metadata().species_index(element));
        evaluation_ = std::make_unique<SystemEvaluation>(
            *model_, at::tensor(indices, at::kLong), at::full({3}, force.usesPeriodicBoundaryConditions(), at::kBool));
    }

    Result evaluate(const Request &request) override {
        Coordinates now;
        now.labels = request.labels;
        now.positions = request.positions.to(model_->device()) * units::ANGSTROM_PER_NM;
        now.cell = request.box.defined() ? request.box * units::ANGSTROM_PER_NM : request.box;
        if (request.parameters != system_) { // charge and spin, in the order of force.cpp
            model_->set_system(request.parameters.at(0), request.parameters.at(1));
            system_ = request.parameters;
        }
        const Outputs outputs = evaluation_->compute(now, request.forces);
        Result result;
        result.energy = outputs.atomic_energies.sum(at::kDouble) * units::KJ_MOL_PER_EV;
        if (request.forces)
            result.forces =
                outputs.forces.to(request.positions.options()) * (units::KJ_MOL_PER_EV * units::ANGSTROM_PER_NM);
        return result;
    }

    void check() override { evaluation_->check(); }

private:
    std::unique_ptr<Model> model_;
    std::unique_ptr<SystemEvaluation> evaluation_;
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
