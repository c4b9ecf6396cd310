// Wigner matrices of real spherical harmonics by the recursion of Ivanic and Ruedenberg, J. Phys. Chem. 100, 6342
// (1996), with its errata, 102, 9099 (1998): D^l is bilinear in D^1 and D^(l-1). Polar axis y, order m = -l..l.
#include "edge_block/edge_block.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <cmath>
#include <vector>

namespace equistride {

namespace {

// D^l[out] += value * D^1[a] * D^(l-1)[b]
struct Product {
    int out, a, b;
    double value;
};

class Recursion {
public:
    explicit Recursion(int degree) : l_(degree) {
        for (int m = -l_; m <= l_; ++m)
            for (int n = -l_; n <= l_; ++n)
                entry(m, n);
    }
    std::vector<Product> products;

private:
    int l_;

    void entry(int m, int n) {
        const int size = std::abs(m);
        const double d = m == 0 ? 1 : 0;
        const double scale = std::abs(n) < l_ ? (l_ + n) * (l_ - n) : 2 * l_ * (2 * l_ - 1);
        const double u = std::sqrt((l_ + m) * (l_ - m) / scale);
        const double v = 0.5 * std::sqrt((1 + d) * (l_ + size - 1) * (l_ + size) / scale) * (1 - 2 * d);
        const double w = -0.5 * std::sqrt((l_ - size - 1) * (l_ - size) / scale) * (1 - d);
        if (u != 0)
            term(u, 0, m, m, n);
        if (m == 0) {
            term(v, 1, 1, m, n);
            term(v, -1, -1, m, n);
        } else if (m > 0) {
            term(v * (m == 1 ? std::sqrt(2.0) : 1), 1, m - 1, m, n);
            term(m == 1 ? 0 : -v, -1, 1 - m, m, n);
        } else {
            term(m == -1 ? 0 : v, 1, m + 1, m, n);
            term(v * (m == -1 ? std::sqrt(2.0) : 1), -1, -m - 1, m, n);
        }
        if (w != 0) {
            term(w, 1, m > 0 ? m + 1 : m - 1, m, n);
            term(m > 0 ? w : -w, -1, m > 0 ? -m - 1 : 1 - m, m, n);
        }
    }

    // P of the paper: order i of D^1 with row k of D^(l-1).
    void term(double value, int i, int k, int m, int n) {
        if (value == 0)
            return;
        if (n == l_) {
            product(value, i, 1, k, l_ - 1, m, n);
            product(-value, i, -1, k, 1 - l_, m, n);
        } else if (n == -l_) {
            product(value, i, 1, k, 1 - l_, m, n);
            product(value, i, -1, k, l_ - 1, m, n);
        } else {
            product(value, i, 0, k, n, m, n);
        }
    }

    void product(double value, int i, int j, int k, int column, int m, int n) {
        products.push_back({(m + l_) * (2 * l_ + 1) + n + l_, (i + 1) * 3 + j + 1,
                            (k + l_ - 1) * (2 * l_ - 1) + column + l_ - 1, value});
    }
};

const Recursion &recursion(int degree) {
    static const Recursion all[] = {Recursion(2), Recursion(3), Recursion(4)};
    return all[degree - 2];
}

// D^1 to D^l_max one after the other, from D^1. T: numbers, or several at once.
template <class T> void fill_frames(T *frame, int l_max) {
    T *before = frame, *next = frame + 9;
    for (int l = 2; l <= l_max; ++l) {
        const int entries = (2 * l + 1) * (2 * l + 1);
        std::fill_n(next, entries, T{});
        for (const Product &p : recursion(l).products)
            next[p.out].add(p.value, frame[p.a], before[p.b]);
        before = next;
        next += entries;
    }
}

// A value and its derivative.
struct Dual {
    double value = 0, slope = 0;
    void add(double factor, const Dual &a, const Dual &b) {
        value += factor * a.value * b.value;
        slope += factor * (a.slope * b.value + a.value * b.slope);
    }
};

constexpr int BATCH = 16;
template <class Real> struct Batch {
    Real of[BATCH] = {};
    void add(double factor, const Batch &a, const Batch &b) {
        for (int k = 0; k < BATCH; ++k)
            of[k] += Real(factor) * a.of[k] * b.of[k];
    }
};

constexpr int MAX_FRAME = 9 + 25 + 49 + 81;

// The frame of equistride.nn.rotation.bond_frame: no pole, a jump by a roll about the bond where z changes sign.
template <class Real> void bond_frame(const Real *vector, Batch<Real> *frame, int lane) {
    const Real length = std::sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]);
    const Real x = vector[0] / length, y = vector[1] / length, z = vector[2] / length;
    const Real s = z >= 0 ? Real(1) : Real(-1), a = -1 / (s + z), b = x * y * a;
    const Real rows[] = {b, s + y * y * a, -y, x, y, z, 1 + s * x * x * a, s * b, -s * x};
    for (int k = 0; k < 9; ++k)
        frame[k].of[lane] = rows[k];
}

} // namespace

template <class Real> const Generators<Real> &rotation_generators() {
    static const Generators<Real> all = [] {
        Generators<Real> made;
        for (int axis = 0; axis < 3; ++axis) {
            Dual frame[MAX_FRAME] = {}; // a rotation by zero, whose angle has the derivative one
            const int from = (axis + 1) % 3, to = (axis + 2) % 3;
            for (int k = 0; k < 3; ++k)
                frame[4 * k].value = 1;
            frame[to * 3 + from].slope = 1;
            frame[from * 3 + to].slope = -1;
            fill_frames(frame, MAX_L);
            for (int l = 1, start = 0; l <= MAX_L; start += (2 * l + 1) * (2 * l + 1), ++l) {
                const GeneratorEntries entries = generator_entries(l, axis);
                for (int k = 0; k < entries.count; ++k)
                    made.of[l][axis].value[k] =
                        Real(frame[start + entries.row[k] * (2 * l + 1) + entries.column[k]].slope);
            }
        }
        return made;
    }();
    return all;
}

template const Generators<float> &rotation_generators<float>();
template const Generators<double> &rotation_generators<double>();

Tensor bond_frames_cpu(const Tensor &vectors, int64_t l_max) {
    check_bonds(vectors, l_max);
    const Shape shape(l_max, 0, 1, 1, true);
    const int64_t edges = vectors.size(0), width = shape.frame_size;
    const Tensor from = vectors.contiguous(), frames = at::empty({edges, width}, vectors.options());
    AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_frames", [&] {
        const scalar_t *in = from.const_data_ptr<scalar_t>();
        scalar_t *out = frames.mutable_data_ptr<scalar_t>();
        at::parallel_for(0, edges, 1024, [&](int64_t begin, int64_t end) {
            Batch<scalar_t> batch[MAX_FRAME];
            for (int64_t e = begin; e < end && l_max > 0; e += BATCH) {
                const int count = int(std::min<int64_t>(BATCH, end - e));
                for (int k = 0; k < count; ++k)
                    bond_frame(in + 3 * (e + k), batch, k);
                fill_frames(batch, int(l_max));
                for (int k = 0; k < count; ++k)
                    for (int64_t c = 0; c < width; ++c)
                        out[(e + k) * width + c] = batch[c].of[k];
            }
        });
    });
    return frames;
}

} // namespace equistride
