// What the CUDA sources share: how a kernel is launched, the size of a block, and small device functions.
//
// Sources launch through launch() and not with <<<>>>, so that they are plain C++ to a compiler of the host: the tests
// run them there, with headers that stand for the GPU.
#pragma once
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cstdint>
#include <utility>

namespace equistride {

constexpr int THREADS = 128, WARP = 32, WARPS = THREADS / WARP; // of a block
constexpr unsigned ALL = 0xffffffffu;                           // lanes of a warp

#ifdef __CUDACC__
#define EQUISTRIDE_NOINLINE __noinline__

constexpr int64_t SLAB_BYTES = int64_t(256) << 20; // of scratch, where an operator works slab by slab

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments &&...arguments) {
    kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class Real> __device__ __forceinline__ Real *shared_memory() {
    extern __shared__ __align__(16) unsigned char equistride_shared_memory[];
    return reinterpret_cast<Real *>(equistride_shared_memory);
}

// Of the current device: bytes of shared memory that a block may take at most, and its multiprocessors.
inline int device_attribute(cudaDeviceAttr attribute) {
    int device = 0, value = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
    return value;
}
// Of the capture that the stream is under, 0 for none.
inline unsigned long long capture_of(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    C10_CUDA_CHECK(cudaStreamGetCaptureInfo(stream, &status, &id));
    return status == cudaStreamCaptureStatusActive ? id : 0;
}
inline int shared_memory_limit() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

// The same with shared memory whose size is known at run time, to be had by shared_memory(). What a kernel may take is
// state of the kernel, which threads share: always all that there is, as another may be between the two calls.
template <class... Parameters, class... Arguments>
void launch_with_memory(void (*kernel)(Parameters...), int64_t bytes, dim3 grid, dim3 block, cudaStream_t stream,
                        Arguments &&...arguments) {
    C10_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, shared_memory_limit()));
    kernel<<<grid, block, size_t(bytes), stream>>>(static_cast<Parameters>(arguments)...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Bytes of memory of the first device that is asked for; the others are taken to be like it.
inline int64_t device_memory() {
    static const int64_t all = [] {
        size_t free = 0, total = 0;
        C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
        return int64_t(total);
    }();
    return all;
}
#endif

inline unsigned blocks_of(int64_t threads) { return unsigned((threads + THREADS - 1) / THREADS); }

// First place in sorted keys that is not below the value.
template <class Key> __device__ int64_t lower_bound(const Key *keys, int64_t count, int64_t value) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (int64_t(keys[middle]) < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Call f with 0, 1, ... N - 1 as compile-time constants.
template <class F, int... I> __device__ __forceinline__ void each_of(F &f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> __device__ __forceinline__ void each(F &&f) {
    each_of(f, std::make_integer_sequence<int, N>{});
}

// Sum of a value over the lanes, the same in all of them.
template <class Real> __device__ Real sum_lanes(Real value) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// Sums of sixteen values over the lanes at once: lane k returns the sum of values[k / 2]. Each step halves what a lane
// still holds, so that it costs sixteen exchanges and not eighty.
template <class Real> __device__ Real sum_sixteen(Real (&values)[16], int lane) {
    each<4>([&](auto k) {
        constexpr int half = 8 >> k;
        const bool upper = lane & (2 * half);
        each<half>([&](auto i) {
            const Real send = upper ? values[i] : values[i + half], keep = upper ? values[i + half] : values[i];
            values[i] = keep + __shfl_xor_sync(ALL, send, 2 * half);
        });
    });
    return values[0] + __shfl_xor_sync(ALL, values[0], 1);
}

} // namespace equistride
