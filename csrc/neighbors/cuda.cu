// The neighbour lists on the GPU, in nine launches: zeros, fold into the cell, lay out the grid, count, scan, sort into
// bins; then one warp an atom collects its neighbours' keys, a scan finds where its edges go, and the last ranks and
// writes them. The grid is laid out on the device, so nothing here waits for the host except `neighbors`, which must
// know the number of edges. Geometry and rounding are those of the CPU (grid.h): so is the list.
#include "cuda_launch.h"
#include "neighbors/grid.h"
#include "neighbors/neighbors.h"

#include <ATen/Dispatch.h>

#include <limits>

namespace equistride {

namespace {

constexpr int MAX_ROWS = 1024;
constexpr double CROWD = 256; // atoms a run from which thinner rows pay
constexpr int SCAN_THREADS = 512, SCAN_EACH = 4;
constexpr int64_t ROW = 128, ROW_BYTES = int64_t(1) << 28; // keys an atom where degrees are not known; of all at most

// Everything that one list needs to know about its structure; lives on the device, and begins as zeros.
struct Plan {
    Lattice lattice;
    Grid grid;
    ImageCode code;
    Band band;
    double cutoff, middle[3];
    int status, rows;
    RowSpan spans[MAX_ROWS];            // of the first rows; the others are worked out where they are met
    unsigned long long low[6], high[6]; // ordered bits, turned and as they are: fractional, then wrapped coordinates
};

// Order-preserving bits of a double, for atomicMin and atomicMax.
__device__ unsigned long long ordered(double value) {
    const unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(value));
    return bits >> 63 ? ~bits : bits | (1ull << 63);
}
__device__ double from_ordered(unsigned long long bits) {
    return __longlong_as_double(static_cast<long long>(bits >> 63 ? bits & ~(1ull << 63) : ~bits));
}

__device__ void widen(Plan *plan, int k, double value, bool active) {
    unsigned long long low = active ? ~ordered(value) : 0, high = active ? ordered(value) : 0;
    for (int step = WARP / 2; step > 0; step /= 2) {
        const unsigned long long l = __shfl_xor_sync(ALL, low, step), h = __shfl_xor_sync(ALL, high, step);
        low = l > low ? l : low;
        high = h > high ? h : high;
    }
    if (threadIdx.x % WARP == 0) {
        atomicMax(&plan->low[k], low);
        atomicMax(&plan->high[k], high);
    }
}

// OUTPUT: fractional and folded [N, 3], wraps [N, 3], lattice and ranges in plan. Each block works out the lattice.
template <class Real>
__global__ void fold_atoms(Plan *plan, const Real *cell, const bool *pbc, const Real *positions, int atoms,
                           double *fractional, double *folded, int *wraps) {
    __shared__ Lattice lattice;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) {
        double rows[9];
        for (int k = 0; k < 9; ++k)
            rows[k] = double(cell[k]);
        lattice = make_lattice(rows, pbc);
        if (blockIdx.x == 0)
            plan->lattice = lattice;
    }
    __syncthreads();
    const bool active = i < atoms && !lattice.singular;
    double f[3] = {0, 0, 0}, at[3] = {0, 0, 0};
    if (active) {
        const double r[3] = {double(positions[3 * int64_t(i)]), double(positions[3 * int64_t(i) + 1]),
                             double(positions[3 * int64_t(i) + 2])};
        int wrap[3] = {0, 0, 0};
        bool fine = true;
        for (int k = 0; k < 3; ++k) {
            f[k] = r[0] * lattice.inverse[0][k] + r[1] * lattice.inverse[1][k] + r[2] * lattice.inverse[2][k];
            fine = fine && fabs(f[k]) < 1e9;
            if (fine && lattice.periodic[k]) {
                const double cells = floor(f[k]);
                wrap[k] = int(-cells);
                f[k] -= cells;
            }
        }
        for (int x = 0; x < 3; ++x)
            at[x] = r[x] + image_component(lattice, wrap[0], wrap[1], wrap[2], x);
        if (!fine) {
            plan->status = NOT_FINITE; // every writer writes the same
            for (int x = 0; x < 3; ++x)
                f[x] = at[x] = 0;
        }
        for (int x = 0; x < 3; ++x) {
            fractional[3 * int64_t(i) + x] = f[x];
            folded[3 * int64_t(i) + x] = at[x];
            wraps[3 * int64_t(i) + x] = wrap[x];
        }
    }
    for (int k = 0; k < 3; ++k) {
        widen(plan, k, f[k], active);
        widen(plan, 3 + k, at[k], active);
    }
}

__global__ void plan_grid(Plan *plan, double cutoff, int atoms) {
    const bool fine = plan->status == FINE && !plan->lattice.singular;
    __syncthreads(); // all have read it before the first thread may change it
    if (threadIdx.x == 0 && plan->lattice.singular)
        plan->status = SINGULAR;
    if (!fine)
        return;
    if (threadIdx.x == 0) {
        plan->cutoff = cutoff;
        double low[3], high[3], reach = 0;
        for (int k = 0; k < 3; ++k) {
            low[k] = from_ordered(~plan->low[k]);
            high[k] = from_ordered(plan->high[k]);
            const double least = from_ordered(~plan->low[3 + k]), most = from_ordered(plan->high[3 + k]);
            plan->middle[k] = 0.5 * (least + most);
            reach = fmax(reach, most - plan->middle[k]);
        }
        plan->grid = choose_grid(plan->lattice, cutoff, low, high, atoms, CROWD);
        plan->code = ImageCode(plan->grid);
        plan->band = make_band(cutoff, reach);
        if (plan->code.bits > IMAGE_BITS)
            plan->status = TOO_MANY_IMAGES;
        else
            plan->rows = (2 * plan->grid.reach[plan->grid.v] + 1) * (2 * plan->grid.reach[plan->grid.w] + 1);
    }
    __syncthreads();
    if (plan->status != FINE)
        return;
    const Grid &grid = plan->grid;
    const int across = 2 * grid.reach[grid.v] + 1;
    for (int row = threadIdx.x; row < min(plan->rows, MAX_ROWS); row += blockDim.x)
        plan->spans[row] = row_span(grid, cutoff, row % across - grid.reach[grid.v], row / across - grid.reach[grid.w]);
}

__global__ void count_bins(const Plan *plan, const double *fractional, int atoms, int *home, int *filled) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= atoms || plan->status != FINE)
        return;
    const Grid &grid = plan->grid;
    int at[3];
    for (int k = 0; k < 3; ++k)
        at[k] = bin_along(grid, k, fractional[3 * int64_t(i) + k]);
    home[i] = bin_index(grid, at[grid.run], at[grid.v], at[grid.w]);
    atomicAdd(&filled[home[i]], 1);
}

// One block. first[k] = sum of the values before k, first[count] = sum of all; then done(sum).
template <class Sum, class Done>
__device__ void scan_block(const int *values, int64_t count, Sum *first, const Done &done) {
    __shared__ Sum of_warp[SCAN_THREADS / WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Sum before = 0;
    for (int64_t begin = 0; begin < count; begin += SCAN_THREADS * SCAN_EACH) {
        const int64_t at = begin + int64_t(threadIdx.x) * SCAN_EACH;
        Sum mine[SCAN_EACH], sum = 0;
        for (int k = 0; k < SCAN_EACH; ++k) {
            mine[k] = sum;
            sum += at + k < count ? values[at + k] : 0;
        }
        Sum up = sum; // to this lane
        for (int step = 1; step < WARP; step *= 2) {
            const Sum other = __shfl_up_sync(ALL, up, step);
            up += lane >= step ? other : 0;
        }
        if (lane == WARP - 1)
            of_warp[warp] = up;
        __syncthreads();
        Sum start = before + up - sum;
        for (int w = 0; w < SCAN_THREADS / WARP; ++w) {
            start += w < warp ? of_warp[w] : 0;
            before += of_warp[w];
        }
        for (int k = 0; k < SCAN_EACH; ++k)
            if (at + k < count)
                first[at + k] = start + mine[k];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        first[count] = before;
        done(before);
    }
}

__global__ void scan_bins(const int *filled, int64_t bins, int *start) {
    scan_block(filled, bins, start, [](int) {});
}

// Also says what became of the list. One that the capacity does not hold is not written at all.
__global__ void scan_counts(Plan *plan, const int *counts, int64_t atoms, int64_t capacity, int64_t *first,
                            int64_t *summary) {
    const bool fine = plan->status == FINE;
    __syncthreads();
    scan_block(counts, fine ? atoms : 0, first, [&](int64_t edges) {
        if (fine && edges > capacity)
            plan->status = TOO_MANY_EDGES;
        summary[0] = edges;
        summary[1] = plan->status;
    });
}

// `filled` counts down to zero. The order within a bin is left to chance; the ranking of the rows removes it.
__global__ void place_atoms(const Plan *plan, const double *folded, const int *home, const int *start, int atoms,
                            int *filled, float4 *near, double *exact, int *bin) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= atoms || plan->status != FINE)
        return;
    const int p = start[home[i]] + atomicSub(&filled[home[i]], 1) - 1;
    const double *at = folded + 3 * int64_t(i);
    near[p] = make_float4(float(at[0] - plan->middle[0]), float(at[1] - plan->middle[1]),
                          float(at[2] - plan->middle[2]), __int_as_float(i));
    bin[p] = home[i];
    for (int x = 0; x < 3; ++x)
        exact[3 * int64_t(p) + x] = at[x];
}

// As `inside` on the CPU: no multiplication may fuse with an addition.
__device__ bool inside_exactly(const double *receiver, const double *sender, const double *shift, double cutoff2) {
    double sum = 0;
    for (int x = 0; x < 3; ++x) {
        const double d = __dadd_rn(__dsub_rn(sender[x], receiver[x]), shift[x]);
        sum = __dadd_rn(sum, __dmul_rn(d, d));
    }
    return sum < cutoff2;
}

__device__ double image_exactly(const Lattice &lattice, const int *image, int x) {
    const double a = __dmul_rn(image[0], lattice.rows[0][x]), b = __dmul_rn(image[1], lattice.rows[1][x]);
    return __dadd_rn(__dadd_rn(a, b), __dmul_rn(image[2], lattice.rows[2][x]));
}

struct Sorted {
    const float4 *near;  // x, y, z about the middle, and the original index
    const double *exact; // [N, 3]
    const int *bin, *start;
};

__device__ RowSpan span_of(const Plan *plan, int row, int dv, int dw) {
    return row < MAX_ROWS ? plan->spans[row] : row_span(plan->grid, plan->cutoff, dv, dw);
}

// A warp goes through the neighbours of the p-th atom: take(place, key) is called by the lanes that have one. Returns
// their number.
template <class Take> __device__ int each_neighbor(const Plan *plan, const Sorted &atoms, int p, const Take &take) {
    const Grid &grid = plan->grid;
    const int lane = threadIdx.x % WARP, length = grid.bins[grid.run], home = atoms.bin[p];
    const int along = home % length, v = home / length % grid.bins[grid.v], w = home / length / grid.bins[grid.v];
    const int64_t still = int64_t(plan->code.pack(0, 0, 0));
    const double *own = atoms.exact + 3 * int64_t(p);
    const int across = 2 * grid.reach[grid.v] + 1;
    int found = 0;
    for (int row = 0; row < plan->rows; ++row) {
        const int dv = row % across - grid.reach[grid.v], dw = row / across - grid.reach[grid.w];
        int image[3];
        const int at_v = wrap_bin(grid, plan->lattice, grid.v, v + dv, image),
                  at_w = wrap_bin(grid, plan->lattice, grid.w, w + dw, image);
        if (at_v < 0 || at_w < 0)
            continue;
        const RowSpan span = span_of(plan, row, dv, dw);
        const int *start = atoms.start + bin_index(grid, 0, at_v, at_w);
        int from = along + span.first, to = along + span.last;
        if (span.first > span.last)
            continue;
        if (!plan->lattice.periodic[grid.run]) {
            from = max(from, 0);
            to = min(to, length - 1);
        }
        while (from <= to) {
            image[grid.run] = floor_div(from, length);
            const int zero = image[grid.run] * length, stop = min(to, zero + length - 1);
            const int begin = start[from - zero], end = start[stop - zero + 1];
            from = stop + 1;
            if (begin == end)
                continue;
            const int64_t code = int64_t(plan->code.pack(image[0], image[1], image[2]));
            double shift[3];
            float at[3];
            for (int x = 0; x < 3; ++x) {
                shift[x] = image_exactly(plan->lattice, image, x);
                at[x] = float(own[x] - shift[x] - plan->middle[x]);
            }
            for (int q = begin; q < end; q += WARP) {
                const int other = q + lane;
                bool keep = false;
                int j = 0;
                if (other < end && !(other == p && code == still)) {
                    const float4 there = atoms.near[other];
                    const float dx = there.x - at[0], dy = there.y - at[1], dz = there.z - at[2];
                    const float d2 = dx * dx + dy * dy + dz * dz;
                    j = __float_as_int(there.w);
                    keep = d2 < plan->band.outer;
                    if (keep && d2 >= plan->band.inner)
                        keep = inside_exactly(own, atoms.exact + 3 * int64_t(other), shift, plan->band.cutoff2);
                }
                const unsigned kept = __ballot_sync(ALL, keep);
                if (keep)
                    take(found + __popc(kept & ((1u << lane) - 1)), (int64_t(j) << plan->code.bits) | code);
                found += __popc(kept);
            }
        }
    }
    return found;
}

// One warp an atom. OUTPUT: counts [N]; the first `stride` keys of each, rows [N, stride].
__global__ void collect(const Plan *plan, Sorted atoms, int count, int stride, int *counts, int64_t *rows) {
    const int p = int((int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP);
    if (p >= count || plan->status != FINE)
        return;
    const int i = __float_as_int(atoms.near[p].w);
    int64_t *const row = rows + int64_t(i) * stride;
    const int found = each_neighbor(plan, atoms, p, [&](int place, int64_t key) {
        if (place < stride)
            row[place] = key;
    });
    if (threadIdx.x % WARP == 0)
        counts[i] = found;
}

__device__ void write_shift(const Plan *plan, const int *wraps, int64_t key, int64_t i, int64_t j, int *out) {
    for (int k = 0; k < 3; ++k)
        out[k] = plan->code.unpack(uint64_t(key), k) + wraps[3 * j + k] - wraps[3 * i + k];
}

// Number of keys below this one: its place in the sorted row, for keys differ.
__device__ int rank_of(const int64_t *row, int count, int64_t key) {
    int rank = 0;
    for (int e = 0; e < count; ++e)
        rank += row[e] < key;
    return rank;
}

struct List {
    int64_t *receiver, *sender; // [capacity]
    int *shifts;                // [capacity, 3]
    int64_t capacity, extra;    // extra: of the atoms between which free places hold edges; 0: none are free
};

// A warp: the edges of the p-th atom. Where its keys did not fit into their row, they are collected again, into the
// place of its receivers.
__device__ void write_row(const Plan *plan, const Sorted &atoms, int p, const int64_t *first, const int *wraps,
                          const int64_t *rows, int stride, const List &list) {
    const int i = __float_as_int(atoms.near[p].w), lane = threadIdx.x % WARP;
    const int64_t begin = first[i];
    const int count = int(first[i + 1] - begin);
    const int64_t *row = rows + int64_t(i) * stride;
    if (count > stride) {
        int64_t *const again = list.receiver + begin;
        each_neighbor(plan, atoms, p, [&](int place, int64_t key) {
            if (place < count)
                again[place] = key;
        });
        row = again;
    }
    __syncwarp();
    for (int e = lane; e < count; e += WARP) {
        const int64_t key = row[e], j = key >> plan->code.bits, at = begin + rank_of(row, count, key);
        list.sender[at] = j;
        write_shift(plan, wraps, key, i, j, list.shifts + 3 * at);
    }
    __syncwarp();
    for (int e = lane; e < count; e += WARP)
        list.receiver[begin + e] = i;
}

__device__ void write_padding(const int64_t *summary, int64_t atoms, int64_t e, const List &list) {
    const int64_t kept = summary[1] == FINE ? summary[0] : 0;
    if (e < kept || e >= list.capacity)
        return;
    const PaddingEdge edge = padding_edge(e - kept, list.capacity - kept, list.extra);
    list.receiver[e] = atoms + edge.to;
    list.sender[e] = atoms + edge.from;
    for (int k = 0; k < 3; ++k)
        list.shifts[3 * e + k] = 0;
}

// The first blocks write the rows of atoms, one a warp, and those after them what is free.
__global__ void write_list(const Plan *plan, Sorted atoms, int count, const int64_t *first, const int64_t *summary,
                           const int *wraps, const int64_t *rows, int stride, List list) {
    const int64_t of_rows = (int64_t(count) + WARPS - 1) / WARPS, block = blockIdx.x;
    if (block >= of_rows)
        write_padding(summary, count, (block - of_rows) * THREADS + threadIdx.x, list);
    else if (const int p = int(block * WARPS + threadIdx.x / WARP); p < count && plan->status == FINE)
        write_row(plan, atoms, p, first, wraps, rows, stride, list);
}

// The structure, binned on the device. Scratch comes from torch's caching allocator: no call to the driver once warm,
// and safe inside a captured graph.
struct Device {
    Tensor zeros, wraps, near, exact, bin, start;
    int atoms;

    Plan *get_plan() const { return reinterpret_cast<Plan *>(zeros.mutable_data_ptr()); }
    Sorted sorted() const {
        return {reinterpret_cast<const float4 *>(near.const_data_ptr<float>()), exact.const_data_ptr<double>(),
                bin.const_data_ptr<int>(), start.const_data_ptr<int>()};
    }

    Device(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff, cudaStream_t stream)
        : atoms(int(positions.size(0))) {
        const auto options = positions.options();
        const auto ints = options.dtype(at::kInt), doubles = options.dtype(at::kDouble);
        const int64_t bins = 2 * int64_t(atoms) + 64, n = atoms;
        TORCH_CHECK_VALUE(n < (int64_t(1) << 24) * 4, "a GPU list holds fewer than 2^26 atoms; found ", n);
        const Tensor dense = positions.contiguous(), cell_rows = cell.contiguous(), flags = pbc.contiguous();
        zeros = at::zeros({int64_t(sizeof(Plan)) + bins * int64_t(sizeof(int))}, options.dtype(at::kByte));
        int *const filled = reinterpret_cast<int *>(get_plan() + 1); // [bins]
        wraps = at::empty({n, 3}, ints);
        near = at::empty({n, 4}, options.dtype(at::kFloat));
        exact = at::empty({n, 3}, doubles);
        bin = at::empty({n}, ints);
        start = at::empty({bins + 1}, ints);
        const Tensor fractional = at::empty({n, 3}, doubles), folded = at::empty({n, 3}, doubles),
                     home = at::empty({n}, ints);
        const unsigned blocks = blocks_of(n);
        AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "neighbors_cuda", [&] {
            launch(fold_atoms<scalar_t>, blocks, THREADS, stream, get_plan(), cell_rows.const_data_ptr<scalar_t>(),
                   flags.const_data_ptr<bool>(), dense.const_data_ptr<scalar_t>(), atoms,
                   fractional.mutable_data_ptr<double>(), folded.mutable_data_ptr<double>(),
                   wraps.mutable_data_ptr<int>());
        });
        launch(plan_grid, 1, THREADS, stream, get_plan(), cutoff, atoms);
        launch(count_bins, blocks, THREADS, stream, get_plan(), fractional.const_data_ptr<double>(), atoms,
               home.mutable_data_ptr<int>(), filled);
        launch(scan_bins, 1, SCAN_THREADS, stream, filled, bins, start.mutable_data_ptr<int>());
        launch(place_atoms, blocks, THREADS, stream, get_plan(), folded.const_data_ptr<double>(),
               home.const_data_ptr<int>(), start.const_data_ptr<int>(), atoms, filled,
               reinterpret_cast<float4 *>(near.mutable_data_ptr<float>()), exact.mutable_data_ptr<double>(),
               bin.mutable_data_ptr<int>());
    }
};

// A structure whose neighbours are counted, for a list of so many edges at most.
struct Counted {
    Device device;
    Tensor counts, rows, first, summary;
    int stride; // of the rows: keys that each holds
    cudaStream_t stream;

    Counted(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff, int64_t capacity,
            int64_t degree, cudaStream_t stream)
        : device(positions, cell, pbc, cutoff, stream), stream(stream) {
        const auto longs = positions.options().dtype(at::kLong);
        const int64_t n = device.atoms, most = ROW_BYTES / int64_t(sizeof(int64_t)) / n;
        stride = int(std::min(degree, most) / WARP * WARP);
        counts = at::empty({n}, positions.options().dtype(at::kInt));
        rows = at::empty({n, stride}, longs);
        first = at::empty({n + 1}, longs);
        summary = at::empty({2}, longs);
        launch(collect, blocks_of(n * WARP), THREADS, stream, device.get_plan(), device.sorted(), device.atoms, stride,
               counts.mutable_data_ptr<int>(), rows.mutable_data_ptr<int64_t>());
        launch(scan_counts, 1, SCAN_THREADS, stream, device.get_plan(), counts.const_data_ptr<int>(), n, capacity,
               first.mutable_data_ptr<int64_t>(), summary.mutable_data_ptr<int64_t>());
    }

    // `edge_index` [2, capacity] and `shifts` hold at least the edges that were counted; where more, between `extra`
    // atoms.
    void write(const Tensor &edge_index, const Tensor &shifts, int64_t extra) const {
        const int64_t capacity = shifts.size(0), of_rows = (int64_t(device.atoms) + WARPS - 1) / WARPS;
        int64_t *receiver = edge_index.mutable_data_ptr<int64_t>();
        const List list{receiver, receiver + capacity, shifts.mutable_data_ptr<int>(), capacity, extra};
        launch(write_list, unsigned(of_rows) + (extra > 0 ? blocks_of(capacity) : 0), THREADS, stream,
               device.get_plan(), device.sorted(), device.atoms, first.const_data_ptr<int64_t>(),
               summary.const_data_ptr<int64_t>(), device.wraps.const_data_ptr<int>(), rows.const_data_ptr<int64_t>(),
               stride, list);
    }
};

// A list of no atoms: all of it is free.
__global__ void write_empty(int64_t *summary, List list) {
    if (blockIdx.x == 0 && threadIdx.x < 2)
        summary[threadIdx.x] = 0;
    const int64_t none[2] = {0, FINE};
    write_padding(none, 0, int64_t(blockIdx.x) * THREADS + threadIdx.x, list);
}

std::tuple<Tensor, Tensor> neighbors_cuda(const Tensor &positions, const Tensor &cell, const Tensor &pbc,
                                          double cutoff) {
    check_structure(positions, cell, pbc, cutoff);
    const c10::cuda::CUDAGuard guard(positions.device());
    const auto options = positions.options();
    if (positions.size(0) == 0)
        return {at::empty({2, 0}, options.dtype(at::kLong)), at::empty({0, 3}, options.dtype(at::kInt))};
    const Counted counted(positions, cell, pbc, cutoff, std::numeric_limits<int64_t>::max(), ROW,
                          c10::cuda::getCurrentCUDAStream());
    const Tensor known = counted.summary.cpu(); // the one wait
    const int64_t edges = known.const_data_ptr<int64_t>()[0], status = known.const_data_ptr<int64_t>()[1];
    check_regular(status != SINGULAR, cell);
    TORCH_CHECK_VALUE(status != NOT_FINITE, "positions must be finite and within 1e9 cells of the origin; found some "
                                            "that are not; look at what moved them there");
    TORCH_CHECK_VALUE(status != TOO_MANY_IMAGES, "the cutoff reaches over too many periodic images; found a cutoff of ",
                      cutoff, "; use a smaller cutoff or a larger cell");
    const Tensor edge_index = at::empty({2, edges}, options.dtype(at::kLong)),
                 shifts = at::empty({edges, 3}, options.dtype(at::kInt));
    if (edges > 0)
        counted.write(edge_index, shifts, 0);
    return {edge_index, shifts};
}

PaddedList neighbors_padded_cuda(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff,
                                 int64_t capacity, int64_t extra) {
    check_structure(positions, cell, pbc, cutoff);
    check_padding(capacity, extra);
    const c10::cuda::CUDAGuard guard(positions.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const auto longs = positions.options().dtype(at::kLong);
    const Tensor edge_index = at::empty({2, capacity}, longs), shifts = at::empty({capacity, 3}, longs.dtype(at::kInt));
    const int64_t n = positions.size(0);
    if (n > 0) {
        // Twice the mean degree: few atoms of a liquid or a solid have more, and those cost a second search.
        const Counted counted(positions, cell, pbc, cutoff, capacity, 2 * capacity / n + WARP, stream);
        counted.write(edge_index, shifts, extra);
        return {edge_index, shifts, counted.summary};
    }
    const Tensor summary = at::empty({2}, longs);
    int64_t *receiver = edge_index.mutable_data_ptr<int64_t>();
    launch(write_empty, std::max(blocks_of(capacity), 1u), THREADS, stream, summary.mutable_data_ptr<int64_t>(),
           List{receiver, receiver + capacity, shifts.mutable_data_ptr<int>(), capacity, extra});
    return {edge_index, shifts, summary};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    m.impl("neighbors", neighbors_cuda);
    m.impl("neighbors_padded", neighbors_padded_cuda);
}

} // namespace equistride
