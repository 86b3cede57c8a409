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

// Scores of up to QUERIES queries: [QUERIES, wide], those beyond `length` never.
template <int COUNT>
void score_block(const float* queries, float scale, const Sequence& s, int width, int first, const float* keys, float* scores, int wide) {
    for (int begin = 0; begin < s.length; begin += LANES) {
        const float* block = keys + static_cast<size_t>(begin) * width;  // [width, LANES]
        __m512 sum[COUNT];
        for (int i = 0; i < COUNT; ++i) sum[i] = _mm512_setzero_ps();
        for (int c = 0; c < width; ++c) {
            const __m512 key = _mm512_load_ps(block + c * LANES);
#pragma GCC unroll 6
            for (int i = 0; i < COUNT; ++i) sum[i] = _mm512_fmadd_ps(_mm512_set1_ps(queries[i * s.stride + c]), key, sum[i]);
        }
        const __mmask16 real = lanes(s.length, begin);
        for (int i = 0; i < COUNT; ++i) {
            __m512 value = _mm512_mul_ps(sum[i], _mm512_set1_ps(scale));
            if (s.bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(real, s.bias + begin - first - i));
            _mm512_storeu_ps(scores + i * wide + begin, _mm512_mask_mov_ps(_mm512_set1_ps(NEVER), real, value));
        }
    }
}

template <int COUNT>
void mix_block(const float* weights, int wide, const float* totals, const float* values, int length, int width, float* to, size_t to_stride) {
    const size_t padded = round_up(width, LANES);
    for (int c = 0; c < width; c += LANES) {
        const __mmask16 real = lanes(width, c);
        __m512 mixed[COUNT];
        for (int i = 0; i < COUNT; ++i) mixed[i] = _mm512_setzero_ps();
        for (int j = 0; j < length; ++j) {
            const __m512 value = _mm512_load_ps(values + j * padded + c);
#pragma GCC unroll 6
            for (int i = 0; i < COUNT; ++i) mixed[i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[i * wide + j]), value, mixed[i]);
        }
        for (int i = 0; i < COUNT; ++i)
            _mm512_mask_storeu_ps(to + i * to_stride + c, real, _mm512_mul_ps(mixed[i], _mm512_set1_ps(1 / totals[i])));
    }
}

template <int COUNT>
void attend_block(const float* queries, float scale, const Sequence& s, int width, int first, float* keys, float* to, size_t to_stride) {
    const int wide = round_up(s.length, LANES);
    const float* values = keys + static_cast<size_t>(wide) * round_up(width, LANES);  // as `attend_all` has them
    float* scores = keys + 2 * static_cast<size_t>(wide) * round_up(width, LANES);
    float totals[COUNT];
    score_block<COUNT>(queries, scale, s, width, first, keys, scores, wide);
    for (int i = 0; i < COUNT; ++i) {
        __m512 best = _mm512_loadu_ps(scores + i * wide);
        for (int begin = LANES; begin < wide; begin += LANES) best = _mm512_max_ps(best, _mm512_loadu_ps(scores + i * wide + begin));
        totals[i] = weigh(scores + i * wide, s.length, _mm512_reduce_max_ps(best));
    }
    mix_block<COUNT>(scores, wide, totals, values, s.length, width, to, to_stride);
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

void attend_all(const float* queries, float scale, const Sequence& s, int width, float* scratch, float* to, size_t to_stride) {
    // Near each other: rows of projections stand so far apart that they push each other out.
    const int padded = round_up(width, LANES);
    float* keys = scratch;  // [length / LANES, width, LANES]: sixteen keys side by side
    float* values = scratch + static_cast<size_t>(round_up(s.length, LANES)) * padded;  // [length, padded]
    for (int j = 0; j < s.length; ++j) {
        float* column = keys + static_cast<size_t>(j / LANES * LANES) * width + j % LANES;
        for (int c = 0; c < width; ++c) column[c * LANES] = s.keys[j * s.stride + c];
        for (int c = 0; c < width; c += LANES)
            _mm512_store_ps(values + static_cast<size_t>(j) * padded + c, _mm512_maskz_loadu_ps(lanes(width, c), s.values + j * s.stride + c));
    }
    for (int j = s.length; j < round_up(s.length, LANES); ++j)
        for (int c = 0; c < width; ++c) keys[static_cast<size_t>(j / LANES * LANES) * width + j % LANES + c * LANES] = 0;
    for (int first = 0; first < s.length; first += QUERIES) {
        const float* own = queries + first * s.stride;
        float* out = to + first * to_stride;
        switch (s.length - first) {
            case 1: attend_block<1>(own, scale, s, width, first, keys, out, to_stride); break;
            case 2: attend_block<2>(own, scale, s, width, first, keys, out, to_stride); break;
            case 3: attend_block<3>(own, scale, s, width, first, keys, out, to_stride); break;
            case 4: attend_block<4>(own, scale, s, width, first, keys, out, to_stride); break;
            case 5: attend_block<5>(own, scale, s, width, first, keys, out, to_stride); break;
            default: attend_block<QUERIES>(own, scale, s, width, first, keys, out, to_stride); break;
        }
    }
}

}  // namespace stele
#endif
