#include "ghosts.h"

#include <algorithm>
#include <cmath>

namespace equistride::lammps {
namespace {

// How far a message of the model travels, in cutoffs.
int message_passing_steps_of(const Model &model) {
    const Metadata &metadata = model.metadata();
    return std::max(1, static_cast<int>(std::lround(metadata.interaction_range / metadata.cutoff)));
}

GhostPolicy made(Ghosts kind, const Model &model) {
    const int steps = kind == Ghosts::wide ? message_passing_steps_of(model) : 1;
    return {kind, steps, steps * model.metadata().cutoff, kind == Ghosts::exchange && model.exchanges() > 0};
}

void check_divisible(const Model &model) {
    TORCH_CHECK_VALUE(model.supports_domain_decomposition(),
                      "the model cannot be divided among processes, because it gives nothing of some of its atoms "
                      "alone; run it on one process with `ghost auto`, or export it again");
}

} // namespace

GhostPolicy GhostPolicy::local(const Model &model) { return made(Ghosts::local, model); }

GhostPolicy GhostPolicy::divided(const Model &model) {
    check_divisible(model);
    const bool near = model.exchanges() > 0 || message_passing_steps_of(model) == 1;
    return made(near ? Ghosts::exchange : Ghosts::wide, model);
}

GhostPolicy GhostPolicy::of(const std::string &choice, const Model &model, int processes) {
    if (choice == "auto")
        return processes == 1 ? local(model) : divided(model);
    TORCH_CHECK_VALUE(processes == 1 || choice != "local", "`ghost local` is for one process; found ", processes,
                      "; use `ghost auto`");
    if (choice == "local")
        return local(model);
    const GhostPolicy best = divided(model);
    TORCH_CHECK_VALUE(choice == "wide" || best.kind == Ghosts::exchange,
                      "the model was exported without the exchange of features; use `ghost wide` or export it again");
    return choice == "wide" ? made(Ghosts::wide, model) : best;
}

} // namespace equistride::lammps
