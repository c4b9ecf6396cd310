#include "model/contract_test.h"

#include "model/container.h"
#include "model/declaration.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace equistride {
namespace {

constexpr double SPACING = 0.55; // of a chain's atoms, in cutoffs: each meets its two neighbours alone

/// Largest difference of the first atoms' outputs, as a share of the largest one or of 1.
double difference(const Outputs &some, const Outputs &others) {
    double worst = 0;
    const auto first = some.named(), second = others.named();
    for (std::size_t k = 0; k < first.size(); k++) {
        if (!first[k].of_atom)
            continue;
        const at::Tensor a = first[k].values.to(at::kDouble), b = second[k].values.to(at::kDouble);
        const double scale = std::max(1.0, a.abs().max().item<double>());
        const double found = (b.narrow(0, 0, a.size(0)) - a).abs().max().item<double>() / scale;
        if (!(found <= worst)) // also where it is not a number
            worst = found;
    }
    return worst;
}

Frame joined(const Frame &first, const Frame &second) {
    Frame both = first;
    const std::int64_t atoms = first.species.size(0);
    both.positions = at::cat({first.positions, second.positions});
    if (first.velocities.defined())
        both.velocities = at::cat({first.velocities, second.velocities});
    both.species = at::cat({first.species, second.species});
    both.edge_index = at::cat({first.edge_index, second.edge_index + atoms}, 1);
    both.shifts = at::cat({first.shifts, second.shifts});
    return both;
}

/// Atoms on a line, a little off it, without a box.
Frame chain(const Model &model, std::int64_t count, const at::TensorOptions &real) {
    const Metadata &metadata = model.metadata();
    const at::Tensor number = at::arange(count, real.dtype(at::kDouble));
    Frame frame;
    frame.positions =
        (at::stack({number, 0.05 * (1.7 * number).sin(), 0.05 * (2.3 * number).cos()}, 1) * (SPACING * metadata.cutoff))
            .to(real);
    frame.species =
        at::arange(count, at::kLong).remainder(static_cast<std::int64_t>(metadata.species.size())).to(real.device());
    frame.cell = at::zeros({3, 3}, real);
    if (!metadata.is_potential()) {
        const double speed = metadata.contract.limits.fastest_atom > 0 ? metadata.contract.limits.fastest_atom : 0.01;
        frame.velocities =
            (at::stack({(number + 1).sin(), (number + 2).cos(), (number + 3).sin()}, 1) * (0.2 * speed)).to(real);
    }
    find_edges(frame, at::zeros({3}, at::kBool).to(real.device()), metadata.cutoff);
    return frame;
}

/// How many steps along a chain the first atom's energy, or stride, looks.
int reach_of(Model &model, Container &container, int most) {
    const auto real = at::TensorOptions().device(model.device()).dtype(model.input_dtype());
    const Frame frame = chain(model, most + 1, real);
    const at::Tensor vectors = edge_vectors(frame).to(model.dtype());
    const auto &sender = frame.edge_index[1];
    if (model.metadata().is_potential()) {
        const at::Tensor felt =
            container.energies(vectors, frame.species, frame.edge_index, 1, true).gradient.abs().sum(1) > 0;
        const at::Tensor atoms = sender.masked_select(felt);
        return atoms.numel() ? static_cast<int>(atoms.max().item<std::int64_t>()) : 0;
    }
    const auto first = [&](const at::Tensor &velocities) {
        const Stride stride = container.stride(vectors, velocities, frame.species, frame.edge_index);
        return at::cat({stride.displacements[0], stride.velocities[0]});
    };
    const at::Tensor before = first(frame.velocities);
    for (int atom = most; atom > 0; atom--) {
        at::Tensor other = frame.velocities.clone();
        other[atom] *= -1;
        if (!at::equal(first(other), before))
            return atom;
    }
    return 0;
}

} // namespace

int verify_contract(Model &model, Container &container, Contract &contract, const Frame &frame, double tolerance,
                    const std::string &name) {
    if (!contract.decomposable)
        return 0;
    const std::int64_t atoms = frame.species.size(0);
    const auto real = at::TensorOptions().device(model.device()).dtype(model.input_dtype());
    const Outputs alone = model.compute_unchecked(frame, atoms, true);
    const auto changed_by = [&](const Frame &other) {
        return difference(alone, model.compute_unchecked(joined(frame, other), atoms, true));
    };
    const double spare = contract.padded ? changed_by(chain(model, 2, real)) : 0.0;
    const double second = contract.batched ? changed_by(frame) : 0.0;
    if (model.metadata().format_version == 1 && !(spare <= tolerance && second <= tolerance)) { // it looks at all atoms
        contract.decomposable = contract.padded = contract.batched = false;
        return 0;
    }
    for (const auto &[what, found] :
         {std::pair{"capabilities.padded", spare}, std::pair{"capabilities.batched", second}})
        refuse_unless(found <= tolerance, name, what, c10::str("no: other atoms change outputs by ", found), "yes");
    if (contract.global_sums > 0)
        return 0;
    int length = contract.message_passing_steps + 2, reach = reach_of(model, container, length);
    for (int longer = 0; reach >= length && longer < 5; longer++) // whose end it sees: that is not how far it looks
        reach = reach_of(model, container, length *= 2);          // at last further than metadata may declare
    return reach;
}

} // namespace equistride
