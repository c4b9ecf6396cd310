// Work captured as a CUDA graph. One launch replays it, whatever the number of its kernels.
#include "evaluation/captured_step.h"

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

namespace equistride {
namespace {

constexpr int WARM_UP = 2; // before a capture libraries must have made their handles and workspaces

class Event {
public:
    Event() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
    ~Event() { (void)cudaEventDestroy(event_); }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;

    /// @param inside  as a node of the graph that is being captured: each replay records it anew
    void record(cudaStream_t stream, bool inside = false) {
        C10_CUDA_CHECK(
            cudaEventRecordWithFlags(event_, stream, inside ? cudaEventRecordExternal : cudaEventRecordDefault));
    }
    void delay(cudaStream_t stream) const { C10_CUDA_CHECK(cudaStreamWaitEvent(stream, event_, 0)); }
    void wait() const { C10_CUDA_CHECK(cudaEventSynchronize(event_)); }

private:
    cudaEvent_t event_ = nullptr;
};

// Torch before 2.11 has no pools of pinned memory.
template <class Allocator> void forget_pinned(Allocator *allocator, at::cuda::MempoolId_t pool) {
    if constexpr (requires { allocator->end_allocate_to_pool(pool); })
        allocator->end_allocate_to_pool(pool);
    if constexpr (requires { allocator->release_pool(pool); })
        allocator->release_pool(pool);
}

template <class Call> void quietly(Call &&call) noexcept {
    try {
        call();
    } catch (...) { // another error is reported
    }
}

class Captured final : public CapturedStep {
public:
    Captured(c10::Device device, Work work)
        : device_(device), stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())),
          pool_(at::cuda::graph_pool_handle()) {
        before_.record(c10::cuda::getCurrentCUDAStream());
        before_.delay(stream_);
        const c10::cuda::CUDAStreamGuard on_stream(stream_);
        for (int k = 0; k < WARM_UP; k++)
            work([this] { mark_.record(stream_); });
        stream_.synchronize();
        // What the warm-up used cannot be had during the capture, which has a pool of its own.
        c10::cuda::CUDACachingAllocator::emptyCache();
        graph_.capture_begin(pool_, cudaStreamCaptureModeThreadLocal); // other threads may go on with theirs
        try {
            work([this] { mark_.record(stream_, /*inside=*/true); });
        } catch (...) {
            quietly([this] { end(); });
            throw;
        }
        end();
        graph_.instantiate(); // apart, so that from here on the graph has the pool, whatever fails
    }

    ~Captured() override { (void)cudaStreamSynchronize(stream_); } // its memory goes with the graph
    Captured(const Captured &) = delete;
    Captured &operator=(const Captured &) = delete;

    void run() override {
        const c10::cuda::CUDAGuard guard(device_);
        const c10::cuda::CUDAStream caller = c10::cuda::getCurrentCUDAStream();
        before_.record(caller);
        before_.delay(stream_);
        {
            const c10::cuda::CUDAStreamGuard on_stream(stream_);
            graph_.replay();
        }
        after_.record(stream_);
        after_.delay(caller);
    }

    void wait() override { mark_.wait(); }
    void finish() override { stream_.synchronize(); }
    void join() override { after_.delay(c10::cuda::getCurrentCUDAStream(device_.index())); }

private:
    // Where a capture was void, torch still believes that it allocates for it, and its graph will not give the pool
    // back. Where it was not, also one whose work failed half way, the graph has the pool and gives it back once.
    void end() {
        try {
            graph_.capture_end();
        } catch (...) {
            (void)cudaGetLastError();
            const c10::DeviceIndex index = stream_.device_index();
            quietly([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(index, pool_); });
            quietly([&] { c10::cuda::CUDACachingAllocator::releasePool(index, pool_); });
            quietly([&] { forget_pinned(at::getHostAllocator(at::kCUDA), pool_); });
            throw;
        }
    }

    c10::Device device_;
    c10::cuda::CUDAStream stream_;
    at::cuda::MempoolId_t pool_;
    Event before_, after_, mark_;
    at::cuda::CUDAGraph graph_{/*keep_graph=*/true};
};

} // namespace

std::unique_ptr<CapturedStep> capture(c10::Device device, CapturedStep::Work work) {
    const c10::cuda::CUDAGuard guard(device);
    return std::make_unique<Captured>(device, std::move(work));
}

} // namespace equistride
