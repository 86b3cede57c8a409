// Packing, rounding and the plain uses of eight-bit linear layers.
#if defined(__x86_64__)
#include "linear.h"

#include <cmath>

namespace stele {
namespace {

constexpr float STEPS = 127;
constexpr int OFFSET = 128;  // makes weights unsigned, as the instruction wants one side

// The largest absolute value of `row` as bits, which order NaN and infinity above all others.
uint32_t largest_bits(const float* row, int size) {
    __m512i largest = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int i = 0; i < size; i += LANES) {
        const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes(size, i), row + i));
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, magnitude));
    }
    return _mm512_reduce_max_epu32(largest);
}

float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

}  // namespace

void round_row(const float* row, int size, const Rounded& into, int index) {
    int8_t* values = into.values + static_cast<size_t>(index) * into.stride;
    const uint32_t bits = largest_bits(row, size);
    const bool is_finite = bits < 0x7f800000;
    const float largest = as_float(bits);
    if (!is_finite || largest < 1e-30f) {
        std::memset(values, 0, into.stride);
        into.scales[index] = is_finite ? 0 : std::numeric_limits<float>::quiet_NaN();
        into.shifts[index] = 0;
        return;
    }
    const __m512 factor = _mm512_set1_ps(STEPS / largest);
    const __m512i limit = _mm512_set1_epi32(127);
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < into.stride; i += LANES) {
        const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(size, i), row + i), factor);
        const __m512i rounded = _mm512_min_epi32(limit, _mm512_cvtps_epi32(value));
        sum = _mm512_add_epi32(sum, rounded);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + i), _mm512_cvtsepi32_epi8(rounded));
    }
    into.scales[index] = largest / STEPS;
    into.shifts[index] = OFFSET * _mm512_reduce_add_epi32(sum);
}

Linear::Linear(int out, int in, const float* weight, const float* bias, Team& team)
    : out_(out), in_(in), groups_(round_up(in, TILE) / 4) {
    const int padded = tiles() * TILE;
    weights_.reserve(static_cast<size_t>(padded) * groups_ * 4);
    scales_.zeros(padded);
    bias_.zeros(padded);
    if (bias) std::memcpy(bias_.get(), bias, out * sizeof(float));
    team.run(team.size(), [&](Member& member) {
        member.share(tiles(), [&](int tile) {
            uint8_t* to = weights_.get() + static_cast<size_t>(tile) * groups_ * TILE * 4;
            std::memset(to, OFFSET, static_cast<size_t>(groups_) * TILE * 4);
            for (int n = 0; n < TILE && TILE * tile + n < out; ++n) {
                const float* row = weight + static_cast<size_t>(TILE * tile + n) * in;
                // Of a channel that is not finite the scale is not, and every product with it.
                const float largest = as_float(largest_bits(row, in));
                const float scale = std::fmax(largest / STEPS, std::numeric_limits<float>::min());
                scales_[TILE * tile + n] = std::isfinite(largest) ? scale : std::numeric_limits<float>::quiet_NaN();
                if (!std::isfinite(largest)) continue;
                for (int k = 0; k < in; ++k) {
                    const int rounded = static_cast<int>(std::nearbyint(row[k] / scale));
                    to[(k / 4 * TILE + n) * 4 + k % 4] = static_cast<uint8_t>(rounded + OFFSET);
                }
            }
        });
    });
}

void Linear::write(Member& member, const Rounded& rows, int count, float* to, int stride) const {
    member.share(tiles(), [&](int tile) {
        compute(rows, count, tile, [&](int row, int column, __m512 value) {
            _mm512_storeu_ps(to + static_cast<size_t>(row) * stride + column, value);
        });
    });
}

void Linear::add(Member& member, const Rounded& rows, int count, float* to, int stride) const {
    member.share(tiles(), [&](int tile) {
        compute(rows, count, tile, [&](int row, int column, __m512 value) {
            float* at = to + static_cast<size_t>(row) * stride + column;
            _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), value));
        });
    });
}

}  // namespace stele
#endif
