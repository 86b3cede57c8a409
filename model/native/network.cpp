// What encoding and decoding share: scratch, norms between layers, feed-forward layers.
#if defined(__x86_64__)
#include "network.h"

#include <algorithm>

namespace stele {

Network::Network(const Shape& shape, int threads, double thread_products)
    : shape_(shape), team_(threads), thread_products_(thread_products), scratches_(threads) {
    encoder_.heads = shape.encoder_heads;
    encoder_.head_width = shape.encoder_head_width;
    encoder_.hidden = shape.encoder_hidden;
    encoder_.scale = shape.encoder_scale;
    encoder_.layers.resize(shape.encoder_layers);
    decoder_.heads = shape.decoder_heads;
    decoder_.head_width = shape.decoder_head_width;
    decoder_.hidden = shape.decoder_hidden;
    decoder_.scale = shape.decoder_scale;
    decoder_.layers.resize(shape.decoder_layers);
    const int encoder_inner = encoder_.heads * encoder_.head_width, decoder_inner = decoder_.heads * decoder_.head_width;
    stride_ = round_up(shape.width, TILE);
    inner_ = round_up(std::max(encoder_inner, decoder_inner), TILE);
    const int gates = shape.is_gated ? 2 : 1;
    // Not a power of two, or rows would push each other out of the processor's cache.
    wide_ = round_up(std::max({3 * inner_, gates * std::max(encoder_.hidden, decoder_.hidden)}), TILE) + LANES;
    const auto products = [&](const Stack& stack, int attentions) {
        const double inner = stack.heads * stack.head_width;
        return stack.layers.size() * shape.width * (attentions * inner + (gates + 1.0) * stack.hidden);
    };
    encoder_products_ = products(encoder_, 4);
    decoder_products_ = products(decoder_, 6) + static_cast<double>(shape.width) * shape.vocabulary;
}

Network::Network(const Network& other) : Network(other.shape_, 1, other.thread_products_) {
    encoder_ = other.encoder_;
    decoder_ = other.decoder_;
    suppressed_ = other.suppressed_;
}

size_t Network::bytes() const {
    size_t total = 0;
    for (const Stack* stack : {&encoder_, &decoder_}) {
        for (const auto& linear : stack->outside.linears) total += linear ? linear->bytes() : 0;
        for (const Layer& layer : stack->layers)
            for (const auto& linear : layer.linears) total += linear ? linear->bytes() : 0;
    }
    return total;
}

void Network::reserve(int rows, size_t scores) {
    const size_t count = rows;
    hidden_.reserve(count * stride_);
    normed_.reserve(count * stride_);
    wide_rows_.reserve(count * wide_);
    mixed_.reserve(count * inner_);
    values_.reserve(count * std::max(wide_, stride_));
    scales_.reserve(count);
    shifts_.reserve(count);
    for (Scratch& scratch : scratches_) scratch.scores.reserve(scores);
}

// Embeds a token; `first` is the norm that the first branch reads through, if any.
void Network::begin_row(const Stack& stack, int row, int token, int position, Norm first) {
    float* hidden = hidden_.get() + static_cast<size_t>(row) * stride_;
    const float* where = stack.positions ? stack.positions + static_cast<size_t>(position) * shape_.width : nullptr;
    embed(stack.table, stack.is_half, token, shape_.embedding_scale, where, shape_.width, hidden);
    for (int i = shape_.width; i < stride_; ++i) hidden[i] = 0;
    if (shape_.has_embedding_norm) normalise(stack.outside.norm(Part::embedding_norm), hidden, shape_.width, hidden);
    const float* entered = hidden;
    if (shape_.is_pre_norm) {
        entered = normed_.get() + static_cast<size_t>(row) * stride_;
        normalise(first, hidden, shape_.width, normed_.get() + static_cast<size_t>(row) * stride_);
    }
    round_row(entered, shape_.width, rounded(shape_.width), row);
}

// Ends a branch, whose update has been added, and rounds what the next one reads.
void Network::leave(int row, const Norm& own, const Norm& next) {
    float* hidden = hidden_.get() + static_cast<size_t>(row) * stride_;
    float* entered = shape_.is_pre_norm ? normed_.get() + static_cast<size_t>(row) * stride_ : hidden;
    normalise(shape_.is_pre_norm ? next : own, hidden, shape_.width, entered);
    round_row(entered, shape_.width, rounded(shape_.width), row);
}

// Ends the last branch: the stack's result stands in `normed_`, rounded too if `scale` is not 0.
void Network::finish_row(const Stack& stack, int row, const Norm& own, float scale) {
    float* hidden = hidden_.get() + static_cast<size_t>(row) * stride_;
    float* result = normed_.get() + static_cast<size_t>(row) * stride_;
    if (!shape_.is_pre_norm) normalise(own, hidden, shape_.width, hidden);
    normalise(shape_.has_final_norm ? stack.outside.norm(Part::final_norm) : Norm{}, hidden, shape_.width, result);
    if (scale == 0) return;
    if (scale != 1)
        for (int i = 0; i < shape_.width; ++i) result[i] *= scale;
    round_row(result, shape_.width, rounded(shape_.width), row);
}

void Network::feed_forward(Member& member, const Stack& stack, const Layer& layer, int rows) {
    const Linear& up = layer[Part::up];
    up.write(member, rounded(shape_.width), rows, wide_rows_.get(), wide_);
    member.share(rows, [&](int row) {
        float* raised = wide_rows_.get() + static_cast<size_t>(row) * wide_;
        activate(static_cast<Activation>(shape_.activation), raised, stack.hidden, shape_.is_gated);
        round_row(raised, stack.hidden, rounded(stack.hidden), row);
    });
    layer[Part::down].add(member, rounded(stack.hidden), rows, hidden_.get(), stride_);
}

}  // namespace stele
#endif
