// OpenMM and torch each have a CUDA context and a stream; events order the two without stopping the host.
#pragma once

#include <cuda.h>
#include <openmm/OpenMMException.h>

#include <string>

namespace equistride {

inline void check_cuda(CUresult result, const char *what) {
    if (result == CUDA_SUCCESS)
        return;
    const char *name = nullptr;
    cuGetErrorString(result, &name);
    throw OpenMM::OpenMMException(std::string("CUDA failed to ") + what + " (" + (name ? name : "unknown error") +
                                  "); another program may have taken the GPU or its memory");
}

/// The device's primary context, in which torch works; retained while this lives.
class PrimaryContext {
public:
    explicit PrimaryContext(CUdevice device) : device_(device) {
        check_cuda(cuDevicePrimaryCtxRetain(&context_, device_), "retain the primary context");
    }
    ~PrimaryContext() { cuDevicePrimaryCtxRelease(device_); }
    PrimaryContext(const PrimaryContext &) = delete;
    PrimaryContext &operator=(const PrimaryContext &) = delete;
    CUcontext get() const { return context_; }

private:
    CUdevice device_;
    CUcontext context_ = nullptr;
};

/// Makes a context current while it lives, also when an exception passes.
class CurrentContext {
public:
    explicit CurrentContext(CUcontext context) { check_cuda(cuCtxPushCurrent(context), "switch contexts"); }
    ~CurrentContext() {
        CUcontext popped;
        cuCtxPopCurrent(&popped);
    }
    CurrentContext(const CurrentContext &) = delete;
    CurrentContext &operator=(const CurrentContext &) = delete;
};

/// An event of one context; streams of any context may wait for it.
class Event {
public:
    explicit Event(CUcontext context) : context_(context) {
        const CurrentContext current(context_);
        check_cuda(cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), "create an event");
    }
    ~Event() {
        if (cuCtxPushCurrent(context_) != CUDA_SUCCESS)
            return;
        cuEventDestroy(event_);
        CUcontext popped;
        cuCtxPopCurrent(&popped);
    }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;

    /// Call with the event's own context current.
    void record(CUstream stream) { check_cuda(cuEventRecord(event_, stream), "record an event"); }
    void delay(CUstream stream) const { check_cuda(cuStreamWaitEvent(stream, event_, 0), "wait for an event"); }

private:
    CUcontext context_;
    CUevent event_ = nullptr;
};

} // namespace equistride
