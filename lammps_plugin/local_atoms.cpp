#include "local_atoms.h"

#include "evaluation/box.h"
#include "host.h"

#include "atom.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace equistride::lammps {

void LocalAtoms::take(const LAMMPS_NS::Atom &atoms, const std::vector<std::int64_t> &species, Ghosts ghosts,
                      Order order, int outside) {
    atom.clear();
    owned = 0;
    for (int i = 0; i < atoms.nlocal + (ghosts == Ghosts::local ? 0 : atoms.nghost); i++)
        if (species[static_cast<std::size_t>(atoms.type[i])] >= 0 && !(atoms.mask[i] & outside)) {
            atom.push_back(i);
            owned += i < atoms.nlocal;
        }
    if (order == Order::by_id)
        std::sort(atom.begin(), atom.begin() + owned, [&](int i, int j) { return atoms.tag[i] < atoms.tag[j]; });
    frame.positions = at::empty({rows(), 3}, at::kDouble);
    frame.species = at::empty({rows()}, at::kLong);
    labels.resize(atom.size());
    double *x = frame.positions.mutable_data_ptr<double>();
    auto *kind = frame.species.mutable_data_ptr<std::int64_t>();
    for (std::size_t row = 0; row < atom.size(); row++) {
        const int i = atom[row];
        for (int k = 0; k < 3; k++)
            x[3 * row + k] = atoms.x[i][k];
        kind[row] = species[static_cast<std::size_t>(atoms.type[i])];
        labels[row] = atoms.tag ? static_cast<std::int64_t>(atoms.tag[i]) : i;
    }
    frame.labels = &labels;
}

// Keep what the owned atoms' energies depend on: receivers within message_passing_steps - 1 edges of them, senders
// within message_passing_steps.
void LocalAtoms::prune(int message_passing_steps) {
    const std::int64_t n = rows(), count = frame.edge_index.size(1);
    const at::Tensor edges = frame.edge_index.contiguous();
    const auto *receiver = edges.const_data_ptr<std::int64_t>(), *sender = receiver + count;
    std::vector<std::int64_t> start(static_cast<std::size_t>(n + 1), 0);
    for (std::int64_t e = 0; e < count; e++)
        start[static_cast<std::size_t>(receiver[e] + 1)]++;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); i++)
        start[i + 1] += start[i];
    std::vector<int> level(static_cast<std::size_t>(n), -1);
    std::vector<std::int64_t> shell, next;
    for (std::int64_t i = 0; i < owned; i++) {
        level[static_cast<std::size_t>(i)] = 0;
        shell.push_back(i);
    }
    for (int hop = 1; hop <= message_passing_steps; hop++, shell.swap(next)) {
        next.clear();
        for (const std::int64_t i : shell)
            for (std::int64_t e = start[static_cast<std::size_t>(i)]; e < start[static_cast<std::size_t>(i) + 1]; e++)
                if (int &reached = level[static_cast<std::size_t>(sender[e])]; reached < 0) {
                    reached = hop;
                    next.push_back(sender[e]);
                }
    }
    std::vector<std::int64_t> place(static_cast<std::size_t>(n), -1), kept, ends, froms;
    for (std::int64_t i = 0; i < n; i++)
        if (level[static_cast<std::size_t>(i)] >= 0) {
            place[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(kept.size());
            kept.push_back(i);
        }
    for (const std::int64_t i : kept)
        if (level[static_cast<std::size_t>(i)] < message_passing_steps)
            for (std::int64_t e = start[static_cast<std::size_t>(i)]; e < start[static_cast<std::size_t>(i) + 1]; e++) {
                ends.push_back(place[static_cast<std::size_t>(i)]);
                froms.push_back(place[static_cast<std::size_t>(sender[e])]);
            }
    const at::Tensor rows_kept = at::tensor(kept, at::kLong);
    frame.positions = frame.positions.index_select(0, rows_kept);
    frame.species = frame.species.index_select(0, rows_kept);
    frame.edge_index = at::stack({at::tensor(ends, at::kLong), at::tensor(froms, at::kLong)});
    frame.shifts = at::zeros({frame.edge_index.size(1), 3}, at::kInt);
    for (std::size_t row = 0; row < kept.size(); row++) {
        atom[row] = atom[static_cast<std::size_t>(kept[row])];
        labels[row] = labels[static_cast<std::size_t>(kept[row])];
    }
    atom.resize(kept.size());
    labels.resize(kept.size());
}

void LocalAtoms::connect(const LAMMPS_NS::Domain &domain, const at::Tensor &cell, const Metadata &metadata,
                         const GhostPolicy &policy) {
    const bool local = policy.kind == Ghosts::local;
    check_box(cell, owned, metadata);
    frame.cell = local ? cell : at::zeros({3, 3}, at::kDouble);
    find_edges(frame, local ? periodicity_of(domain) : at::zeros({3}, at::kBool), metadata.cutoff);
    if (!local)
        prune(policy.steps);
}

} // namespace equistride::lammps
