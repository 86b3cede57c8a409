// One decode step: a token in every row, each looking back at its own history and source.
#if defined(__x86_64__)
#include <algorithm>

#include "attention.h"
#include "network.h"

namespace stele {

void Network::decode(Cache& cache, const Ask& ask, const Found& found) {
    const int pieces = team_.size();
    const bool divides = ask.count >= pieces * MOST_ROWS && !found.attention;
    timed(decoding_, decoder_products_ * ask.count, divides, [&](Way way) {
        if (way != Way::apart) return decode_rows(way, cache, ask, found);
        apart(pieces, [&](Network& desk, int i) {
            const int first = ask.count * i / pieces, count = ask.count * (i + 1) / pieces - first;
            const size_t begin = static_cast<size_t>(first) * ask.most;
            const int32_t* lines = found.logits ? ask.lines + first : nullptr;
            desk.decode_rows(Way::alone, cache, {count, ask.rows + first, ask.tokens + first, ask.positions + first, ask.widths + first, lines, ask.most},
                             {found.tokens + begin, found.values + begin, found.healthy + first, found.logits, nullptr, 0});
        });
    });
}

void Network::decode_rows(Way way, Cache& cache, const Ask& ask, const Found& found) {
    int longest = 1;
    for (int place = 0; place < ask.count; ++place) {
        longest = std::max(longest, ask.positions[place] + 1);
        longest = std::max(longest, cache.length_of(cache.source_of(ask.rows[place])));
    }
    reserve(ask.count, round_up(longest, LANES));
    const int chunks = (decoder_.outside[Part::output].tiles() + CHUNK - 1) / CHUNK;
    totals_.reserve(static_cast<size_t>(ask.count) * chunks);
    for (Scratch& scratch : scratches_) {
        const size_t most = static_cast<size_t>(ask.count) * ask.most;
        scratch.logits.reserve(static_cast<size_t>(ask.count) * CHUNK * TILE);
        scratch.tokens.reserve(most);
        scratch.values.reserve(most);
        scratch.counts.assign(ask.count, 0);
        scratch.healthy.assign(ask.count, true);
    }
    team_.run(threads(way), [&](Member& member) {
        const auto& layers = decoder_.layers;
        member.share(ask.count, [&](int place) {
            const int token = ask.tokens[place];
            const int position = token == shape_.padding ? -1 : ask.positions[place];
            begin_row(decoder_, place, token, shape_.position_offset + position, layers[0].norm(Part::attention_norm));
        });
        for (size_t index = 0; index < layers.size(); ++index) {
            decode_layer(member, cache, ask, found, static_cast<int>(index));
            member.share(ask.count, [&](int place) {
                const Norm& own = layers[index].norm(Part::feed_forward_norm);
                if (index + 1 < layers.size())
                    leave(place, own, layers[index + 1].norm(Part::attention_norm));
                else
                    finish_row(decoder_, place, own, shape_.output_scale);
            });
        }
        choose(member, ask, found);
    });
}

void Network::run(Cache& cache, const Run& run) {
    std::vector<int32_t> places(run.count), rows(run.count), tokens(run.count), positions(run.count);
    for (int i = 0; i < run.count; ++i) {
        places[i] = i;
        rows[i] = run.rows[i];
        tokens[i] = run.tokens[i];
        positions[i] = run.positions[i];
        run.counts[i] = 0;
    }
    const std::vector<int32_t> widths(run.count, 0);
    std::vector<int32_t> best(run.count);
    std::vector<float> values(run.count);
    std::vector<uint8_t> healthy(run.count);
    int count = run.count;
    for (int step = 0; step < run.steps && count; ++step) {
        decode(cache, {count, rows.data(), tokens.data(), positions.data(), widths.data(), nullptr, 1},
               {best.data(), values.data(), healthy.data(), nullptr, nullptr, 0});
        int left = 0;
        for (int i = 0; i < count; ++i) {
            const int place = places[i];
            run.healthy[place] = healthy[i];
            if (!healthy[i]) continue;
            run.gained[static_cast<size_t>(place) * run.steps + run.counts[place]++] = best[i];
            if (best[i] == run.end || run.counts[place] == run.rooms[place]) continue;
            places[left] = place;
            rows[left] = rows[i];
            tokens[left] = best[i];
            positions[left++] = positions[i] + 1;
        }
        count = left;
        if (__atomic_load_n(run.interruption, __ATOMIC_RELAXED)) break;
    }
    __atomic_store_n(run.interruption, 0, __ATOMIC_RELAXED);
}

void Network::decode_layer(Member& member, Cache& cache, const Ask& ask, const Found& found, int index) {
    const Layer& layer = decoder_.layers[index];
    const int inner = decoder_.heads * decoder_.head_width, rows = ask.count;
    layer[Part::attention_in].write(member, rounded(shape_.width), rows, wide_rows_.get(), wide_);
    member.share(rows, [&](int place) { attend_self(member, cache, ask, index, place); });
    layer[Part::attention_out].add(member, rounded(inner), rows, hidden_.get(), stride_);
    member.share(rows, [&](int place) { leave(place, layer.norm(Part::attention_norm), layer.norm(Part::cross_norm)); });
    layer[Part::cross_query].write(member, rounded(shape_.width), rows, wide_rows_.get(), wide_);
    member.share(rows, [&](int place) { attend_source(member, cache, ask, found, index, place); });
    layer[Part::cross_out].add(member, rounded(inner), rows, hidden_.get(), stride_);
    member.share(rows, [&](int place) { leave(place, layer.norm(Part::cross_norm), layer.norm(Part::feed_forward_norm)); });
    feed_forward(member, decoder_, layer, rows);
}

void Network::attend_self(Member& member, Cache& cache, const Ask& ask, int layer, int place) {
    const int width = decoder_.head_width, inner = decoder_.heads * width, stride = cache.stride();
    const int row = ask.rows[place], position = ask.positions[place];
    float* query = wide_rows_.get() + static_cast<size_t>(place) * wide_;
    float* mixed = mixed_.get() + static_cast<size_t>(place) * inner_;
    for (int c = 0; c < inner; ++c) query[c] *= decoder_.scale;
    const int32_t* owners = cache.claim(row, position);
    for (int head = 0; head < decoder_.heads; ++head) {
        const float* own = query + head * width;
        if (!owners && head + 1 < decoder_.heads) {
            prefetch(cache.key(layer, row, head + 1), position, stride);
            prefetch(cache.value(layer, row, head + 1), position, stride);
        }
        const size_t at = static_cast<size_t>(position) * stride;
        store_half(own + inner, width, cache.key(layer, row, head) + at);
        store_half(own + 2 * inner, width, cache.value(layer, row, head) + at);
        const int first = owners ? 0 : row;  // whose positions the owners are counted from
        Head history{cache.key(layer, first, head), cache.value(layer, first, head), position + 1, owners, cache.row_stride()};
        if (decoder_.relative)
            history.bias = decoder_.relative + static_cast<size_t>(head) * shape_.relative_span + shape_.relative_span / 2 - position;
        attend(own, history, width, scratches_[member.index()].scores.get(), mixed + head * width);
    }
    round_row(mixed, inner, rounded(inner), place);
}

void Network::attend_source(Member& member, Cache& cache, const Ask& ask, const Found& found, int layer, int place) {
    const int width = decoder_.head_width, inner = decoder_.heads * width;
    const int source = cache.source_of(ask.rows[place]), length = cache.length_of(source);
    float* query = wide_rows_.get() + static_cast<size_t>(place) * wide_;
    float* mixed = mixed_.get() + static_cast<size_t>(place) * inner_;
    float* scores = scratches_[member.index()].scores.get();
    for (int c = 0; c < inner; ++c) query[c] *= decoder_.scale;
    for (int head = 0; head < decoder_.heads; ++head) {
        if (head + 1 < decoder_.heads) {
            prefetch(cache.source_key(layer, source, head + 1), length, cache.stride());
            prefetch(cache.source_value(layer, source, head + 1), length, cache.stride());
        }
        const Head latent{cache.source_key(layer, source, head), cache.source_value(layer, source, head), length};
        const float total = attend(query + head * width, latent, width, scores, mixed + head * width);
        if (!found.attention) continue;
        const size_t item = (static_cast<size_t>(layer) * ask.count + place) * decoder_.heads + head;
        for (int i = 0; i < length; ++i) found.attention[item * found.attention_stride + i] = scores[i] / total;
    }
    round_row(mixed, inner, rounded(inner), place);
}

}  // namespace stele
#endif
