#include "neighbors/scan.h"
#include "instruction_set.h"

#include <algorithm>
#include <bit>
#include <limits>

#if defined(__x86_64__) && defined(__GNUC__)
#define EQUISTRIDE_X86
#include <immintrin.h>
#endif

namespace equistride {

// Kept out of the vectorised functions, so that no version fuses a multiplication and an addition that another does
// not.
[[gnu::noinline]] bool inside(const double *receiver, const double *sender, const double *shift, double cutoff2) {
    double sum = 0;
    for (int x = 0; x < 3; ++x) {
        const double d = (sender[x] - receiver[x]) + shift[x];
        sum += d * d;
    }
    return sum < cutoff2;
}

namespace {

template <class Key> struct Origin {
    float x, y, z;
    Origin(const Atoms<Key> &atoms, int self, const Run &run) {
        const double *own = atoms.position + 3 * int64_t(self);
        x = float(own[0] - run.shift[0] - atoms.middle[0]);
        y = float(own[1] - run.shift[1] - atoms.middle[1]);
        z = float(own[2] - run.shift[2] - atoms.middle[2]);
    }
};

template <class Key>
bool exactly_inside(const Atoms<Key> &atoms, int self, int other, const Run &run, const Band &band) {
    return inside(atoms.position + 3 * int64_t(self), atoms.position + 3 * int64_t(other), run.shift, band.cutoff2);
}

constexpr int RANK_LIMIT = 512; // counting ranks is quadratic; beyond this a comparison sort wins

void sort_portable(int32_t *keys, int count, int32_t *sorted) {
    if (count > RANK_LIMIT / 4) {
        std::sort(keys, keys + count);
        std::copy(keys, keys + count, sorted);
        return;
    }
    int32_t rank[RANK_LIMIT / 4] = {};
    for (int e = 0; e < count; ++e)
        for (int k = 0; k < count; ++k)
            rank[k] += keys[e] < keys[k];
    for (int k = 0; k < count; ++k)
        sorted[rank[k]] = keys[k];
}

} // namespace

template <class Key>
int gather_portable(const Atoms<Key> &atoms, const Run *runs, int count, int self, Key self_key, const Band &band,
                    Key *found) {
    int n = 0;
    for (const Run *run = runs; run != runs + count; ++run) {
        const Origin<Key> at(atoms, self, *run);
        for (int p = run->begin; p < run->end; ++p) {
            const float dx = atoms.x[p] - at.x, dy = atoms.y[p] - at.y, dz = atoms.z[p] - at.z;
            const float d2 = dx * dx + dy * dy + dz * dz;
            const Key key = atoms.key[p] | Key(run->code);
            found[n] = key;
            bool keep = (d2 < band.outer) & (key != self_key);
            if (keep && d2 >= band.inner) [[unlikely]]
                keep = exactly_inside(atoms, self, p, *run, band);
            n += keep;
        }
    }
    return n;
}

template int gather_portable(const Atoms<int32_t> &, const Run *, int, int, int32_t, const Band &, int32_t *);
template int gather_portable(const Atoms<int64_t> &, const Run *, int, int, int64_t, const Band &, int64_t *);

namespace {

#ifdef EQUISTRIDE_X86

struct CompressTable {
    alignas(32) int32_t lanes[256][8];
    constexpr CompressTable() : lanes{} {
        for (int mask = 0; mask < 256; ++mask)
            for (int bit = 0, n = 0; bit < 8; ++bit)
                if (mask >> bit & 1)
                    lanes[mask][n++] = bit;
    }
};
constexpr CompressTable COMPRESS;

__attribute__((target("avx2,fma,popcnt"))) int gather_avx2(const Atoms<int32_t> &atoms, const Run *runs, int count,
                                                           int self, int32_t self_key, const Band &band,
                                                           int32_t *found) {
    int n = 0;
    const __m256 outer = _mm256_set1_ps(band.outer), inner = _mm256_set1_ps(band.inner);
    const __m256i own = _mm256_set1_epi32(self_key);
    for (const Run *run = runs; run != runs + count; ++run) {
        const Origin<int32_t> at(atoms, self, *run);
        const __m256 x = _mm256_set1_ps(at.x), y = _mm256_set1_ps(at.y), z = _mm256_set1_ps(at.z);
        const __m256i code = _mm256_set1_epi32(int32_t(run->code));
        for (int p = run->begin; p < run->end; p += 8) {
            const __m256 dx = _mm256_sub_ps(_mm256_loadu_ps(atoms.x + p), x);
            const __m256 dy = _mm256_sub_ps(_mm256_loadu_ps(atoms.y + p), y);
            const __m256 dz = _mm256_sub_ps(_mm256_loadu_ps(atoms.z + p), z);
            const __m256 d2 = _mm256_fmadd_ps(dz, dz, _mm256_fmadd_ps(dy, dy, _mm256_mul_ps(dx, dx)));
            const __m256i key =
                _mm256_or_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(atoms.key + p)), code);
            unsigned keep = unsigned(_mm256_movemask_ps(_mm256_cmp_ps(d2, outer, _CMP_LT_OQ)));
            keep &= ~unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(key, own))));
            keep &= 0xffu >> (8 - std::min(8, run->end - p));
            unsigned close = keep & unsigned(_mm256_movemask_ps(_mm256_cmp_ps(d2, inner, _CMP_GE_OQ)));
            for (; close != 0; close &= close - 1) {
                const int bit = std::countr_zero(close);
                if (!exactly_inside(atoms, self, p + bit, *run, band))
                    keep &= ~(1u << bit);
            }
            const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i *>(COMPRESS.lanes[keep]));
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(found + n), _mm256_permutevar8x32_epi32(key, lanes));
            n += std::popcount(keep);
        }
    }
    return n;
}

__attribute__((target("avx2"))) void sort_avx2(int32_t *keys, int count, int32_t *sorted) {
    if (count > RANK_LIMIT / 2) {
        std::sort(keys, keys + count);
        std::copy(keys, keys + count, sorted);
        return;
    }
    std::fill(keys + count, keys + ((count + 31) & ~31), std::numeric_limits<int32_t>::max());
    alignas(32) int32_t rank[32];
    for (int block = 0; block < count; block += 32) {
        const __m256i *at = reinterpret_cast<const __m256i *>(keys + block);
        const __m256i a = _mm256_loadu_si256(at), b = _mm256_loadu_si256(at + 1), c = _mm256_loadu_si256(at + 2),
                      d = _mm256_loadu_si256(at + 3);
        __m256i ra = _mm256_setzero_si256(), rb = ra, rc = ra, rd = ra;
        for (int e = 0; e < count; ++e) {
            const __m256i other = _mm256_set1_epi32(keys[e]);
            ra = _mm256_sub_epi32(ra, _mm256_cmpgt_epi32(a, other));
            rb = _mm256_sub_epi32(rb, _mm256_cmpgt_epi32(b, other));
            rc = _mm256_sub_epi32(rc, _mm256_cmpgt_epi32(c, other));
            rd = _mm256_sub_epi32(rd, _mm256_cmpgt_epi32(d, other));
        }
        __m256i *out = reinterpret_cast<__m256i *>(rank);
        _mm256_store_si256(out, ra);
        _mm256_store_si256(out + 1, rb);
        _mm256_store_si256(out + 2, rc);
        _mm256_store_si256(out + 3, rd);
        for (int k = 0; k < std::min(32, count - block); ++k)
            sorted[rank[k]] = keys[block + k];
    }
}

#define WITH_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")))

WITH_AVX512 int gather_avx512(const Atoms<int32_t> &atoms, const Run *runs, int count, int self, int32_t self_key,
                              const Band &band, int32_t *found) {
    int n = 0;
    const __m512 outer = _mm512_set1_ps(band.outer), inner = _mm512_set1_ps(band.inner);
    const __m512i own = _mm512_set1_epi32(self_key);
    for (const Run *run = runs; run != runs + count; ++run) {
        const Origin<int32_t> at(atoms, self, *run);
        const __m512 x = _mm512_set1_ps(at.x), y = _mm512_set1_ps(at.y), z = _mm512_set1_ps(at.z);
        const __m512i code = _mm512_set1_epi32(int32_t(run->code));
        for (int p = run->begin; p < run->end; p += 16) {
            const __m512 dx = _mm512_sub_ps(_mm512_loadu_ps(atoms.x + p), x);
            const __m512 dy = _mm512_sub_ps(_mm512_loadu_ps(atoms.y + p), y);
            const __m512 dz = _mm512_sub_ps(_mm512_loadu_ps(atoms.z + p), z);
            const __m512 d2 = _mm512_fmadd_ps(dz, dz, _mm512_fmadd_ps(dy, dy, _mm512_mul_ps(dx, dx)));
            const __m512i key = _mm512_or_si512(_mm512_loadu_si512(atoms.key + p), code);
            const __mmask16 there = __mmask16(0xffffu >> (16 - std::min(16, run->end - p)));
            __mmask16 keep = _mm512_mask_cmp_ps_mask(there, d2, outer, _CMP_LT_OQ);
            keep = _mm512_mask_cmpneq_epi32_mask(keep, key, own);
            unsigned close = _mm512_mask_cmp_ps_mask(keep, d2, inner, _CMP_GE_OQ);
            for (; close != 0; close &= close - 1) {
                const int bit = std::countr_zero(close);
                if (!exactly_inside(atoms, self, p + bit, *run, band))
                    keep = __mmask16(keep & ~(1u << bit));
            }
            // Compressed in a register: compressing into memory is many times slower on some processors.
            _mm512_storeu_si512(found + n, _mm512_maskz_compress_epi32(keep, key));
            n += std::popcount(unsigned(keep));
        }
    }
    return n;
}

WITH_AVX512 void sort_avx512(int32_t *keys, int count, int32_t *sorted) {
    if (count > RANK_LIMIT) {
        std::sort(keys, keys + count);
        std::copy(keys, keys + count, sorted);
        return;
    }
    _mm512_storeu_si512(keys + count, _mm512_set1_epi32(std::numeric_limits<int32_t>::max()));
    const __m512i one = _mm512_set1_epi32(1);
    const int vectors = (count + 15) / 16;
    for (int v = 0; v < vectors; v += 4) {
        // Past the last vector the first stands in, and its ranks are not used.
        __m512i key[4], rank[4];
        for (int k = 0; k < 4; ++k) {
            key[k] = _mm512_loadu_si512(keys + 16 * (v + k < vectors ? v + k : 0));
            rank[k] = _mm512_setzero_si512();
        }
        for (int e = 0; e < count; ++e) {
            const __m512i other = _mm512_set1_epi32(keys[e]);
            for (int k = 0; k < 4; ++k)
                rank[k] = _mm512_mask_add_epi32(rank[k], _mm512_cmpgt_epi32_mask(key[k], other), rank[k], one);
        }
        for (int k = 0; k < 4 && v + k < vectors; ++k) {
            const int left = std::min(16, count - 16 * (v + k));
            _mm512_mask_i32scatter_epi32(sorted, __mmask16(0xffffu >> (16 - left)), rank[k], key[k], 4);
        }
    }
}

#undef WITH_AVX512
#endif

constexpr Scan PORTABLE = {gather_portable<int32_t>, sort_portable};
#ifdef EQUISTRIDE_X86
constexpr Scan AVX2 = {gather_avx2, sort_avx2}, AVX512 = {gather_avx512, sort_avx512};
#else
constexpr Scan AVX2 = PORTABLE, AVX512 = PORTABLE;
#endif

} // namespace

const Scan &choose_scan() { return *for_this_processor(&PORTABLE, &AVX2, &AVX512); }

} // namespace equistride
