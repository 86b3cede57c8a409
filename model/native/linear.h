// Eight-bit linear layers in which no row sees its neighbours.
//
// Weights have one scale for each output, activations one for each row; products are summed in 32
// bits, exactly, so that a row's result depends neither on other rows nor on the order of work.
#pragma once
#include "memory.h"
#include "pool.h"
#include "simd.h"

namespace stele {

constexpr int TILE = 64;       // outputs that are computed together
constexpr int MOST_ROWS = 6;   // rows that are computed together

// Rows of activations rounded to eight bits.
struct Rounded {
    int8_t* values;   // [rows, stride], zeros after each row's end
    float* scales;    // [rows]; NaN where a row is not finite
    int32_t* shifts;  // [rows]; what the weights' offset adds to every product
    int stride;
};

// Rounds `row` [size], which may be overwritten by the caller afterwards, into place `index`.
void round_row(const float* row, int size, const Rounded& into, int index);

class Linear {
  public:
    // Packs `weight` [out, in], row-major; `bias` [out] or null.
    Linear(int out, int in, const float* weight, const float* bias, Team& team);

    int out() const { return out_; }
    int in() const { return in_; }
    int tiles() const { return round_up(out_, TILE) / TILE; }
    size_t bytes() const { return weights_.bytes() + scales_.bytes() + bias_.bytes(); }

    // Computes outputs [TILE * tile, TILE * (tile + 1)) of every row; `sink(row, column, vector)`
    // receives sixteen at a time. Those beyond `out` are zeros.
    template <class Sink>
    void compute(const Rounded& rows, int count, int tile, Sink&& sink) const;

    // Writes all outputs, or adds them to what is there, [count, stride]; stride is at least `out`
    // rounded up to whole tiles.
    void write(Member& member, const Rounded& rows, int count, float* to, int stride) const;
    void add(Member& member, const Rounded& rows, int count, float* to, int stride) const;

  private:
    template <int ROWS, class Sink>
    void block(const Rounded& rows, int first, int tile, Sink&& sink) const;

    int out_, in_, groups_;   // groups of four inputs, which one instruction multiplies
    Array<uint8_t> weights_;  // [tiles, groups, TILE, 4], offset by 128
    Array<float> scales_, bias_;
};

// Adds to each lane of `total` four products. The intrinsic is the same instruction, but compilers
// copy its operands about, which halves the speed.
inline void accumulate(__m512i& total, __m512i weights, __m512i values) {
    asm("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(weights), "v"(values));
}

template <int ROWS, class Sink>
inline void Linear::block(const Rounded& rows, int first, int tile, Sink&& sink) const {
    constexpr int COLUMNS = TILE / LANES;
    __m512i total[ROWS][COLUMNS];
#pragma GCC unroll 6
    for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) total[m][j] = _mm512_setzero_si512();
    const uint8_t* weights = weights_.get() + static_cast<size_t>(tile) * groups_ * TILE * 4;
    const int8_t* values = rows.values + static_cast<size_t>(first) * rows.stride;
    for (int k = 0; k < groups_; ++k, weights += TILE * 4) {
        __m512i w[COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) w[j] = _mm512_load_si512(weights + 64 * j);
#pragma GCC unroll 6
        for (int m = 0; m < ROWS; ++m) {
            int32_t four;
            __builtin_memcpy(&four, values + static_cast<size_t>(m) * rows.stride + 4 * k, 4);
            const __m512i a = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j) accumulate(total[m][j], w[j], a);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < COLUMNS; ++j) {
        const int column = TILE * tile + LANES * j;
        const __m512 scales = _mm512_load_ps(scales_.get() + column);
        const __m512 bias = _mm512_load_ps(bias_.get() + column);
#pragma GCC unroll 6
        for (int m = 0; m < ROWS; ++m) {
            const __m512i sum = _mm512_sub_epi32(total[m][j], _mm512_set1_epi32(rows.shifts[first + m]));
            const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows.scales[first + m]));
            sink(first + m, column, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias));
        }
    }
}

template <class Sink>
void Linear::compute(const Rounded& rows, int count, int tile, Sink&& sink) const {
    const int blocks = (count + MOST_ROWS - 1) / MOST_ROWS;
    for (int b = 0, first = 0; b < blocks; ++b) {
        const int size = (count - first + blocks - b - 1) / (blocks - b);
        switch (size) {
            case 1: block<1>(rows, first, tile, sink); break;
            case 2: block<2>(rows, first, tile, sink); break;
            case 3: block<3>(rows, first, tile, sink); break;
            case 4: block<4>(rows, first, tile, sink); break;
            case 5: block<5>(rows, first, tile, sink); break;
            default: block<6>(rows, first, tile, sink); break;
        }
        first += size;
    }
}

}  // namespace stele
