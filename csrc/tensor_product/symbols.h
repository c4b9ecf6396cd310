// Wigner 3j symbols of real spherical harmonics up to degree 2, known to the compiler: with them the sparse kernels of
// the GPU have every coefficient as an immediate number. Their scale is free (the symbols of three degrees are unique
// but for a factor), and here chosen so that the largest is 1.
#pragma once

namespace equistride {

constexpr int SPARSE_DEGREE = 2;

struct Symbol {
    int m1, m2, m3;
    double value;
};

constexpr double R = 0.86602540378443864676, H = 0.5; // sqrt(3) / 2

constexpr Symbol SYMBOLS_111[] = {{-1, 0, 1, 1}, {-1, 1, 0, -1}, {0, -1, 1, -1},
                                  {0, 1, -1, 1}, {1, -1, 0, 1},  {1, 0, -1, -1}};
constexpr Symbol SYMBOLS_112[] = {{-1, -1, 0, -H}, {-1, -1, 2, -R}, {-1, 0, -1, R}, {-1, 1, -2, R},
                                  {0, -1, -1, R},  {0, 0, 0, 1},    {0, 1, 1, R},   {1, -1, -2, R},
                                  {1, 0, 1, R},    {1, 1, 0, -H},   {1, 1, 2, R}};
constexpr Symbol SYMBOLS_122[] = {{-1, -2, -1, -H}, {-1, -1, -2, H}, {-1, 0, 1, R},  {-1, 1, 0, -R},
                                  {-1, 1, 2, H},    {-1, 2, 1, -H},  {0, -2, 2, -1}, {0, -1, 1, -H},
                                  {0, 1, -1, H},    {0, 2, -2, 1},   {1, -2, 1, H},  {1, -1, 0, R},
                                  {1, -1, 2, H},    {1, 0, -1, -R},  {1, 1, -2, -H}, {1, 2, -1, -H}};
constexpr Symbol SYMBOLS_222[] = {{-2, -2, 0, -1}, {-2, -1, 1, R},  {-2, 0, -2, -1}, {-2, 1, -1, R}, {-1, -2, 1, R},
                                  {-1, -1, 0, H},  {-1, -1, 2, -R}, {-1, 0, -1, H},  {-1, 1, -2, R}, {-1, 2, -1, -R},
                                  {0, -2, -2, -1}, {0, -1, -1, H},  {0, 0, 0, 1},    {0, 1, 1, H},   {0, 2, 2, -1},
                                  {1, -2, -1, R},  {1, -1, -2, R},  {1, 0, 1, H},    {1, 1, 0, H},   {1, 1, 2, R},
                                  {1, 2, 1, R},    {2, -1, -1, -R}, {2, 0, 2, -1},   {2, 1, 1, R},   {2, 2, 0, -1}};

template <int N> constexpr double find_symbol(const Symbol (&symbols)[N], int m1, int m2, int m3) {
    for (const Symbol &symbol : symbols)
        if (symbol.m1 == m1 && symbol.m2 == m2 && symbol.m3 == m3)
            return symbol.value;
    return 0;
}

// The symbol, with its degrees in any order; reordering changes no more than the sign of all symbols of three degrees.
constexpr double symbol(int l1, int l2, int l3, int m1, int m2, int m3) {
    if (l1 > l2)
        return symbol(l2, l1, l3, m2, m1, m3);
    if (l2 > l3)
        return symbol(l1, l3, l2, m1, m3, m2);
    if (l1 == 0)
        return l2 == l3 && m2 == m3 ? 1 : 0;
    if (l1 == 1 && l2 == 1)
        return l3 == 1 ? find_symbol(SYMBOLS_111, m1, m2, m3) : find_symbol(SYMBOLS_112, m1, m2, m3);
    return l1 == 1 ? find_symbol(SYMBOLS_122, m1, m2, m3) : find_symbol(SYMBOLS_222, m1, m2, m3);
}

// Once for each set of numbers, however often the kernels ask.
template <int L1, int L2, int L3, int M1, int M2, int M3> constexpr double SYMBOL = symbol(L1, L2, L3, M1, M2, M3);

// Whether M[m1, m3], the symbols contracted with harmonics, can differ from zero.
constexpr bool fills(int l1, int l2, int l3, int m1, int m3) {
    for (int m2 = -l2; m2 <= l2; ++m2)
        if (symbol(l1, l2, l3, m1, m2, m3) != 0)
            return true;
    return false;
}
template <int L1, int L2, int L3, int M1, int M3> constexpr bool FILLS = fills(L1, L2, L3, M1, M3);

// The pairs (l2, l3) that couple with l1 within degree 2, in this order.
struct Pair {
    int l2, l3;
};
constexpr int count_pairs(int l1) { return l1 == 0 ? 3 : 6; }
constexpr int MAX_PAIRS = 6;
constexpr Pair pair_of(int l1, int index) {
    for (int l2 = 0; l2 <= SPARSE_DEGREE; ++l2)
        for (int l3 = l1 > l2 ? l1 - l2 : l2 - l1; l3 <= l1 + l2 && l3 <= SPARSE_DEGREE; ++l3)
            if (index-- == 0)
                return {l2, l3};
    return {-1, -1};
}
// Output columns of the pairs before this one.
constexpr int columns_before(int l1, int index) {
    int columns = 0;
    for (int k = 0; k < index; ++k)
        columns += 2 * pair_of(l1, k).l3 + 1;
    return columns;
}

} // namespace equistride
