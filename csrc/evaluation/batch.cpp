#include "evaluation/batch.h"

#include "model/checks.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

namespace equistride {
namespace {

/// Say of an error which frame it is about.
template <class Body> auto naming(std::size_t number, Body body) {
    try {
        return body();
    } catch (const c10::ValueError &error) {
        C10_THROW_ERROR(ValueError, c10::str("frame ", number, ": ", error.what_without_backtrace()));
    }
}

BatchOutputs apart(const std::vector<Outputs> &parts) {
    std::vector<at::Tensor> energies, atomic, forces, virials;
    for (const Outputs &part : parts) {
        energies.push_back(part.atomic_energies.sum(at::kDouble));
        atomic.push_back(part.atomic_energies);
        forces.push_back(part.forces);
        virials.push_back(part.virial);
    }
    return {at::stack(energies), at::cat(atomic), at::cat(forces), at::stack(virials)};
}

} // namespace

BatchOutputs compute_batch(Model &model, const std::vector<BatchFrame> &batch) {
    TORCH_CHECK_VALUE(!batch.empty(), "there are no frames to evaluate; expected one or more");
    const c10::InferenceMode no_inference(false);
    std::vector<Frame> frames;
    for (std::size_t number = 0; number < batch.size(); number++)
        frames.push_back(naming(number, [&] {
            const at::Tensor species = batch[number].species.to(model.device()), pbc = batch[number].pbc;
            model.check_composition(species);
            Frame frame = Placement(model, pbc).place(batch[number].at, species);
            find_edges(frame, pbc.to(model.device()), model.metadata().cutoff);
            return frame;
        }));
    if (frames.size() == 1 || !model.metadata().contract.batched) {
        std::vector<Outputs> parts;
        for (std::size_t number = 0; number < frames.size(); number++)
            parts.push_back(naming(number, [&] { return model.compute(frames[number]); }));
        return apart(parts);
    }
    std::vector<at::Tensor> vectors, species, edges, shifts, of_atom, of_edge;
    std::int64_t first = 0, number = 0;
    for (const Frame &frame : frames) {
        naming(static_cast<std::size_t>(number), [&] { check_inputs(frame, model); });
        vectors.push_back(edge_vectors(frame).to(model.dtype()));
        species.push_back(frame.species);
        edges.push_back(frame.edge_index + first);
        shifts.push_back(frame.shifts);
        of_atom.push_back(at::full_like(frame.species, number));
        of_edge.push_back(at::full_like(frame.edge_index[0], number));
        first += frame.species.size(0);
        number++;
    }
    const at::Tensor r = at::cat(vectors), all_edges = at::cat(edges, 1), frame_of_atom = at::cat(of_atom);
    const auto [energies, gradient] = model.compute_edges(r, at::cat(species), all_edges);
    BatchOutputs outputs;
    outputs.atomic_energies = energies;
    outputs.energies = at::zeros({number}, energies.options()).index_add(0, frame_of_atom, energies);
    outputs.forces = forces_from_edges(gradient, all_edges, at::cat(shifts), first);
    const at::Tensor outer = (r.unsqueeze(2) * gradient.unsqueeze(1)).neg();
    outputs.virials = at::zeros({number, 3, 3}, outer.options()).index_add(0, at::cat(of_edge), outer);
    std::int64_t start = 0;
    for (std::size_t k = 0; k < frames.size(); k++) {
        const std::int64_t n = frames[k].species.size(0);
        naming(k, [&] {
            check_outputs({energies.narrow(0, start, n), outputs.forces.narrow(0, start, n), {}, {}, {}}, frames[k]);
        });
        start += n;
    }
    return outputs;
}

} // namespace equistride
