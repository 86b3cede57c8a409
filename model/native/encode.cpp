// Encoding: sources of any lengths side by side, a row for each token, without padding.
#if defined(__x86_64__)
#include <algorithm>
#include <numeric>

#include "attention.h"
#include "network.h"

namespace stele {
namespace {

constexpr int AT_ONCE = 256;  // tokens: few enough to stay near the processor

// Sources that follow each other, and their tokens.
struct Group {
    int first, sources, begin, tokens;
};

// Cuts sources into groups of about `most` tokens, or one source.
std::vector<Group> grouped(int sources, const int32_t* lengths, int most) {
    std::vector<Group> groups;
    for (int first = 0, begin = 0; first < sources;) {
        Group group{first, 0, begin, 0};
        do group.tokens += lengths[first + group.sources++];
        while (first + group.sources < sources && group.tokens + lengths[first + group.sources] / 2 <= most);
        groups.push_back(group);
        first += group.sources;
        begin += group.tokens;
    }
    return groups;
}

}  // namespace

void Network::encode(int sources, const int32_t* lengths, const int32_t* tokens, float* latents) {
    const int count = std::accumulate(lengths, lengths + sources, 0), share = (count + team_.size() - 1) / team_.size();
    timed(encoding_, encoder_products_ * count, sources > 1, [&](Way way) {
        const auto groups = grouped(sources, lengths, way == Way::apart ? std::min(AT_ONCE, share) : AT_ONCE);
        const auto encode_one = [&](Network& desk, Way how, const Group& group) {
            float* to = latents + static_cast<size_t>(group.begin) * shape_.width;
            desk.encode_group(how, group.sources, lengths + group.first, group.tokens, tokens + group.begin, to);
        };
        if (way == Way::apart)
            apart(static_cast<int>(groups.size()), [&](Network& desk, int i) { encode_one(desk, Way::alone, groups[i]); });
        else
            for (const Group& group : groups) encode_one(*this, way, group);
    });
}

void Network::encode_group(Way way, int sources, const int32_t* lengths, int count, const int32_t* tokens, float* latents) {
    std::vector<int> positions;
    for (int s = 0; s < sources; ++s)
        for (int i = 0, counted = 0; i < lengths[s]; ++i) {  // padding is not counted, and stands nowhere
            const bool is_padding = tokens[positions.size()] == shape_.padding;
            positions.push_back(shape_.position_offset + (is_padding ? -1 : counted));
            counted += !is_padding;
        }
    reserve(count, scratch_size(*std::max_element(lengths, lengths + sources), encoder_.head_width));
    team_.run(threads(way), [&](Member& member) {
        const auto& layers = encoder_.layers;
        member.share(count, [&](int row) {
            begin_row(encoder_, row, tokens[row], positions[row], layers[0].norm(Part::attention_norm));
        });
        for (size_t index = 0; index < layers.size(); ++index) {
            const Norm& own = layers[index].norm(Part::feed_forward_norm);
            encode_layer(member, layers[index], sources, lengths, count);
            if (index + 1 < layers.size())
                member.share(count, [&](int row) { leave(row, own, layers[index + 1].norm(Part::attention_norm)); });
            else
                member.share(count, [&](int row) { finish_row(encoder_, row, own, 0); });
        }
        member.share(count, [&](int row) {
            std::memcpy(latents + static_cast<size_t>(row) * shape_.width, normed_.get() + static_cast<size_t>(row) * stride_,
                        shape_.width * sizeof(float));
        });
    });
}

void Network::encode_layer(Member& member, const Layer& layer, int sources, const int32_t* lengths, int count) {
    const int heads = encoder_.heads, width = encoder_.head_width, inner = heads * width;
    layer[Part::attention_in].write(member, rounded(shape_.width), count, wide_rows_.get(), wide_);
    member.share(sources * heads, [&](int item) {
        const int source = item / heads, head = item % heads;
        int begin = 0;
        for (int s = 0; s < source; ++s) begin += lengths[s];
        const float* queries = wide_rows_.get() + static_cast<size_t>(begin) * wide_ + head * width;
        Sequence all{queries + inner, queries + 2 * inner, lengths[source], static_cast<size_t>(wide_)};
        if (encoder_.relative) all.bias = encoder_.relative + static_cast<size_t>(head) * shape_.relative_span + shape_.relative_span / 2;
        float* mixed = mixed_.get() + static_cast<size_t>(begin) * inner_ + head * width;
        attend_all(queries, encoder_.scale, all, width, scratches_[member.index()].scores.get(), mixed, inner_);
    });
    member.share(count, [&](int row) { round_row(mixed_.get() + static_cast<size_t>(row) * inner_, inner, rounded(inner), row); });
    layer[Part::attention_out].add(member, rounded(inner), count, hidden_.get(), stride_);
    member.share(count, [&](int row) { leave(row, layer.norm(Part::attention_norm), layer.norm(Part::feed_forward_norm)); });
    feed_forward(member, encoder_, layer, count);
}

void Network::add_sources(Cache& cache, int count, const int32_t* sources, const float* latents) {
    std::vector<int32_t> lengths;
    for (int s = 0; s < count; ++s) lengths.push_back(cache.length_of(sources[s]));
    const int tokens = std::accumulate(lengths.begin(), lengths.end(), 0), share = (tokens + team_.size() - 1) / team_.size();
    const double products = static_cast<double>(decoder_.outside[Part::source_in].out()) * shape_.width;
    timed(adding_, products * tokens, count > 1, [&](Way way) {
        if (way != Way::apart) return add_group(way, cache, count, sources, latents);
        const auto groups = grouped(count, lengths.data(), share);
        apart(static_cast<int>(groups.size()), [&](Network& desk, int i) {
            const float* from = latents + static_cast<size_t>(groups[i].begin) * shape_.width;
            desk.add_group(Way::alone, cache, groups[i].sources, sources + groups[i].first, from);
        });
    });
}

void Network::add_group(Way way, Cache& cache, int count, const int32_t* sources, const float* latents) {
    std::vector<int> owners, places;  // of each token: its source, and where in it
    for (int s = 0; s < count; ++s)
        for (int i = 0; i < cache.length_of(sources[s]); ++i) {
            owners.push_back(sources[s]);
            places.push_back(i);
        }
    const int tokens = static_cast<int>(owners.size());
    const int width = decoder_.head_width, heads = decoder_.heads, all = shape_.decoder_layers * heads;
    const Linear& projection = decoder_.outside[Part::source_in];
    // Outputs are the heads of all layers, their keys and then their values.
    const auto head_of = [&](int row, int column) {
        const int item = column / width, place = item % all;
        Half* head = item < all ? cache.source_key(place / heads, owners[row], place % heads)
                                : cache.source_value(place / heads, owners[row], place % heads);
        return head + static_cast<size_t>(places[row]) * cache.stride();
    };
    reserve(tokens, 0);
    team_.run(threads(way), [&](Member& member) {
        member.share(tokens, [&](int row) {
            round_row(latents + static_cast<size_t>(row) * shape_.width, shape_.width, rounded(shape_.width), row);
        });
        member.share(projection.tiles(), [&](int tile) {
            projection.compute(rounded(shape_.width), tokens, tile, [&](int row, int column, __m512 value) {
                const __m256i half = narrow(value);
                if (width % LANES == 0) {
                    if (column < projection.out())
                        _mm256_storeu_si256(reinterpret_cast<__m256i*>(head_of(row, column) + column % width), half);
                    return;
                }
                Half single[LANES];
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(single), half);
                for (int i = 0; i < LANES && column + i < projection.out(); ++i)
                    head_of(row, column + i)[(column + i) % width] = single[i];
            });
        });
    });
}

}  // namespace stele
#endif
