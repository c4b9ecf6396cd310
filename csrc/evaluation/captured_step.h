// Work that is done again and again on the same tensors: on a GPU, a captured graph.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace equistride {

class CapturedStep {
public:
    /// Called with `mark`, which it calls once: at the place that wait() waits for.
    using Work = std::function<void(const std::function<void()> &mark)>;

    virtual ~CapturedStep() = default;
    /// Do the work, in order with what the current stream is doing; returns before a GPU has done it.
    virtual void run() = 0;
    /// Wait until the last run() has come to its mark.
    virtual void wait() = 0;
    /// Wait until it is done.
    virtual void finish() = 0;
    /// Let what the current stream does next follow the last run().
    virtual void join() = 0;
};

/// On a GPU the work is done twice to warm up and then captured, so it must not wait for the device; raises c10::Error
/// where it does.
std::unique_ptr<CapturedStep> repeat(c10::Device device, CapturedStep::Work work);

} // namespace equistride
