// The contraction on the CPU: atoms of one species in fours, which share what is read of the table.
#include "checks.h"
#include "edges.h"
#include "symmetric_contraction/kernels.h"
#include "symmetric_contraction/symmetric_contraction.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <algorithm>

namespace equistride {

namespace {

template <class Real> const ContractionKernels<Real> &choose_contraction() {
    return for_this_processor(contraction_kernels<Real, InstructionSet::portable>,
                              contraction_kernels<Real, InstructionSet::avx2>,
                              contraction_kernels<Real, InstructionSet::avx512>)();
}

// The terms as the kernels walk over them; throws where one names a row that is not there.
struct Runs {
    std::vector<TermRun> runs;
    std::vector<TermLeaf> leaves;

    Runs(const Tensor &terms, int64_t inputs, int64_t outputs, int64_t rows) {
        const Tensor dense = terms.contiguous();
        const auto *term = reinterpret_cast<const Monomial *>(dense.const_data_ptr<int32_t>());
        for (int64_t t = 0; t < dense.size(0); ++t, ++term) {
            if (term->row == -1)
                continue;
            const auto end = std::find(term->factors, term->factors + MAX_FACTORS, -1);
            const auto outside = [inputs](int32_t i) { return i < 0 || i >= inputs; };
            TORCH_CHECK_INDEX(end != term->factors && std::none_of(term->factors, end, outside) && term->out >= 0 &&
                                  term->out < outputs && term->row >= 0 && term->row < rows,
                              "a term must name a row of the output below ", outputs, ", one of the table below ", rows,
                              " and one to four of x below ", inputs, "; found ", dense[t], " as term ", t);
            TermRun run{term->out, int32_t(end - term->factors) - 1, {-1, -1, -1}, 0, 0};
            std::copy(term->factors, end - 1, run.prefix);
            const auto same = [&](const TermRun &last) {
                return last.out == run.out && std::equal(run.prefix, run.prefix + 3, last.prefix);
            };
            if (runs.empty() || !same(runs.back())) {
                run.begin = int32_t(leaves.size());
                runs.push_back(run);
            }
            leaves.push_back({end[-1], term->row});
            runs.back().end = int32_t(leaves.size());
        }
    }
};

// The atoms by species: those of species z are order[first[z]] to order[first[z + 1] - 1].
struct BySpecies {
    std::vector<int64_t> first, order;

    BySpecies(const Tensor &species, int64_t count) : first(size_t(count) + 1, 0), order(size_t(species.size(0))) {
        const Tensor dense = species.contiguous();
        const int64_t *of = dense.const_data_ptr<int64_t>(), atoms = dense.size(0);
        for (int64_t n = 0; n < atoms; ++n) {
            TORCH_CHECK_INDEX(of[n] >= 0 && of[n] < count, "species must be below ", count, "; found ", of[n],
                              " at atom ", n);
            ++first[size_t(of[n]) + 1];
        }
        for (size_t z = 0; z < size_t(count); ++z)
            first[z + 1] += first[z];
        std::vector<int64_t> next(first.begin(), first.end() - 1);
        for (int64_t n = 0; n < atoms; ++n)
            order[size_t(next[size_t(of[n])]++)] = n;
    }
};

template <class Real> struct Problem {
    const Tensor x, table, grad; // dense; grad may be undefined
    const int64_t channels, inputs, outputs;
    const Runs runs;
    const BySpecies atoms;
    const ContractionKernels<Real> &kernels = choose_contraction<Real>();

    Problem(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms, const Tensor &grad,
            int64_t outputs)
        : x(x.contiguous()), table(table.contiguous()), grad(grad.defined() ? grad.contiguous() : grad),
          channels(table.size(2)), inputs(x.size(1) / channels), outputs(outputs),
          runs(terms, inputs, outputs, table.size(1)), atoms(species, table.size(0)) {}

    // Calls f with each four atoms, or fewer, of one species from place `begin` to place `end` of the order.
    template <class F> void fours(int64_t begin, int64_t end, Real *out, int64_t out_width, F &&f) const {
        Buffer<Real> scratch(2 * inputs * ATOMS * kernels.lanes);
        ContractionStep<Real> step{};
        step.runs = runs.runs.data();
        step.run_count = int64_t(runs.runs.size());
        step.leaves = runs.leaves.data();
        step.inputs = inputs;
        step.channels = channels;
        step.scratch = scratch.data();
        size_t z = 0;
        for (int64_t at = begin; at < end; at += step.atoms) {
            while (atoms.first[z + 1] <= at)
                ++z;
            step.atoms = int(std::min<int64_t>(ATOMS, std::min(end, atoms.first[z + 1]) - at));
            step.table = table.const_data_ptr<Real>() + int64_t(z) * table.stride(0);
            for (int b = 0; b < ATOMS; ++b) {
                const int64_t n = atoms.order[size_t(at + std::min(b, step.atoms - 1))];
                step.x[b] = x.const_data_ptr<Real>() + n * x.size(1);
                step.grad[b] = grad.defined() ? grad.const_data_ptr<Real>() + n * grad.size(1) : nullptr;
                step.out[b] = out + n * out_width;
            }
            f(step, int64_t(z));
        }
    }

    // A backward's operations; a forward has half as many.
    Threads work() const { return Threads(4.0 * double(runs.leaves.size()) * double(channels * x.size(0))); }

    // Rows of the output, or of the gradient of x, added to `out`.
    void rows(typename ContractionKernels<Real>::Kernel kernel, const Tensor &out) const {
        const Threads threads = work();
        threads.share(0, x.size(0), [&](int64_t begin, int64_t end) {
            fours(begin, end, out.mutable_data_ptr<Real>(), out.size(1),
                  [&](const ContractionStep<Real> &step, int64_t) {
                      for (int64_t c = 0; c < channels; c += kernels.lanes)
                          kernel(step, c);
                  });
        });
    }

    // Added to `out`, each channel by one thread, so that every sum has one order.
    void gradient_of_table(const Tensor &out) const {
        const int64_t vectors = (channels + kernels.lanes - 1) / kernels.lanes;
        const Threads threads = work();
        threads.share(0, vectors, threads.count(), [&](int64_t begin, int64_t end) {
            fours(0, x.size(0), nullptr, 0, [&](ContractionStep<Real> &step, int64_t z) {
                step.grad_table = out.mutable_data_ptr<Real>() + z * out.stride(0);
                for (int64_t v = begin; v < end; ++v)
                    kernels.backward_table(step, v * kernels.lanes);
            });
        });
    }
};

} // namespace

Tensor symmetric_contraction_cpu(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                                 int64_t outputs) {
    check_contraction(x, table, species, terms, outputs);
    return AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "symmetric_contraction", [&] {
        const Problem<scalar_t> problem(x, table, species, terms, Tensor(), outputs);
        const Tensor out = at::zeros({x.size(0), outputs * problem.channels}, x.options());
        problem.rows(problem.kernels.forward, out);
        return out;
    });
}

ContractionGradients symmetric_contraction_backward_cpu(const Tensor &grad, const Tensor &x, const Tensor &table,
                                                        const Tensor &species, const Tensor &terms,
                                                        std::array<bool, 2> wanted) {
    check_contraction(x, table, species, terms, 1);
    check_contraction_grad(grad, x, table);
    return AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "symmetric_contraction_backward", [&] {
        const Problem<scalar_t> problem(x, table, species, terms, grad, grad.size(1) / table.size(2));
        const Tensor on_x = memory_like(x, wanted[0], /*clear=*/true),
                     on_table = memory_like(table, wanted[1], /*clear=*/true);
        if (wanted[0])
            problem.rows(problem.kernels.backward, on_x);
        if (wanted[1])
            problem.gradient_of_table(on_table);
        return ContractionGradients(on_x, on_table);
    });
}

} // namespace equistride
