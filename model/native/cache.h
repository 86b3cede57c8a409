// Keys and values of running rows (self-attention) and of their sources (cross-attention).
#pragma once
#include <vector>

#include "memory.h"
#include "simd.h"

namespace stele {

// Whether a source's keys and values can be read: they may be written beside the decoding.
enum class SourceState : int32_t { failed = -1, begun = 0, ready = 1 };

// Rows hold `capacity` positions each; a source holds as many as it has tokens. What is read is
// what was written: nothing beyond a row's own positions is ever looked at.
class Cache {
  public:
    Cache(int layers, int rows, int heads, int head_width, int capacity)
        : layers_(layers), rows_(rows), heads_(heads), head_width_(head_width), stride_(round_up(head_width, LANES)), capacity_(capacity),
          keys_(size()), values_(size()), owners_(static_cast<size_t>(rows) * capacity), is_shared_(rows),
          sources_(rows), latents_(rows), lengths_(rows), source_of_(rows), states_(rows) {}

    int capacity() const { return capacity_; }
    int stride() const { return stride_; }
    int length_of(int source) const { return lengths_[source]; }
    int source_of(int row) const { return source_of_[row]; }
    size_t row_stride() const { return static_cast<size_t>(heads_) * capacity_ * stride_; }

    Half* key(int layer, int row, int head) const { return keys_.get() + place(layer, row, head); }
    Half* value(int layer, int row, int head) const { return values_.get() + place(layer, row, head); }
    Half* source_key(int layer, int source, int head) const { return sources_[source].get() + source_place(layer, 0, source, head); }
    Half* source_value(int layer, int source, int head) const { return sources_[source].get() + source_place(layer, 1, source, head); }

    // Lets `row` hold its own `position`, and returns which rows hold the others; null where it
    // holds all itself.
    const int32_t* claim(int row, int position) {
        if (!is_shared_[row]) return nullptr;
        int32_t* owners = owners_.get() + static_cast<size_t>(row) * capacity_;
        owners[position] = row;
        return owners;
    }

    // Makes room for a source; it is written afterwards.
    void open_source(int source, int length) {
        const size_t size = static_cast<size_t>(layers_) * 2 * heads_ * length * stride_;
        // A head narrower than whole vectors leaves lanes that are read and never written.
        head_width_ % LANES ? sources_[source].zeros(size) : sources_[source].reserve(size);
        lengths_[source] = length;
        states_[source] = static_cast<int32_t>(SourceState::begun);
    }
    // Says that what was opened is written, or never will be; from any thread.
    void settle(int source, SourceState state) { __atomic_store_n(&states_[source], static_cast<int32_t>(state), __ATOMIC_RELEASE); }
    int32_t state(int source) const { return __atomic_load_n(&states_[source], __ATOMIC_ACQUIRE); }
    // The latent of a source that was encoded beside the decoding, until it is fetched.
    float* open_latent(int source, size_t size) { return latents_[source].reserve(size); }
    const float* latent(int source) const { return latents_[source].get(); }
    void close_latent(int source) { latents_[source] = Array<float>(); }
    // Forgets a source; its memory serves the next one, unless it is much.
    void close_source(int source) {
        if (sources_[source].bytes() > MUCH) sources_[source] = Array<Half>();
        close_latent(source);
    }
    // Begins an empty row that reads `source`.
    void bind(int row, int source) {
        source_of_[row] = source;
        is_shared_[row] = false;
    }
    // Gives each of `rows` the first `length` positions of its parent, without copying them: a
    // position stays where it was written until every row of its target has been released.
    void reorder(int count, const int32_t* rows, const int32_t* parents, int length);

  private:
    static constexpr size_t MUCH = 4 << 20;
    size_t size() const { return static_cast<size_t>(layers_) * rows_ * heads_ * capacity_ * stride_; }
    size_t place(int layer, int row, int head) const {
        return ((static_cast<size_t>(layer) * rows_ + row) * heads_ + head) * capacity_ * stride_;
    }
    size_t source_place(int layer, int part, int source, int head) const {
        return ((static_cast<size_t>(layer) * 2 + part) * heads_ + head) * lengths_[source] * stride_;
    }

    int layers_, rows_, heads_, head_width_, stride_, capacity_;
    Pages<Half> keys_, values_;
    Pages<int32_t> owners_;
    std::vector<char> is_shared_;
    std::vector<Array<Half>> sources_;
    std::vector<Array<float>> latents_;
    std::vector<int> lengths_, source_of_;
    std::vector<int32_t> states_;
};

inline void Cache::reorder(int count, const int32_t* rows, const int32_t* parents, int length) {
    std::vector<int32_t> histories(static_cast<size_t>(count) * length);
    for (int i = 0; i < count; ++i) {
        const int32_t* from = is_shared_[parents[i]] ? owners_.get() + static_cast<size_t>(parents[i]) * capacity_ : nullptr;
        for (int j = 0; j < length; ++j) histories[static_cast<size_t>(i) * length + j] = from ? from[j] : parents[i];
    }
    for (int i = 0; i < count; ++i) {
        int32_t* to = owners_.get() + static_cast<size_t>(rows[i]) * capacity_;
        std::memcpy(to, histories.data() + static_cast<size_t>(i) * length, length * sizeof(int32_t));
        is_shared_[rows[i]] = true;
    }
}

}  // namespace stele
