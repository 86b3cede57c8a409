// Sources on their way from tokens to keys and values, while rows are decoded.
#if defined(__x86_64__)
#include "beside.h"

#include <algorithm>
#include <exception>
#include <limits>

#include "network.h"

namespace stele {
namespace {

constexpr int AT_ONCE = 128;  // tokens: many enough for the weights to be worth fetching

}  // namespace

Beside::Beside(const Network& network) : desk_(std::make_unique<Network>(network)), thread_([this] { work(); }) {}

Beside::~Beside() {
    {
        std::lock_guard lock(mutex_);
        is_closed_ = true;
    }
    wake_.notify_all();
    thread_.join();
}

void Beside::begin(Cache& cache, int count, const int32_t* sources, const int32_t* tokens) {
    Items items;
    for (int s = 0; s < count; ++s) {
        const int length = cache.length_of(sources[s]);
        items.push_back({&cache, sources[s], {tokens, tokens + length}});
        tokens += length;
    }
    {
        std::lock_guard lock(mutex_);
        waiting_.splice(waiting_.end(), items);
        leave(-count);
    }
    wake_.notify_one();
}

// Nothing here takes memory: it must not fail between two lists.
Beside::Items Beside::take(Items& from, size_t longest) {
    Items taken;
    size_t count = 0;
    for (auto item = from.begin(), next = item; item != from.end(); item = next) {
        next = std::next(item);
        const size_t size = item->tokens.size();
        if (size > longest) continue;
        if (!taken.empty() && (item->cache != taken.front().cache || count + size > AT_ONCE)) break;
        count += size;
        taken.splice(taken.end(), from, item);
    }
    return taken;
}

bool Beside::encode(Network& desk, Items::const_iterator begin, Items::const_iterator end) {
    try {
        std::vector<int32_t> sources, lengths, tokens;
        for (auto item = begin; item != end; ++item) {
            sources.push_back(item->source);
            lengths.push_back(static_cast<int32_t>(item->tokens.size()));
            tokens.insert(tokens.end(), item->tokens.begin(), item->tokens.end());
        }
        const size_t width = desk.shape().width;
        std::vector<float> latents(tokens.size() * width);
        const int count = static_cast<int>(sources.size());
        desk.encode(count, lengths.data(), tokens.data(), latents.data());
        Cache& cache = *begin->cache;
        desk.add_sources(cache, count, sources.data(), latents.data());
        const float* from = latents.data();
        for (auto item = begin; item != end; ++item) {
            const size_t size = item->tokens.size() * width;
            std::copy_n(from, size, cache.open_latent(item->source, size));
            from += size;
        }
        for (auto item = begin; item != end; ++item) cache.settle(item->source, SourceState::ready);
        return true;
    } catch (const std::exception&) {  // want of memory
        return false;
    }
}

// Encodes `items`, each alone where that fails, so that none takes its neighbours along.
void Beside::finish(Network& desk, const Items& items) {
    if (encode(desk, items.begin(), items.end())) return;
    for (auto item = items.begin(); item != items.end(); ++item)
        if (!encode(desk, item, std::next(item))) item->cache->settle(item->source, SourceState::failed);
}

void Beside::leave(int count) { __atomic_store_n(&left_, left_ - count, __ATOMIC_RELEASE); }

bool Beside::help(Network& desk, bool may_be_long) {
    {
        std::lock_guard lock(mutex_);
        helped_ = take(waiting_, may_be_long ? std::numeric_limits<size_t>::max() : AT_ONCE);
    }
    if (helped_.empty()) return false;
    finish(desk, helped_);
    std::lock_guard lock(mutex_);
    leave(static_cast<int>(helped_.size()));
    helped_.clear();
    done_.notify_all();
    return true;
}

void Beside::await() {
    std::unique_lock lock(mutex_);
    const int before = left_;
    done_.wait(lock, [&] { return left_ < before || left_ == 0; });
}

void Beside::forget(const Cache& cache, int source) {
    std::unique_lock lock(mutex_);
    const size_t before = waiting_.size();
    waiting_.remove_if([&](const Item& item) { return item.is_of(cache, source); });
    leave(static_cast<int>(before - waiting_.size()));
    const auto is_free_of = [&](const Items& items) {
        return std::none_of(items.begin(), items.end(), [&](const Item& item) { return item.is_of(cache, source); });
    };
    done_.wait(lock, [&] { return is_free_of(under_way_) && is_free_of(helped_); });
}

void Beside::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [&] { return is_closed_ || !waiting_.empty(); });
        if (is_closed_) return;
        under_way_ = take(waiting_, std::numeric_limits<size_t>::max());
        const int count = static_cast<int>(under_way_.size());
        lock.unlock();
        finish(*desk_, under_way_);
        lock.lock();
        under_way_.clear();
        leave(count);
        done_.notify_all();
    }
}

}  // namespace stele
#endif
