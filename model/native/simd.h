// What the vector instructions lack: exponentials, half precision, sums across lanes, row ends.
//
// Every file that includes this one is compiled for AVX-512 with VNNI; `support.cpp` is not, and
// decides whether the others may run.
#pragma once
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace stele {

using Half = uint16_t;

constexpr int LANES = 16;  // floats in a vector
constexpr float NEVER = -std::numeric_limits<float>::infinity();

inline int round_up(int count, int step) { return (count + step - 1) / step * step; }

// The lanes that `count` values from `begin` on fill; none below zero.
inline __mmask16 lanes(int count, int begin) {
    int left = count - begin;
    return left >= LANES ? 0xffff : static_cast<__mmask16>((1u << (left > 0 ? left : 0)) - 1);
}

inline __m512 widen(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// Rounds to half precision; what is beyond its range becomes its largest, NaN stays NaN.
inline __m256i narrow(__m512 value) {
    const __m512 limit = _mm512_set1_ps(65504.f);
    value = _mm512_min_ps(limit, value);  // of a NaN, these return the second operand
    value = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), limit), value);
    return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// e to the power of each lane, to about 1e-7; 0 far below zero, NaN of NaN.
inline __m512 exponential(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(88.3f), x);
    const __mmask16 is_tiny = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_LT_OQ);
    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);  // coefficients of Cephes' expf
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.f)));
    return _mm512_mask_mov_ps(_mm512_scalef_ps(p, n), is_tiny, _mm512_setzero_ps());
}

inline __m512 fold(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// Lane i of the result is the sum of vector i.
inline __m512 sums(const __m512 (&v)[LANES]) {
    __m512 quads[4];
    for (int i = 0; i < 4; ++i) {
        const __m512 *w = v + 4 * i;
        const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(w[0], w[1]), _mm512_unpackhi_ps(w[0], w[1]));
        const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(w[2], w[3]), _mm512_unpackhi_ps(w[2], w[3]));
        const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
        quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    }
    return fold(fold(quads[0], quads[1]), fold(quads[2], quads[3]));
}

}  // namespace stele
