// What is done to single rows between linear layers: norms, activations, embeddings.
#pragma once
#include "simd.h"

namespace stele {

enum class NormKind : int { none = 0, layer = 1, rms = 2 };
enum class Activation : int { relu = 0, gelu = 1, gelu_new = 2, silu = 3 };

struct Norm {
    NormKind kind = NormKind::none;
    const float* weight = nullptr;  // [width]
    const float* bias = nullptr;    // [width], of layer norms
    float epsilon = 0;
};

// Writes the normed row to `to`, which may be `from`.
void normalise(const Norm& norm, const float* from, int width, float* to);

// Replaces the first `size` values by their activation, times the next `size` where gated.
void activate(Activation activation, float* row, int size, bool is_gated);

// Writes `scale * table[token]`, plus the row of `positions` where there is one.
void embed(const void* table, bool is_half, int token, float scale, const float* position, int width, float* to);

}  // namespace stele
