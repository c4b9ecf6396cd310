// The neighbour lists on the CPU: read the structure, search, write the rows out in the caller's layout.
#include "instruction_set.h"
#include "neighbors/neighbors.h"
#include "neighbors/search.h"
#include "threads.h"

#include <ATen/Dispatch.h>

namespace equistride {

namespace {

constexpr double WORK_OF_AN_ATOM = 1 << 16; // to find its neighbours, some microsecond

Lattice read_lattice(const Tensor &cell, const Tensor &pbc) {
    const Tensor rows = cell.to(at::kDouble).contiguous(), flags = pbc.contiguous();
    const Lattice lattice = make_lattice(rows.const_data_ptr<double>(), flags.const_data_ptr<bool>());
    check_regular(!lattice.singular, cell);
    return lattice;
}

Bins read_bins(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff) {
    check_structure(positions, cell, pbc, cutoff);
    const Lattice lattice = read_lattice(cell, pbc);
    const Tensor dense = positions.contiguous();
    return AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "neighbors", [&] {
        return Bins(dense.const_data_ptr<scalar_t>(), dense.size(0), lattice, cutoff);
    });
}

bool fits_int32(const Bins &bins) { return !wide_keys() && (bins.atoms << bins.code.bits) < (int64_t(1) << 31) - 1; }

// Shifts as the caller's positions need them: image + wraps of the sender - wraps of the receiver.
template <class Key> void write_shifts(const Bins &bins, const Key *keys, int count, int64_t i, int32_t *shifts) {
    const ImageCode code = bins.code;
    for (int e = 0; e < count; ++e)
        for (int k = 0; k < 3; ++k)
            shifts[3 * e + k] = code.unpack(uint64_t(keys[e]), k);
    if (!bins.wrapped)
        return;
    const int32_t *own = bins.wraps.data() + 3 * i;
    for (int e = 0; e < count; ++e) {
        const int32_t *other = bins.wraps.data() + 3 * int64_t(keys[e] >> code.bits);
        for (int k = 0; k < 3; ++k)
            shifts[3 * e + k] += other[k] - own[k];
    }
}

template <class Key> std::tuple<Tensor, Tensor> list_pairs(const Bins &bins, double cutoff, const Threads &threads) {
    const Found<Key> found(bins, cutoff, threads);
    std::vector<int64_t> first(size_t(bins.atoms) + 1, 0);
    for (size_t i = 0; i < size_t(bins.atoms); ++i)
        first[i + 1] = first[i] + found.count[i];
    const int64_t edges = first.back();
    const Tensor edge_index = at::empty({2, edges}, at::kLong), shifts = at::empty({edges, 3}, at::kInt);
    int64_t *receiver = edge_index.mutable_data_ptr<int64_t>(), *sender = receiver + edges;
    int32_t *shift = shifts.mutable_data_ptr<int32_t>();
    threads.share(0, bins.atoms, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const Key *keys = found.row(i);
            const int count = found.count[size_t(i)];
            const int64_t at = first[size_t(i)];
            std::fill_n(receiver + at, count, i);
            for (int e = 0; e < count; ++e)
                sender[at + e] = keys[e] >> bins.code.bits;
            write_shifts(bins, keys, count, i, shift + 3 * at);
        }
    });
    return {edge_index, shifts};
}

} // namespace

std::tuple<Tensor, Tensor> neighbors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc,
                                         double cutoff) {
    const Bins bins = read_bins(positions, cell, pbc, cutoff);
    const Threads threads(double(bins.atoms) * WORK_OF_AN_ATOM);
    return fits_int32(bins) ? list_pairs<int32_t>(bins, cutoff, threads) : list_pairs<int64_t>(bins, cutoff, threads);
}

PaddedList neighbors_padded_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff,
                                int64_t capacity, int64_t extra) {
    check_padding(capacity, extra);
    const auto [found_index, found_shifts] = neighbors_cpu(positions, cell, pbc, cutoff);
    const int64_t found = found_index.size(1), kept = found <= capacity ? found : 0, atoms = positions.size(0);
    const Tensor edge_index = at::empty({2, capacity}, at::kLong), shifts = at::zeros({capacity, 3}, at::kInt),
                 summary = at::empty({2}, at::kLong);
    edge_index.narrow(1, 0, kept).copy_(found_index.narrow(1, 0, kept));
    shifts.narrow(0, 0, kept).copy_(found_shifts.narrow(0, 0, kept));
    int64_t *receiver = edge_index.mutable_data_ptr<int64_t>(), *sender = receiver + capacity;
    for (int64_t e = kept; e < capacity; ++e) {
        const auto [to, from] = padding_edge(e - kept, capacity - kept, extra);
        receiver[e] = atoms + to;
        sender[e] = atoms + from;
    }
    int64_t *facts = summary.mutable_data_ptr<int64_t>();
    facts[0] = found;
    facts[1] = found <= capacity ? FINE : TOO_MANY_EDGES;
    return {edge_index, shifts, summary};
}

} // namespace equistride
