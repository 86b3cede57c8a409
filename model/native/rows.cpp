// Norms (Ba et al. 2016; Zhang and Sennrich 2019), activations and embeddings of single rows.
#if defined(__x86_64__)
#include "rows.h"

#include <cmath>

namespace stele {
namespace {

inline __m512 load(const float* from, int width, int i) { return _mm512_maskz_loadu_ps(lanes(width, i), from + i); }

float sum_of(const float* row, int width) {
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) total = _mm512_add_ps(total, load(row, width, i));
    return _mm512_reduce_add_ps(total);
}

float squares_of(const float* row, int width, float mean) {
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < width; i += LANES) {
        const __m512 apart = _mm512_maskz_sub_ps(lanes(width, i), load(row, width, i), _mm512_set1_ps(mean));
        total = _mm512_fmadd_ps(apart, apart, total);
    }
    return _mm512_reduce_add_ps(total);
}

inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1);
    return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// Abramowitz and Stegun (1964), 7.1.26: within 1.5e-7.
inline __m512 error_function(__m512 x) {
    const __m512 magnitude = _mm512_abs_ps(x);
    const __m512 one = _mm512_set1_ps(1);
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(0.3275911f), magnitude, one));
    __m512 p = _mm512_set1_ps(1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
    p = _mm512_mul_ps(p, t);
    const __m512 tail = exponential(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(magnitude, magnitude)));
    const __m512 value = _mm512_fnmadd_ps(p, tail, one);
    return _mm512_mask_sub_ps(value, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps(), value);
}

inline __m512 activated(Activation activation, __m512 x) {
    switch (activation) {
        case Activation::relu:
            return _mm512_max_ps(_mm512_setzero_ps(), x);  // NaN, the second operand, stays
        case Activation::silu:
            return _mm512_mul_ps(x, sigmoid(x));
        case Activation::gelu: {
            const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
            return _mm512_fmadd_ps(half, error_function(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f))), half);
        }
        default: {  // x * (1 + tanh(y)) / 2 = x * sigmoid(2 y)
            const __m512 cube = _mm512_mul_ps(x, _mm512_mul_ps(x, x));
            const __m512 y = _mm512_mul_ps(_mm512_set1_ps(0.79788456f), _mm512_fmadd_ps(_mm512_set1_ps(0.044715f), cube, x));
            return _mm512_mul_ps(x, sigmoid(_mm512_add_ps(y, y)));
        }
    }
}

}  // namespace

void normalise(const Norm& norm, const float* from, int width, float* to) {
    const bool is_layer = norm.kind == NormKind::layer;
    const float mean = is_layer ? sum_of(from, width) / width : 0;
    const float variance = norm.kind == NormKind::none ? 0 : squares_of(from, width, mean) / width;
    const float scale = norm.kind == NormKind::none ? 1 : 1 / std::sqrt(variance + norm.epsilon);
    for (int i = 0; i < width; i += LANES) {
        __m512 value = load(from, width, i);
        if (norm.kind != NormKind::none) {
            value = _mm512_mul_ps(_mm512_sub_ps(value, _mm512_set1_ps(mean)), _mm512_set1_ps(scale));
            value = _mm512_mul_ps(value, load(norm.weight, width, i));
            if (norm.bias) value = _mm512_add_ps(value, load(norm.bias, width, i));
        }
        _mm512_mask_storeu_ps(to + i, lanes(width, i), value);
    }
}

void activate(Activation activation, float* row, int size, bool is_gated) {
    for (int i = 0; i < size; i += LANES) {
        __m512 value = activated(activation, load(row, size, i));
        if (is_gated) value = _mm512_mul_ps(value, load(row + size, size, i));
        _mm512_mask_storeu_ps(row + i, lanes(size, i), value);
    }
}

void embed(const void* table, bool is_half, int token, float scale, const float* position, int width, float* to) {
    const size_t begin = static_cast<size_t>(token) * width;
    for (int i = 0; i < width; i += LANES) {
        const __mmask16 real = lanes(width, i);
        __m512 value = is_half
            ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(real, static_cast<const Half*>(table) + begin + i))
            : _mm512_maskz_loadu_ps(real, static_cast<const float*>(table) + begin + i);
        value = _mm512_mul_ps(value, _mm512_set1_ps(scale));
        if (position) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(real, position + i));
        _mm512_mask_storeu_ps(to + i, real, value);
    }
}

}  // namespace stele
#endif
