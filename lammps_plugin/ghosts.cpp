#include "ghosts.h"

namespace equistride::lammps {
namespace {

GhostPolicy made(Ghosts kind, const Model &model) {
    const Contract &contract = model.metadata().contract;
    const int steps = kind == Ghosts::wide ? contract.message_passing_steps : 1;
    return {kind, steps, steps * model.metadata().cutoff, kind == Ghosts::exchange && contract.exchanges()};
}

void check_divisible(const Model &model) {
    TORCH_CHECK_VALUE(model.metadata().contract.decomposable,
                      "the model cannot be divided among processes, because it gives nothing of some of its atoms "
                      "alone; run it on one process with `ghost auto`, or export it again");
}

} // namespace

GhostPolicy GhostPolicy::local(const Model &model) { return made(Ghosts::local, model); }

GhostPolicy GhostPolicy::divided(const Model &model) {
    check_divisible(model);
    const Contract &contract = model.metadata().contract;
    const bool near = contract.exchanges() || contract.message_passing_steps == 1;
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
