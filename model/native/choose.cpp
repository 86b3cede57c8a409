// The choice from logits that never stand in memory whole: the likeliest tokens and their probability.
#if defined(__x86_64__)
#include <algorithm>
#include <cmath>

#include "network.h"

namespace stele {
namespace {

// Whether (value, token) comes before another: the larger value, the smaller token among equals.
inline bool comes_before(float value, int token, float other, int other_token) {
    return value > other || (value == other && token < other_token);
}

// Inserts into a list of the `most` best, `count` of which are filled.
void insert(float* values, int32_t* tokens, int& count, int most, float value, int token) {
    int at = count < most ? count++ : most - 1;
    for (; at > 0 && comes_before(value, token, values[at - 1], tokens[at - 1]); --at) {
        values[at] = values[at - 1];
        tokens[at] = tokens[at - 1];
    }
    values[at] = value;
    tokens[at] = token;
}

}  // namespace

void Network::choose(Member& member, const Ask& ask, const Found& found) {
    const Linear& output = decoder_.outside[Part::output];
    const int tiles = output.tiles(), chunks = (tiles + CHUNK - 1) / CHUNK;
    Scratch& scratch = scratches_[member.index()];
    member.share(chunks, [&](int chunk) {
        const int first = chunk * CHUNK, last = std::min(first + CHUNK, tiles);
        for (int tile = first; tile < last; ++tile)
            output.compute(rounded(shape_.width), ask.count, tile, [&](int place, int column, __m512 value) {
                _mm512_storeu_ps(scratch.logits.get() + place * CHUNK * TILE + column - first * TILE, value);
            });
        const int count = std::min(last * TILE, shape_.vocabulary) - first * TILE;
        for (int place = 0; place < ask.count; ++place)
            look(scratch, ask, found, chunk, place, scratch.logits.get() + place * CHUNK * TILE, count);
    });
    member.share(ask.count, [&](int place) { merge(ask, found, place); });
}

// Takes what is wanted of one chunk of a row's logits.
void Network::look(Scratch& scratch, const Ask& ask, const Found& found, int chunk, int place, const float* logits, int count) {
    const int first = chunk * CHUNK * TILE, width = std::max(ask.widths[place], 1);
    float* values = scratch.values.get() + static_cast<size_t>(place) * ask.most;
    int32_t* tokens = scratch.tokens.get() + static_cast<size_t>(place) * ask.most;
    int& filled = scratch.counts[place];
    if (found.logits && ask.lines[place] >= 0)
        std::memcpy(found.logits + static_cast<size_t>(ask.lines[place]) * shape_.vocabulary + first, logits, count * sizeof(float));
    __m512 largest = _mm512_set1_ps(NEVER);
    const auto is_possible = [&](int at) { return std::find(suppressed_.begin(), suppressed_.end(), first + at) == suppressed_.end(); };
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 real = lanes(count, i);
        const __m512 value = _mm512_mask_loadu_ps(_mm512_set1_ps(NEVER), real, logits + i);
        largest = _mm512_max_ps(largest, value);
        for (unsigned nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q); nan && scratch.healthy[place]; nan &= nan - 1)
            scratch.healthy[place] = !is_possible(i + __builtin_ctz(nan));
        const float worst = filled < width ? NEVER : values[width - 1];
        for (unsigned better = _mm512_mask_cmp_ps_mask(real, value, _mm512_set1_ps(worst), _CMP_GT_OQ); better; better &= better - 1) {
            const int at = i + __builtin_ctz(better);
            if (filled == width && !(logits[at] > values[width - 1])) continue;  // the list has improved since
            if (is_possible(at)) insert(values, tokens, filled, width, logits[at], first + at);
        }
    }
    if (ask.widths[place] == 0) return;
    const float top = _mm512_reduce_max_ps(largest);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < count; i += LANES) {
        const __mmask16 real = lanes(count, i);
        const __m512 apart = _mm512_sub_ps(_mm512_maskz_loadu_ps(real, logits + i), _mm512_set1_ps(top));
        sum = _mm512_mask_add_ps(sum, real, sum, exponential(apart));
    }
    const int chunks = (decoder_.outside[Part::output].tiles() + CHUNK - 1) / CHUNK;
    // Of a chunk in which nothing is possible, differences are no numbers.
    totals_[static_cast<size_t>(place) * chunks + chunk] = {top, top == NEVER ? 0 : _mm512_reduce_add_ps(sum)};
}

// Puts together what the threads took of one row.
void Network::merge(const Ask& ask, const Found& found, int place) {
    const size_t begin = static_cast<size_t>(place) * ask.most;
    const int width = std::max(ask.widths[place], 1);
    int32_t* tokens = found.tokens + begin;
    float* values = found.values + begin;
    int filled = 0;
    bool is_healthy = true;
    for (const Scratch& scratch : scratches_) {
        for (int i = 0; i < scratch.counts[place]; ++i) {
            const float value = scratch.values[begin + i];
            const int token = scratch.tokens[begin + i];
            if (filled < width || comes_before(value, token, values[width - 1], tokens[width - 1]))
                insert(values, tokens, filled, width, value, token);
        }
        is_healthy &= scratch.healthy[place];
    }
    if (ask.widths[place]) weigh(values, filled, place);
    found.healthy[place] = is_healthy && filled && std::isfinite(values[0]);
    for (int i = filled; i < ask.most; ++i) {
        values[i] = NEVER;
        tokens[i] = 0;
    }
}

// Replaces logits of one row by log-probabilities.
void Network::weigh(float* values, int count, int place) const {
    const int chunks = (decoder_.outside[Part::output].tiles() + CHUNK - 1) / CHUNK;
    const Total* totals = totals_.get() + static_cast<size_t>(place) * chunks;
    float top = NEVER;
    for (int c = 0; c < chunks; ++c) top = std::max(top, totals[c].largest);
    double sum = 0;  // in the order of chunks, whoever computed them
    for (int c = 0; c < chunks; ++c) sum += totals[c].sum * std::exp(static_cast<double>(totals[c].largest) - top);
    const float total = static_cast<float>(top + std::log(sum));
    for (int i = 0; i < count; ++i) values[i] -= total;
}

}  // namespace stele
#endif
