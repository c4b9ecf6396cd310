#include "model/self_test.h"

#include "artifact/json.h"
#include "model/contract_test.h"
#include "model/declaration.h"
#include "neighbors/lattice.h"

#include <ATen/ATen.h>

#include <cmath>

namespace equistride {
namespace {

// What a self-test may ask for. A frame that `save` writes has 27 atoms and some 1,300 edges at most.
constexpr std::int64_t MOST_ATOMS = 1000, MOST_EDGES = 100'000;
constexpr double MOST_PAIRS = 1e7; // of atoms and their images among which edges are looked for

class Reference {
public:
    Reference(const std::string &text, std::string name)
        : where_("reference.json of " + std::move(name)), document_(json::parse(text, where_)) {}

    const json::Value &need(const std::string &key) const { return member(document_.object(where_), key); }
    const json::Value *output(const json::Value &outputs, const std::string &key) const {
        const json::Object &all = outputs.object(where_);
        const auto it = all.find(key);
        return it == all.end() ? nullptr : &it->second;
    }
    const std::string &where() const { return where_; }

    at::Tensor tensor(const json::Value &value, at::IntArrayRef shape) const {
        const std::vector<double> numbers = value.numbers(where_);
        const std::int64_t count = c10::multiply_integers(shape);
        TORCH_CHECK_VALUE(static_cast<std::int64_t>(numbers.size()) == count, where_,
                          " has a list of the wrong length; expected ", count, "; found ", numbers.size(),
                          "; export the model again");
        return at::tensor(numbers, at::kDouble).reshape(shape);
    }

    at::Tensor species(const Metadata &metadata) const {
        std::vector<std::int64_t> indices;
        for (const json::Value &item : need("species").array(where_))
            indices.push_back(item.is_string() ? metadata.species_index(item.string(where_)) : item.integer(where_));
        for (const std::int64_t index : indices)
            TORCH_CHECK_VALUE(index >= 0 && index < static_cast<std::int64_t>(metadata.species.size()), where_,
                              " has a species out of range; expected less than ", metadata.species.size(), "; found ",
                              index, "; export the model again");
        return at::tensor(indices, at::kLong);
    }

private:
    const json::Value &member(const json::Object &object, const std::string &key) const {
        const auto it = object.find(key);
        TORCH_CHECK_VALUE(it != object.end(), where_, " lacks '", key, "'; export the model again");
        return it->second;
    }

    std::string where_;
    json::Value document_;
};

/// What differs by more than the tolerance; empty where nothing does.
std::string compare(const Outputs &outputs, const Reference &reference, const json::Value &all, double tolerance) {
    int compared = 0;
    for (const auto &[key, of_atom, value] : outputs.named()) {
        const json::Value *stored = reference.output(all, key);
        if (!stored)
            continue;
        const at::Tensor expected = reference.tensor(*stored, value.sizes());
        const double scale = std::max(1.0, expected.numel() ? expected.abs().max().item<double>() : 0.0);
        const double error =
            expected.numel() ? (value.to(at::kCPU, at::kDouble) - expected).abs().max().item<double>() : 0.0;
        if (!(error <= tolerance * scale))
            return c10::str(key, " differ; expected at most ", tolerance * scale, "; found ", error);
        compared++;
    }
    TORCH_CHECK_VALUE(compared > 0, reference.where(), " has no outputs to compare with; export the model again");
    return {};
}

/// The same for each of several strides; the model keeps the one that it has.
std::string compare_strides(Model &model, const Frame &frame, const Reference &reference, double tolerance) {
    const Metadata &metadata = model.metadata();
    const json::Array &all = reference.need("outputs_of_strides").array(reference.where());
    TORCH_CHECK_VALUE(all.size() == metadata.strides_fs.size(), reference.where(), " has outputs of ", all.size(),
                      " strides; expected ", metadata.strides_fs.size(), "; export the model again");
    const double begins = metadata.stride_fs;
    std::string difference;
    for (std::size_t k = 0; k < all.size() && difference.empty(); k++) {
        model.set_stride(metadata.strides_fs[k]);
        difference = compare(model.compute_anywhere(frame), reference, all[k], tolerance);
        if (!difference.empty())
            difference = c10::str("at ", metadata.stride_fs, " fs ", difference);
    }
    model.set_stride(begins);
    return difference;
}

/// Pairs of atoms and their images that may be within the cutoff.
double pairs_within(const Frame &frame, const at::Tensor &pbc, double cutoff) {
    const at::Tensor cell = frame.cell.to(at::kCPU, at::kDouble).contiguous();
    const Lattice lattice = make_lattice(cell.const_data_ptr<double>(), pbc.const_data_ptr<bool>());
    double pairs = std::pow(static_cast<double>(frame.species.size(0)), 2);
    for (int k = 0; k < 3; k++)
        if (lattice.periodic[k] && lattice.height[k] > 0) // of a flat cell the search says so
            pairs *= 2 * std::ceil(cutoff / lattice.height[k]) + 1;
    return pairs;
}

} // namespace

void verify_reference(Model &model, const std::string &reference_json, const std::string &name) {
    TORCH_CHECK_VALUE(!reference_json.empty(), name,
                      " has no reference frame (reference.json), so it cannot be tested; export the model again");
    const Reference reference(reference_json, name);
    const auto options = at::TensorOptions().device(model.device()).dtype(model.input_dtype());
    Frame frame;
    frame.species = reference.species(model.metadata()).to(model.device());
    const std::int64_t n = frame.species.size(0);
    const auto bounded = [&](const char *what, double found, double most) {
        TORCH_CHECK_VALUE(found <= most, reference.where(), " asks for too much: ", what, "; expected at most ", most,
                          "; found ", found, "; export the model again with a smaller frame, or mend its cutoff");
    };
    bounded("atoms", static_cast<double>(n), MOST_ATOMS);
    frame.positions = reference.tensor(reference.need("positions"), {n, 3}).to(options);
    frame.cell = reference.tensor(reference.need("cell"), {3, 3}).to(options);
    if (!model.metadata().is_potential())
        frame.velocities = reference.tensor(reference.need("velocities"), {n, 3}).to(options);
    std::vector<bool> axes;
    for (const json::Value &axis : reference.need("pbc").array(reference.where()))
        axes.push_back(axis.boolean(reference.where()));
    TORCH_CHECK_VALUE(axes.size() == 3, reference.where(), " needs three values of pbc; found ", axes.size());
    at::Tensor pbc = at::empty({3}, at::kBool);
    for (int k = 0; k < 3; k++)
        pbc[k] = static_cast<bool>(axes[k]);
    const double cutoff = model.metadata().cutoff;
    bounded("pairs of atoms and images", pairs_within(frame, pbc, cutoff), MOST_PAIRS);
    find_edges(frame, pbc.to(model.device()), cutoff);
    bounded("edges", static_cast<double>(frame.edge_index.size(1)), MOST_EDGES);

    const double tolerance = reference.need("tolerance").number(reference.where());
    std::string difference = compare(model.compute_anywhere(frame), reference, reference.need("outputs"), tolerance);
    if (difference.empty() && model.metadata().strides_fs.size() > 1)
        difference = compare_strides(model, frame, reference, tolerance);
    Contract &contract = model.metadata_.contract;
    if (!difference.empty() && model.metadata_.format_version == 1 && contract.decomposable) {
        // a module may have the methods, and still give other forces than the gradient
        contract.decomposable = contract.padded = contract.batched = contract.angular_momentum = false;
        verify_reference(model, reference_json, name);
        return;
    }
    TORCH_CHECK_VALUE(difference.empty(), name, " does not reproduce its reference frame: ", difference,
                      "; the file or this torch is broken: export the model again");

    const int reach = verify_contract(model, *model.container_, contract, frame, tolerance, name);
    if (model.metadata_.format_version == 1 && reach > contract.message_passing_steps) { // older files count too few
        contract.message_passing_steps = reach;
        model.metadata_.range = reach * model.metadata_.cutoff;
    }
    refuse_unless(reach <= contract.message_passing_steps, name, "message_passing_steps", c10::str(reach, " or more"),
                  std::to_string(contract.message_passing_steps));
}

} // namespace equistride
