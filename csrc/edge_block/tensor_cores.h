// Products of float32 on tensor cores, whose factors have 11 significant bits (TF32) and whose sums have 24.
//
// `split` takes both factors apart, x = high + low with 11 bits each, and adds high high, high low and low high: 22
// bits of every product, three times the work. `tf32` takes the factors as they are, rounded, with matrices stored as
// float16, which holds the same 11 bits (numbers below 6e-5 fewer) in half the bytes. Tensor cores round sums towards
// zero, so only 16 terms are summed there; those sums are added with rounding to nearest.
//
// A warp's panel, turned: 32 columns are two operands A (16 x 8), eight edges one operand B (8 x 8). Which of the
// matrix's columns and which k an operand's place stands for is free, so each lane gets neighbours: with
// quad = lane / 4 the columns 4 quad .. 4 quad + 3, with t = lane % 4, of 32 numbers of k, 8 t .. 8 t + 7. All loads
// are of 16 bytes, on different banks for the rows of a tile, and the sums lie in the lane as FMA leaves them: four
// columns of an edge.
#pragma once
#include "edge_block/products.h"

namespace equistride {

namespace {

#ifdef __CUDACC__
// sum (16 x 8) += a (16 x 8) b (8 x 8); of each factor the upper 19 bits count.
__device__ __forceinline__ void multiply_16x8x8(float (&sum)[4], const float (&a)[4], float b0, float b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(__float_as_int(a[0])), "r"(__float_as_int(a[1])), "r"(__float_as_int(a[2])),
                   "r"(__float_as_int(a[3])), "r"(__float_as_int(b0)), "r"(__float_as_int(b1)));
}
#endif

// Nearest number of 11 bits. The instruction for it would be four of the processor's, as it keeps NaN. Here NaN may
// become 0: what is left over, x - high, is NaN still.
__device__ __forceinline__ float high_part(float x) {
    return __int_as_float(int((unsigned(__float_as_int(x)) + 0x1000u) & 0xffffe000u));
}
// The same where nothing is left over: NaN stays. Fused into FMA, these operations would return x.
__device__ __forceinline__ float rounded(float x) {
    const float large = __fmul_rn(x, 8193);
    return __fsub_rn(large, __fsub_rn(large, x));
}

struct alignas(8) FourHalves {
    c10::Half of[4];
};

template <Arithmetic HOW, int ROWS> struct TensorCores {
    using Real = float;
    static constexpr int EDGES = GROUPS * ROWS; // of a tile
    static constexpr int LANE_ROWS = (EDGES + 7) / 8 * 2, BOTH = (2 * EDGES + 7) / 8 * 2, SPLIT = EDGES, STEP = 1;
    static constexpr int STEP_K = 32;

    const float *matrices;   // all of them,
    const c10::Half *halves; // and the same as float16, for `tf32`
    const int quad = threadIdx.x % WARP / 4, first = 0;

    template <class Problem>
    __device__ explicit TensorCores(const Problem &in) : matrices(in.weights), halves(in.halves) {}

    // Row of the tile, or of two, of the lane's row i.
    static __device__ __forceinline__ int row(int i) { return i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2; }
    static __device__ __forceinline__ float *place(int i, float *plus, float *minus, int step) {
        const int at = row(i);
        return at < EDGES                           ? plus + at * step
               : minus != nullptr && at < 2 * EDGES ? minus + (at - EDGES) * step
                                                    : nullptr;
    }

    // Four numbers of a row of a panel.
    __device__ __forceinline__ Four<float> load(const float *from) const {
        if constexpr (HOW == Arithmetic::split) {
            return load_four(from);
        } else {
            const FourHalves found = *reinterpret_cast<const FourHalves *>(halves + (from - matrices));
            return {{float(found.of[0]), float(found.of[1]), float(found.of[2]), float(found.of[3])}};
        }
    }

    template <int N, class Rows>
    __device__ __forceinline__ void accumulate(const Rows &rows, bool aligned, const float *matrix, int k,
                                               float (&sum)[N][4]) const {
        constexpr int LAST = (N == BOTH ? 2 : 1) * EDGES - 1;
        constexpr bool EXACT = HOW == Arithmetic::split;
        const int whole = aligned ? k / STEP_K * STEP_K : 0, k0 = threadIdx.x % 4 * 8;
        matrix += 4 * quad;
        __syncwarp(); // stores before this were each lane's own affair
        int place[N / 2];
#pragma unroll
        for (int tile = 0; tile < N / 2; ++tile)
            place[tile] = rows.place(min(8 * tile + quad, LAST)) + k0;
        Four<float> ahead[2][4];
        const auto fetch = [&](int part, int at) { // what the lane needs of the matrix for half of 32 numbers of k
            if (at < whole) {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    ahead[part][i] = load(matrix + (at + k0 + 4 * part + i) * int(PANEL));
            }
        };
        fetch(0, 0);
        fetch(1, 0);
#pragma unroll 1
        for (int at = 0; at < whole; at += STEP_K) {
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                // Operands A: [step][half of the columns][place]; what is left over of them.
                float high[2][2][4], low[EXACT ? 2 : 1][2][4];
#pragma unroll
                for (int step = 0; step < 2; ++step) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        const float value = ahead[part][2 * step + i / 4].of[i % 4];
                        const int half = i % 4 / 2, to = i / 4 * 2 + i % 2;
                        high[step][half][to] = EXACT ? high_part(value) : value;
                        if constexpr (EXACT)
                            low[step][half][to] = value - high[step][half][to];
                    }
                }
                fetch(part, at + STEP_K);
#pragma unroll
                for (int tile = 0; tile < N / 2; ++tile) {
                    const Four<float> x = rows.four(place[tile] + at + 4 * part);
                    float got[2][4] = {};
                    if constexpr (EXACT) { // the small products first
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            const int step = i / 2, half = i % 2;
                            const float x0 = x.of[2 * step], x1 = x.of[2 * step + 1];
                            const float b0 = high_part(x0), b1 = high_part(x1);
                            multiply_16x8x8(got[half], low[step][half], b0, b1);
                            multiply_16x8x8(got[half], high[step][half], x0 - b0, x1 - b1);
                        }
                    }
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int step = i / 2, half = i % 2;
                        const float x0 = x.of[2 * step], x1 = x.of[2 * step + 1];
                        multiply_16x8x8(got[half], high[step][half], EXACT ? high_part(x0) : rounded(x0),
                                        EXACT ? high_part(x1) : rounded(x1));
                    }
#pragma unroll
                    for (int i = 0; i < 8; ++i)
                        sum[2 * tile + i % 2][i / 2] += got[i / 4][i % 4];
                }
            }
        }
#pragma unroll 1
        for (int at = whole; at < k; ++at) {
            const Four<float> b = load(matrix + at * int(PANEL));
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const float a = rows.one(rows.place(min(row(i), LAST)) + at);
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum[i][j] += a * b.of[j];
            }
        }
    }
};

} // namespace

} // namespace equistride
