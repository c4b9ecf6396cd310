// Stands for the GPU where the CUDA sources are compiled for the host: what the language and its run time give a
// kernel, with every thread of a block a fiber of its own. Barriers, shuffles and votes work, and are checked: lanes
// that should meet and do not are an error. One block runs after the other, so static memory serves as shared memory.
#pragma once
#include <ATen/core/Tensor.h>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <torch/library.h>
#include <tuple>

// The kernels become operators of a library of their own, for tensors of the CPU.
#undef TORCH_LIBRARY_IMPL
#define TORCH_LIBRARY_IMPL(library, key, m) _TORCH_LIBRARY_IMPL(equistride_emulated, CPU, m, C10_UID)

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __constant__
#define EQUISTRIDE_NOINLINE

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct float4 {
    float x, y, z, w;
};
using cudaStream_t = const void *;

#pragma GCC visibility push(default) // of the library that the others are linked with
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
#pragma GCC visibility pop

namespace c10::cuda {
struct CUDAGuard {
    explicit CUDAGuard(at::Device) {}
};
inline cudaStream_t getCurrentCUDAStream() { return nullptr; }
} // namespace c10::cuda

namespace emulation {

using Location = std::source_location;

#pragma GCC visibility push(default)
// Memory of a size known at launch is NaN at the start of every block.
void run(dim3 grid, dim3 block, const std::function<void()> &thread, int64_t bytes = 0);
void *memory_of_block();
int64_t memory_limit();
// Wait for the other lanes of the warp; return what each of them gave.
const uint64_t *meet(const char *what, unsigned mask, uint64_t gives, const Location &at);
void wait_for_block(const Location &at);
int lane();
// Copies are done when the thread waits for them, so that who looks before sees what was there.
void begin_copy(void *to, const void *from, int bytes);
void end_group();
void wait_but(int groups);
#pragma GCC visibility pop

template <class T> uint64_t to_bits(T value) {
    uint64_t bits = 0;
    static_assert(sizeof value <= sizeof bits);
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T> T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emulation

namespace equistride {
constexpr int64_t SLAB_BYTES = 1 << 14; // so that small tests see several slabs

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t, Arguments &&...arguments) {
    const std::tuple<Parameters...> all(static_cast<Parameters>(arguments)...);
    emulation::run(grid, block, [&] { std::apply(kernel, all); });
}
template <class... Parameters, class... Arguments>
void launch_with_memory(void (*kernel)(Parameters...), int64_t bytes, dim3 grid, dim3 block, cudaStream_t,
                        Arguments &&...arguments) {
    const std::tuple<Parameters...> all(static_cast<Parameters>(arguments)...);
    emulation::run(grid, block, [&] { std::apply(kernel, all); }, bytes);
}
template <class Real> Real *shared_memory() { return static_cast<Real *>(emulation::memory_of_block()); }
inline int shared_memory_limit() { return int(emulation::memory_limit()); }
template <int BYTES> void begin_copy(void *shared, const void *global) { emulation::begin_copy(shared, global, BYTES); }
inline void end_group() { emulation::end_group(); }
template <int GROUPS> void wait_but() { emulation::wait_but(GROUPS); }
inline int multiprocessors() { return 3; }
inline unsigned long long capture_of(cudaStream_t) { return 0; }
inline int64_t device_memory() { return int64_t(1) << 40; }
} // namespace equistride

inline void __syncthreads(const emulation::Location &at = emulation::Location::current()) {
    emulation::wait_for_block(at);
}
inline void __syncwarp(const emulation::Location &at = emulation::Location::current()) {
    emulation::meet("__syncwarp", ~0u, 0, at);
}
inline unsigned __ballot_sync(unsigned mask, bool vote,
                              const emulation::Location &at = emulation::Location::current()) {
    const uint64_t *all = emulation::meet("__ballot_sync", mask, vote, at);
    unsigned votes = 0;
    for (int k = 0; k < 32; ++k)
        votes |= unsigned(all[k]) << k;
    return votes;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, const emulation::Location &at = emulation::Location::current()) {
    return emulation::from_bits<T>(
        emulation::meet("__shfl_xor_sync", mask, emulation::to_bits(value), at)[emulation::lane() ^ bits]);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int step, const emulation::Location &at = emulation::Location::current()) {
    const uint64_t *all = emulation::meet("__shfl_down_sync", mask, emulation::to_bits(value), at);
    return emulation::lane() + step < 32 ? emulation::from_bits<T>(all[emulation::lane() + step]) : value;
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, int step, const emulation::Location &at = emulation::Location::current()) {
    const uint64_t *all = emulation::meet("__shfl_up_sync", mask, emulation::to_bits(value), at);
    return emulation::lane() >= step ? emulation::from_bits<T>(all[emulation::lane() - step]) : value;
}

// One thread runs at a time, so an atomic operation is an ordinary one.
template <class T> T atomicAdd(T *place, T value) { return std::exchange(*place, *place + value); }
template <class T> T atomicSub(T *place, T value) { return std::exchange(*place, *place - value); }
template <class T> T atomicMin(T *place, T value) { return std::exchange(*place, *place < value ? *place : value); }
template <class T> T atomicMax(T *place, T value) { return std::exchange(*place, *place > value ? *place : value); }

using std::max;
using std::min;
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Tensor cores: each lane gives two numbers at a time. Factors are cut off after 11 bits and sums rounded towards zero,
// as there.
namespace equistride {
inline double cut_to_tf32(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffffe000u); }
inline float add_towards_zero(float a, double b) {
    const double sum = a + b;
    const float near = float(sum);
    return std::abs(double(near)) > std::abs(sum) ? std::nextafter(near, 0.f) : near;
}
inline void multiply_16x8x8(float (&sum)[4], const float (&a)[4], float b0, float b1,
                            const emulation::Location &at = emulation::Location::current()) {
    const int group = emulation::lane() / 4, quad = emulation::lane() % 4;
    float left[2][8], right[8][2]; // [row group, group + 8][k], [k][column 2 quad, 2 quad + 1]
    const auto exchange = [&](float first, float second) {
        return emulation::meet("mma", ~0u, emulation::to_bits(std::pair(first, second)), at);
    };
    const auto of = [](const uint64_t *all, int lane) {
        return emulation::from_bits<std::pair<float, float>>(all[lane]);
    };
    for (int half = 0; half < 2; ++half) {
        const uint64_t *const all = exchange(a[2 * half], a[2 * half + 1]);
        for (int k = 0; k < 4; ++k)
            std::tie(left[0][4 * half + k], left[1][4 * half + k]) = of(all, 4 * group + k);
    }
    const uint64_t *const all = exchange(b0, b1);
    for (int k = 0; k < 4; ++k)
        for (int column = 0; column < 2; ++column)
            std::tie(right[k][column], right[4 + k][column]) = of(all, 4 * (2 * quad + column) + k);
    for (int place = 0; place < 4; ++place) {
        double terms = 0;
        for (int k = 0; k < 8; ++k)
            terms += cut_to_tf32(left[place / 2][k]) * cut_to_tf32(right[k][place % 2]);
        sum[place] = add_towards_zero(sum[place], terms);
    }
}
} // namespace equistride
