// Torch's autograd refuses to run while its thread holds Python's GIL, and some callers of ours hold it
// (LocalEnergyMinimizer with a reporter, XmlSerializer). Python is not linked: in a C++ host these are null.
#pragma once

extern "C" {
int Py_IsInitialized() __attribute__((weak));
int PyGILState_Check() __attribute__((weak));
void *PyEval_SaveThread() __attribute__((weak));
void PyEval_RestoreThread(void *) __attribute__((weak));
}

namespace equistride {

/// Releases the GIL while it lives, if this thread holds it.
class GilRelease {
public:
    GilRelease() {
        if (PyGILState_Check && PyEval_SaveThread && Py_IsInitialized && Py_IsInitialized() && PyGILState_Check())
            state_ = PyEval_SaveThread();
    }
    ~GilRelease() {
        if (state_)
            PyEval_RestoreThread(state_);
    }
    GilRelease(const GilRelease &) = delete;
    GilRelease &operator=(const GilRelease &) = delete;

private:
    void *state_ = nullptr;
};

} // namespace equistride
