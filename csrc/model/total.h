// Sums over all atoms in the middle of a network, whatever processes share the atoms.
#pragma once

#include "model/communicator.h"

namespace equistride {

/// Whose rows the operator `equistride::total` adds: the first `owned` of a frame, on all processes. Other rows are
/// ghosts, which their owners add, or padding, which nobody does.
struct AllAtoms {
    const Communicator &communicator;
    std::int64_t owned;
};

/// The calling thread's models add up these atoms while this lives; without it all rows that they have.
class EQUISTRIDE_API TotalScope {
public:
    explicit TotalScope(const AllAtoms &atoms);
    ~TotalScope();
    TotalScope(const TotalScope &) = delete;
    TotalScope &operator=(const TotalScope &) = delete;

private:
    AllAtoms atoms_;
    const AllAtoms *before_;
};

} // namespace equistride
