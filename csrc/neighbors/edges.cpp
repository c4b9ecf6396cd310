// Edge vectors and their gradient on the CPU.
#include "neighbors/neighbors.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <algorithm>
#include <vector>

namespace equistride {

namespace {

constexpr double WORK_OF_AN_EDGE = 32 * MOVE;
constexpr int64_t CHUNK = 4096; // edges a partial sum; fixed, so that sums do not depend on the threads

void check_atoms(const int64_t *index, int64_t count, int64_t atoms) {
    const auto bad = std::find_if(index, index + count, [&](int64_t i) { return i < 0 || i >= atoms; });
    TORCH_CHECK_INDEX(bad == index + count, "edge_index must name atoms from 0 to ", atoms - 1, "; found ", *bad,
                      "; build the list for these positions");
}

} // namespace

Tensor edge_vectors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts) {
    check_vectors(positions, cell, edge_index, shifts);
    const Tensor at = positions.contiguous(), rows = cell.contiguous(), index = edge_index.contiguous(),
                 images = shifts.contiguous();
    const int64_t edges = index.size(1);
    const Tensor vectors = at::empty({edges, 3}, positions.options());
    const int64_t *receiver = index.const_data_ptr<int64_t>(), *sender = receiver + edges;
    const int32_t *shift = images.const_data_ptr<int32_t>();
    check_atoms(receiver, 2 * edges, at.size(0));
    const Threads threads(double(edges) * WORK_OF_AN_EDGE);
    AT_DISPATCH_FLOATING_TYPES(at.scalar_type(), "edge_vectors", [&] {
        const scalar_t *r = at.const_data_ptr<scalar_t>(), *h = rows.const_data_ptr<scalar_t>();
        scalar_t *out = vectors.mutable_data_ptr<scalar_t>();
        threads.share(0, edges, [&](int64_t begin, int64_t end) {
            for (int64_t e = begin; e < end; ++e) {
                const scalar_t s[3] = {scalar_t(shift[3 * e]), scalar_t(shift[3 * e + 1]), scalar_t(shift[3 * e + 2])};
                for (int x = 0; x < 3; ++x)
                    out[3 * e + x] = (r[3 * sender[e] + x] - r[3 * receiver[e] + x]) +
                                     ((s[0] * h[x] + s[1] * h[3 + x]) + s[2] * h[6 + x]);
            }
        });
    });
    return vectors;
}

std::tuple<Tensor, Tensor> edge_vectors_backward_cpu(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts,
                                                     int64_t num_atoms) {
    check_edge_grad(grad, edge_index, shifts);
    const Tensor dense = grad.contiguous(), index = edge_index.contiguous(), images = shifts.contiguous();
    const int64_t edges = index.size(1), chunks = (edges + CHUNK - 1) / CHUNK;
    const Tensor grad_positions = at::zeros({num_atoms, 3}, grad.options());
    const Tensor grad_cell = at::zeros({3, 3}, grad.options());
    const int64_t *receiver = index.const_data_ptr<int64_t>(), *sender = receiver + edges;
    const int32_t *shift = images.const_data_ptr<int32_t>();
    check_atoms(receiver, 2 * edges, num_atoms);
    const Threads threads(double(edges) * WORK_OF_AN_EDGE);
    std::vector<double> partial(size_t(9 * chunks), 0.0);
    AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_vectors_backward", [&] {
        const scalar_t *g = dense.const_data_ptr<scalar_t>();
        scalar_t *on_atoms = grad_positions.mutable_data_ptr<scalar_t>();
        // A thread owns a range of atoms and reads every edge: each atom's terms come in the order of the edges.
        threads.share(0, num_atoms, threads.count(), [&](int64_t begin, int64_t end) {
            for (int64_t e = 0; e < edges; ++e) {
                const int64_t i = receiver[e], j = sender[e];
                if (j >= begin && j < end)
                    for (int x = 0; x < 3; ++x)
                        on_atoms[3 * j + x] += g[3 * e + x];
                if (i >= begin && i < end)
                    for (int x = 0; x < 3; ++x)
                        on_atoms[3 * i + x] -= g[3 * e + x];
            }
        });
        threads.share(0, chunks, [&](int64_t begin, int64_t end) {
            for (int64_t c = begin; c < end; ++c)
                for (int64_t e = c * CHUNK; e < std::min(edges, (c + 1) * CHUNK); ++e)
                    for (int k = 0; k < 3; ++k)
                        for (int x = 0; x < 3; ++x)
                            partial[size_t(9 * c + 3 * k + x)] += double(shift[3 * e + k]) * double(g[3 * e + x]);
        });
        scalar_t *on_cell = grad_cell.mutable_data_ptr<scalar_t>();
        for (int k = 0; k < 9; ++k) {
            double sum = 0;
            for (int64_t c = 0; c < chunks; ++c)
                sum += partial[size_t(9 * c + k)];
            on_cell[k] = scalar_t(sum);
        }
    });
    return {grad_positions, grad_cell};
}

Tensor edge_virial_cpu(const Tensor &vectors, const Tensor &gradient) {
    check_virial(vectors, gradient);
    const Threads threads(double(vectors.numel() + gradient.numel()) * MOVE);
    return vectors.t().matmul(gradient).neg();
}

} // namespace equistride
