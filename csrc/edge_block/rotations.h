// Rotations of real spherical harmonics, polar axis y, order m = -l..l: their Wigner matrices by the recursion of
// Ivanic and Ruedenberg, J. Phys. Chem. 100, 6342 (1996), with its errata, 102, 9099 (1998), where D^l is bilinear in
// D^1 and D^(l-1), and their generators. Known to the compiler, for the host and the GPU.
#pragma once
#include "edge_block/kernels.h"
#include "host_device.h"

#include <cmath>

namespace equistride {

// D^l[out] += value * D^1[a] * D^(l-1)[b]
struct FrameTerm {
    int out = 0, a = 0, b = 0;
    double value = 0;
};

constexpr int MAX_FRAME = 9 + 25 + 49 + 81; // entries of D^1 to D^4
constexpr int MAX_FRAME_TERMS = 341;        // of D^4, which has the most

class Recursion {
public:
    int count = 0;
    FrameTerm terms[MAX_FRAME_TERMS];

    constexpr explicit Recursion(int degree) : l_(degree) {
        for (int m = -l_; m <= l_; ++m)
            for (int n = -l_; n <= l_; ++n)
                entry(m, n);
    }

private:
    int l_;

    static constexpr double square_root(double x) {
        double root = x > 1 ? x : 1;
        for (int step = 0; step < 60 && x > 0; ++step)
            root = 0.5 * (root + x / root);
        return x > 0 ? root : 0;
    }

    constexpr void entry(int m, int n) {
        const int size = m < 0 ? -m : m;
        const double d = m == 0 ? 1 : 0;
        const double scale = n > -l_ && n < l_ ? (l_ + n) * (l_ - n) : 2 * l_ * (2 * l_ - 1);
        const double u = square_root((l_ + m) * (l_ - m) / scale);
        const double v = 0.5 * square_root((1 + d) * (l_ + size - 1) * (l_ + size) / scale) * (1 - 2 * d);
        const double w = -0.5 * square_root((l_ - size - 1) * (l_ - size) / scale) * (1 - d);
        if (u != 0)
            term(u, 0, m, m, n);
        if (m == 0) {
            term(v, 1, 1, m, n);
            term(v, -1, -1, m, n);
        } else if (m > 0) {
            term(v * (m == 1 ? square_root(2) : 1), 1, m - 1, m, n);
            term(m == 1 ? 0 : -v, -1, 1 - m, m, n);
        } else {
            term(m == -1 ? 0 : v, 1, m + 1, m, n);
            term(v * (m == -1 ? square_root(2) : 1), -1, -m - 1, m, n);
        }
        if (w != 0) {
            term(w, 1, m > 0 ? m + 1 : m - 1, m, n);
            term(m > 0 ? w : -w, -1, m > 0 ? -m - 1 : 1 - m, m, n);
        }
    }

    // P of the paper: order i of D^1 with row k of D^(l-1).
    constexpr void term(double value, int i, int k, int m, int n) {
        if (value == 0)
            return;
        if (n == l_) {
            add(value, i, 1, k, l_ - 1, m, n);
            add(-value, i, -1, k, 1 - l_, m, n);
        } else if (n == -l_) {
            add(value, i, 1, k, 1 - l_, m, n);
            add(value, i, -1, k, l_ - 1, m, n);
        } else {
            add(value, i, 0, k, n, m, n);
        }
    }

    constexpr void add(double value, int i, int j, int k, int column, int m, int n) {
        terms[count++] = {(m + l_) * (2 * l_ + 1) + n + l_, (i + 1) * 3 + j + 1,
                          (k + l_ - 1) * (2 * l_ - 1) + column + l_ - 1, value};
    }
};

struct Recursions { // of D^2, D^3, D^4
    Recursion of[MAX_L - 1] = {Recursion(2), Recursion(3), Recursion(4)};
};

// D^2 to D^l_max one after the other, from D^1. T: numbers, or several at once.
template <class T> constexpr void fill_frames(const Recursions &recursions, T *frame, int l_max) {
    T *before = frame, *next = frame + 9;
    for (int l = 2; l <= l_max; ++l) {
        const int entries = (2 * l + 1) * (2 * l + 1);
        for (int k = 0; k < entries; ++k)
            next[k] = T{};
        const Recursion &recursion = recursions.of[l - 2];
        for (int k = 0; k < recursion.count; ++k) {
            const FrameTerm &term = recursion.terms[k];
            next[term.out].add(term.value, frame[term.a], before[term.b]);
        }
        before = next;
        next += entries;
    }
}

// The first nine entries: the frame of equistride.nn.rotation.bond_frame, no pole, a jump by a roll about the bond
// where z changes sign.
template <class Real> EQUISTRIDE_HD inline void bond_frame(const Real *vector, Real (&rows)[9]) {
    const Real length = std::sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2]);
    const Real x = vector[0] / length, y = vector[1] / length, z = vector[2] / length;
    const Real s = z >= 0 ? Real(1) : Real(-1), a = -1 / (s + z), b = x * y * a;
    const Real all[9] = {b, s + y * y * a, -y, x, y, z, 1 + s * x * x * a, s * b, -s * x};
    for (int k = 0; k < 9; ++k)
        rows[k] = all[k];
}

// A rotation of everything by a small angle w turns the frame as a bond turned by -w does, so that the gradient to the
// bond is n x torque / r.
template <class Real> EQUISTRIDE_HD void turn_bond(const Real *vector, const Real *torque, Real *on_vector) {
    const Real square = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
    for (int k = 0; k < 3; ++k) {
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        on_vector[k] = (vector[a] * torque[b] - vector[b] * torque[a]) / square;
    }
}

// A value and its derivative.
struct Dual {
    double value = 0, slope = 0;
    constexpr void add(double factor, const Dual &a, const Dual &b) {
        value += factor * a.value * b.value;
        slope += factor * (a.slope * b.value + a.value * b.slope);
    }
};

template <class Real> constexpr Generators<Real> make_generators() {
    Generators<Real> made{};
    const Recursions recursions;
    for (int axis = 0; axis < 3; ++axis) {
        Dual frame[MAX_FRAME] = {}; // a rotation by zero, whose angle has the derivative one
        const int from = (axis + 1) % 3, to = (axis + 2) % 3;
        for (int k = 0; k < 3; ++k)
            frame[4 * k].value = 1;
        frame[to * 3 + from].slope = 1;
        frame[from * 3 + to].slope = -1;
        fill_frames(recursions, frame, MAX_L);
        for (int l = 1, start = 0; l <= MAX_L; start += (2 * l + 1) * (2 * l + 1), ++l) {
            const GeneratorEntries entries = generator_entries(l, axis);
            for (int k = 0; k < entries.count; ++k)
                made.of[l][axis].value[k] = Real(frame[start + entries.row[k] * (2 * l + 1) + entries.column[k]].slope);
        }
    }
    return made;
}

// Of rotations about x, y, z, by degree.
template <class Real> constexpr Generators<Real> GENERATORS = make_generators<Real>();

} // namespace equistride
