// An encoder-decoder Transformer over eight-bit layers: whole encodings and decode steps.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "beside.h"
#include "cache.h"
#include "linear.h"
#include "measure.h"
#include "pool.h"
#include "rows.h"

namespace stele {

// Sizes and choices, as ModelConfig of Python has them; the layout is part of the interface.
struct Shape {
    int32_t width, encoder_layers, decoder_layers, encoder_heads, decoder_heads, encoder_head_width, decoder_head_width;
    int32_t encoder_hidden, decoder_hidden, vocabulary;
    int32_t activation, is_gated, is_pre_norm, has_final_norm, has_embedding_norm;
    int32_t position_offset;  // of the first token's row in the tables of positions
    int32_t padding;          // a token that stands nowhere, or -1
    int32_t relative_span;    // distances in the tables of relative biases
    float encoder_scale, decoder_scale;  // of queries
    float embedding_scale, output_scale;
};

enum class Part : int {  // of a stack, by layer
    attention_in = 0,    // queries, keys and values in one
    attention_out,
    cross_query,
    cross_out,
    up,  // the gate before it, where there is one
    down,
    attention_norm,
    cross_norm,
    feed_forward_norm,
    embedding_norm,  // those without layers
    final_norm,
    source_in,  // keys and values of cross-attention, of all layers in one
    output,
    parts
};

struct Layer {
    std::shared_ptr<const Linear> linears[static_cast<int>(Part::parts)];
    Norm norms[static_cast<int>(Part::parts)];
    const Linear& operator[](Part part) const { return *linears[static_cast<int>(part)]; }
    const Norm& norm(Part part) const { return norms[static_cast<int>(part)]; }
};

struct Stack {
    std::vector<Layer> layers;
    Layer outside;  // what belongs to no layer
    const void* table = nullptr;
    bool is_half = false;
    const float* positions = nullptr;  // [.., width]
    const float* relative = nullptr;   // [heads, span]: by how far a key comes after its query
    int heads, head_width;
    int hidden;
    float scale;
};

// What one decode step is asked for, by row.
struct Ask {
    int count;
    const int32_t* rows;
    const int32_t* tokens;     // to be read
    const int32_t* positions;  // where they stand
    const int32_t* widths;     // candidates wanted; 0 means the likeliest token without its probability
    const int32_t* lines;      // where in `Found::logits` each row's go, or -1; null for none
    int most;                  // the largest of them, at least 1
};

// What it found, by row and rank.
struct Found {
    int32_t* tokens;     // [count, most], likeliest first
    float* values;       // [count, most]: log-probabilities; logits where the width is 0
    uint8_t* healthy;    // [count]: whether every possible logit was a number and the best value is finite
    float* logits;       // [lines, vocabulary], or null
    float* attention;    // [layers, count, heads, attention_stride], or null: of the source
    int attention_stride;
};

// Rows that go on greedily by themselves, several tokens at a time.
struct Run {
    int count;
    const int32_t* rows;
    const int32_t* tokens;     // to be read first
    const int32_t* positions;  // where they stand
    const int32_t* rooms;      // how many tokens each row may gain, at least 1
    int steps;                 // the most that any row may gain
    int32_t end;               // the token after which a row gains no more
    int32_t* interruption;     // set by another thread to end the run after the step under way
    int32_t* gained;           // out: [count, steps]
    int32_t* counts;           // out: [count] how many of them
    uint8_t* healthy;          // out: [count]; a row that is not gains no more
};

class Network {
  public:
    // `thread_products`: so many are worth a thread's waking.
    Network(const Shape& shape, int threads, double thread_products);
    // Another over the same weights, all of which are there, with scratch of its own, for one thread.
    explicit Network(const Network& other);

    const Shape& shape() const { return shape_; }
    Team& team() { return team_; }
    Stack& stack(bool is_decoder) { return is_decoder ? decoder_ : encoder_; }
    size_t bytes() const;
    // Tokens that are never chosen; their probability counts nevertheless.
    void suppress(int count, const int32_t* tokens) {
        suppressed_.assign(tokens, tokens + count);
        desks_.clear();  // which suppress what this did
    }

    // Encodes sources whose `tokens` follow each other; latents [tokens, width] likewise.
    void encode(int sources, const int32_t* lengths, const int32_t* tokens, float* latents);
    // Projects latents that follow each other to the keys and values of opened sources.
    void add_sources(Cache& cache, int count, const int32_t* sources, const float* latents);
    void decode(Cache& cache, const Ask& ask, const Found& found);
    void run(Cache& cache, const Run& run);
    // What encodes sources while this decodes: begun on first use.
    Beside& beside() {
        if (!beside_) beside_ = std::make_unique<Beside>(*this);
        return *beside_;
    }
    // As `Beside::forget`, whether or not it was begun.
    void forget(const Cache& cache, int source) {
        if (beside_) beside_->forget(cache, source);
    }

  private:
    struct Scratch {  // of one thread
        Array<float> scores;
        Array<float> logits;
        Array<int32_t> tokens;  // [rows, most]: the best ones so far
        Array<float> values;
        std::vector<int> counts;  // of those, by row
        std::vector<char> healthy;
    };
    struct Total {  // of one chunk of logits: their largest, and the sum of e to what the others are below
        float largest, sum;
    };
    static constexpr int CHUNK = 4;  // tiles of logits that are looked at together

    template <class Body>
    void timed(Measure& measure, double products, bool divides, Body&& body);
    template <class Piece>
    void apart(int pieces, Piece&& piece);
    // How many threads may work: all but the one that encodes beside.
    int workers() const { return std::max(1, team_.size() - (beside_ && beside_->is_busy())); }
    int threads(Way way) const { return way == Way::together ? workers() : 1; }
    void reserve(int rows, size_t scores);
    void begin_row(const Stack& stack, int row, int token, int position, Norm first);
    void leave(int row, const Norm& own, const Norm& next);
    void finish_row(const Stack& stack, int row, const Norm& own, float scale);
    void feed_forward(Member& member, const Stack& stack, const Layer& layer, int rows);
    void encode_group(Way way, int sources, const int32_t* lengths, int count, const int32_t* tokens, float* latents);
    void add_group(Way way, Cache& cache, int count, const int32_t* sources, const float* latents);
    void decode_rows(Way way, Cache& cache, const Ask& ask, const Found& found);
    void encode_layer(Member& member, const Layer& layer, int sources, const int32_t* lengths, int tokens);
    void decode_layer(Member& member, Cache& cache, const Ask& ask, const Found& found, int index);
    void attend_self(Member& member, Cache& cache, const Ask& ask, int layer, int place);
    void attend_source(Member& member, Cache& cache, const Ask& ask, const Found& found, int layer, int place);
    void choose(Member& member, const Ask& ask, const Found& found);
    void look(Scratch& scratch, const Ask& ask, const Found& found, int chunk, int place, const float* logits, int count);
    void merge(const Ask& ask, const Found& found, int place);
    void weigh(float* values, int count, int place) const;

    Shape shape_;
    Team team_;
    double thread_products_;
    Stack encoder_, decoder_;
    std::vector<int32_t> suppressed_;
    double encoder_products_ = 0, decoder_products_ = 0;
    Measure encoding_, adding_, decoding_;

    // Scratch of all threads, by row.
    int stride_ = 0, wide_ = 0, inner_ = 0;
    Array<float> hidden_, normed_, wide_rows_, mixed_;
    Array<int8_t> values_;
    Array<float> scales_;
    Array<int32_t> shifts_;
    Array<Total> totals_;  // [rows, chunks]
    std::vector<Scratch> scratches_;
    std::vector<std::unique_ptr<Network>> desks_;  // of the other threads, where each works apart
    std::unique_ptr<Beside> beside_;
    Rounded rounded(int size) { return {values_.get(), scales_.get(), shifts_.get(), round_up(size, TILE)}; }
};

// Calls `body(way)` with the way that such work is worth.
template <class Body>
void Network::timed(Measure& measure, double products, bool divides, Body&& body) {
    if (workers() == 1 || products < 2 * thread_products_) return body(Way::alone);
    const Way way = measure.way(products, divides);
    const auto began = std::chrono::steady_clock::now();
    body(way);
    measure.record(products, way, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
}

// Calls `piece(network, i)` for 0..pieces-1, on all threads, each with a network of its own. Pieces may
// run out of memory; what is thrown never leaves a thread.
template <class Piece>
void Network::apart(int pieces, Piece&& piece) {
    while (static_cast<int>(desks_.size()) < team_.size() - 1) desks_.push_back(std::make_unique<Network>(*this));
    std::atomic<bool> lacks_memory{false};
    team_.run(workers(), [&](Member& member) {
        Network& desk = member.index() ? *desks_[member.index() - 1] : *this;
        member.share_on(pieces, [&](int i) {
            try {
                piece(desk, i);
            } catch (const std::exception&) {
                lacks_memory = true;
            }
        });
    });
    if (lacks_memory) throw std::bad_alloc();
}

}  // namespace stele
