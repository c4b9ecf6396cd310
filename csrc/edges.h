// What the operators on edges share on the CPU: edges in the order of their receivers, and aligned scratch memory.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <cstdint>
#include <memory>
#include <vector>

namespace equistride {

using at::Tensor;

// Not cleared.
template <class Real> class Buffer {
public:
    explicit Buffer(int64_t size)
        : lines_(std::make_unique_for_overwrite<Line[]>(size_t(size) * sizeof(Real) / sizeof(Line) + 1)) {}
    Real *data() { return reinterpret_cast<Real *>(lines_.get()); }

private:
    struct alignas(64) Line {
        char bytes[64];
    };
    std::unique_ptr<Line[]> lines_;
};

struct Edges {
    const int64_t *receiver, *sender;
    int64_t count;
    std::vector<int64_t> first; // of each receiver, and the end

    Edges(const Tensor &edge_index, int64_t senders, int64_t receivers)
        : receiver(edge_index.const_data_ptr<int64_t>()), sender(receiver + edge_index.size(1)),
          count(edge_index.size(1)), first(size_t(receivers) + 1, 0) {
        for (int64_t e = 0; e < count; ++e) {
            const int64_t t = receiver[e], s = sender[e];
            TORCH_CHECK_INDEX(t >= 0 && t < receivers && s >= 0 && s < senders, "edge_index must name receivers below ",
                              receivers, " and senders below ", senders, "; found ", t, " and ", s, " at edge ", e);
            TORCH_CHECK_VALUE(e == 0 || receiver[e - 1] <= t, "edge_index must be sorted by receiver (row 0); found ",
                              t, " after ", receiver[e - 1], " at edge ", e,
                              "; sort the edges with edge_index[:, edge_index[0].argsort(stable=True)]");
            ++first[size_t(t) + 1];
        }
        for (size_t t = 0; t < size_t(receivers); ++t)
            first[t + 1] += first[t];
    }
};

} // namespace equistride
