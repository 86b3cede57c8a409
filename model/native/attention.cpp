// Attention of one query: scores sixteen keys at a time, softmax, mixing.
#if defined(__x86_64__)
#include "attention.h"

namespace stele {
namespace {

constexpr int MOST_VECTORS = 16;  // of a head: 256 wide

template <bool IS_OWNED>
inline size_t place(const Head& head, int j, int stride) {
    const size_t own = static_cast<size_t>(j) * stride;
    return IS_OWNED ? own + static_cast<size_t>(head.owners[j]) * head.owner_stride : own;
}

// Returns the largest score; those beyond `length` are never.
template <int VECTORS, bool IS_OWNED>
float score(const __m512* query, const Head& head, float* scores) {
    constexpr int STRIDE = VECTORS * LANES;
    __m512 best = _mm512_set1_ps(NEVER);
    for (int begin = 0; begin < head.length; begin += LANES) {
        __m512 products[LANES];
        const int count = head.length - begin < LANES ? head.length - begin : LANES;
        for (int i = 0; i < LANES; ++i) {
            if (i >= count) {
                products[i] = _mm512_setzero_ps();
                continue;
            }
            const Half* key = head.keys + place<IS_OWNED>(head, begin + i, STRIDE);
            __m512 product = _mm512_mul_ps(query[0], widen(key));
#pragma GCC unroll 16
            for (int c = 1; c < VECTORS; ++c) product = _mm512_fmadd_ps(query[c], widen(key + LANES * c), product);
            products[i] = product;
        }
        __m512 value = sums(products);
        const __mmask16 real = lanes(head.length, begin);
        if (head.bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(real, head.bias + begin));
        value = _mm512_mask_mov_ps(_mm512_set1_ps(NEVER), real, value);
        _mm512_storeu_ps(scores + begin, value);
        best = _mm512_max_ps(best, value);
    }
    return _mm512_reduce_max_ps(best);
}

// Replaces scores by weights and returns their sum.
float weigh(float* scores, int length, float best) {
    __m512 total = _mm512_setzero_ps();
    for (int begin = 0; begin < length; begin += LANES) {
        const __m512 weight = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + begin), _mm512_set1_ps(best)));
        _mm512_storeu_ps(scores + begin, weight);
        total = _mm512_add_ps(total, weight);
    }
    return _mm512_reduce_add_ps(total);
}

template <int VECTORS, bool IS_OWNED>
float attend_with(const float* query, const Head& head, int width, float* scratch, float* to) {
    constexpr int STRIDE = VECTORS * LANES;
    __m512 q[VECTORS], mixed[VECTORS];
#pragma GCC unroll 16
    for (int c = 0; c < VECTORS; ++c) {
        q[c] = _mm512_maskz_loadu_ps(lanes(width, LANES * c), query + LANES * c);
        mixed[c] = _mm512_setzero_ps();
    }
    const float best = score<VECTORS, IS_OWNED>(q, head, scratch);
    const float total = weigh(scratch, head.length, best);
    for (int j = 0; j < head.length; ++j) {
        const Half* value = head.values + place<IS_OWNED>(head, j, STRIDE);
        const __m512 weight = _mm512_set1_ps(scratch[j]);
#pragma GCC unroll 16
        for (int c = 0; c < VECTORS; ++c) mixed[c] = _mm512_fmadd_ps(weight, widen(value + LANES * c), mixed[c]);
    }
    const __m512 share = _mm512_set1_ps(1 / total);
#pragma GCC unroll 16
    for (int c = 0; c < VECTORS; ++c)
        _mm512_mask_storeu_ps(to + LANES * c, lanes(width, LANES * c), _mm512_mul_ps(mixed[c], share));
    return total;
}

template <int VECTORS>
float attend_to(const float* query, const Head& head, int width, float* scratch, float* to) {
    return head.owners ? attend_with<VECTORS, true>(query, head, width, scratch, to)
                       : attend_with<VECTORS, false>(query, head, width, scratch, to);
}

}  // namespace

float attend(const float* query, const Head& head, int width, float* scratch, float* to) {
    switch (round_up(width, LANES) / LANES) {
        case 1: return attend_to<1>(query, head, width, scratch, to);
        case 2: return attend_to<2>(query, head, width, scratch, to);
        case 3: return attend_to<3>(query, head, width, scratch, to);
        case 4: return attend_to<4>(query, head, width, scratch, to);
        case 5: return attend_to<5>(query, head, width, scratch, to);
        case 6: return attend_to<6>(query, head, width, scratch, to);
        case 8: return attend_to<8>(query, head, width, scratch, to);
        default: return attend_to<MOST_VECTORS>(query, head, width, scratch, to);
    }
}

}  // namespace stele
#endif
