// What a kernel on a GPU, which cannot raise, says of its list; the second number of neighbors_padded's summary.
#pragma once

namespace equistride {

enum Status : int { FINE = 0, NOT_FINITE = 1, SINGULAR = 2, TOO_MANY_IMAGES = 3, TOO_MANY_EDGES = 4 };

} // namespace equistride
