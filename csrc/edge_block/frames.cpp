// Frames of bonds on the CPU: sixteen bonds at once through the recursion.
#include "edge_block/edge_block.h"
#include "edge_block/rotations.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <algorithm>

namespace equistride {

namespace {

constexpr int BATCH = 16;
template <class Real> struct Batch {
    Real of[BATCH] = {};
    void add(double factor, const Batch &a, const Batch &b) {
        for (int k = 0; k < BATCH; ++k)
            of[k] += Real(factor) * a.of[k] * b.of[k];
    }
};

constexpr Recursions RECURSIONS;

} // namespace

Tensor bond_frames_cpu(const Tensor &vectors, int64_t l_max) {
    check_bonds(vectors, l_max);
    const Shape shape(l_max, 0, 1, 1, true);
    const int64_t edges = vectors.size(0), width = shape.frame_size;
    const Tensor from = vectors.contiguous(), frames = at::empty({edges, width}, vectors.options());
    const Threads threads(double(frames.numel()) * MOVE);
    AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_frames", [&] {
        const scalar_t *in = from.const_data_ptr<scalar_t>();
        scalar_t *out = frames.mutable_data_ptr<scalar_t>();
        threads.share(0, edges, [&](int64_t begin, int64_t end) {
            Batch<scalar_t> batch[MAX_FRAME];
            for (int64_t e = begin; e < end && l_max > 0; e += BATCH) {
                const int count = int(std::min<int64_t>(BATCH, end - e));
                for (int lane = 0; lane < count; ++lane) {
                    scalar_t rows[9];
                    bond_frame(in + 3 * (e + lane), rows);
                    for (int k = 0; k < 9; ++k)
                        batch[k].of[lane] = rows[k];
                }
                fill_frames(RECURSIONS, batch, int(l_max));
                for (int k = 0; k < count; ++k)
                    for (int64_t c = 0; c < width; ++c)
                        out[(e + k) * width + c] = batch[c].of[k];
            }
        });
    });
    return frames;
}

} // namespace equistride
