// Attention of one query to the keys and values of one head, in half precision.
#pragma once
#include "simd.h"

namespace stele {

constexpr int QUERIES = 6;  // that `attend_all` answers together

// The keys and values of one head: [length, stride] each. With `owners`, position j is not at
// `keys` but that many `owner_stride`s after it: hypotheses share what they have in common.
struct Head {
    const Half* keys;
    const Half* values;
    int length;
    const int32_t* owners = nullptr;
    size_t owner_stride = 0;
    const float* bias = nullptr;  // [length], added to the scores
};

// Writes [width] mixed values to `to`; `query` [width] is scaled already. `stride` is `width`
// rounded up to whole vectors. Weights stay in `scratch`, not yet divided by their returned sum.
float attend(const float* query, const Head& head, int width, float* scratch, float* to);

// The keys and values of one head in float32, for many queries: [length, width] each, `stride`
// floats apart.
struct Sequence {
    const float* keys;
    const float* values;
    int length;
    size_t stride;
    const float* bias = nullptr;  // [length] by how far a key comes after its query; of query 0
};

// How many floats of scratch `attend_all` needs.
inline size_t scratch_size(int length, int width) {
    const size_t wide = round_up(length, LANES);
    return 2 * wide * round_up(width, LANES) + QUERIES * wide;
}

// Lets every position attend to all; writes [length, width] to `to`, `to_stride` floats apart.
void attend_all(const float* queries, float scale, const Sequence& sequence, int width, float* scratch, float* to, size_t to_stride);

// Asks for what will be read soon; memory answers slowly where a head's keys begin.
inline void prefetch(const Half* from, int positions, int stride) {
    const char* begin = reinterpret_cast<const char*>(from);
    const size_t bytes = static_cast<size_t>(positions) * stride * sizeof(Half);
    for (size_t at = 0; at < bytes && at < 8192; at += 64) _mm_prefetch(begin + at, _MM_HINT_T0);
}

// Stores `width` floats in half precision, and zeros up to whole vectors.
inline void store_half(const float* from, int width, Half* to) {
    for (int i = 0; i < width; i += LANES)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                            narrow(_mm512_maskz_loadu_ps(lanes(width, i), from + i)));
}

}  // namespace stele
