// The C functions that Python calls: plain numbers and pointers in, 0 or -1 (want of memory) out.
#if defined(__x86_64__)
#include <exception>

#include "network.h"

using namespace stele;

namespace {

// No exception may cross into Python: all there can be is want of memory or of threads.
template <class Work>
int guarded(Work&& work) {
    try {
        work();
        return 0;
    } catch (const std::exception&) {
        return -1;
    }
}

Layer& layer_of(Network* network, int is_decoder, int layer) {
    Stack& stack = network->stack(is_decoder);
    return layer < 0 ? stack.outside : stack.layers[layer];
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

Network* stele_network(const Shape* shape, int threads, double thread_products) {
    try {
        return new Network(*shape, threads, thread_products);
    } catch (const std::exception&) {
        return nullptr;
    }
}
void stele_network_delete(Network* network) { delete network; }
size_t stele_network_bytes(Network* network) { return network->bytes(); }

int stele_linear(Network* network, int is_decoder, int layer, int part, int out, int in, const float* weight, const float* bias) {
    return guarded([&] {
        layer_of(network, is_decoder, layer).linears[part] = std::make_shared<const Linear>(out, in, weight, bias, network->team());
    });
}
void stele_norm(Network* network, int is_decoder, int layer, int part, int kind, const float* weight, const float* bias, float epsilon) {
    layer_of(network, is_decoder, layer).norms[part] = {static_cast<NormKind>(kind), weight, bias, epsilon};
}
void stele_tables(Network* network, int is_decoder, const void* table, int is_half, const float* positions, const float* relative) {
    Stack& stack = network->stack(is_decoder);
    stack.table = table;
    stack.is_half = is_half;
    stack.positions = positions;
    stack.relative = relative;
}
int stele_suppress(Network* network, int count, const int32_t* tokens) {
    return guarded([&] { network->suppress(count, tokens); });
}

Cache* stele_cache(int layers, int rows, int heads, int head_width, int capacity) {
    try {
        return new Cache(layers, rows, heads, head_width, capacity);
    } catch (const std::exception&) {
        return nullptr;
    }
}
void stele_cache_delete(Cache* cache) { delete cache; }
void stele_close_source(Cache* cache, int source) { cache->close_source(source); }
void stele_bind(Cache* cache, int row, int source) { cache->bind(row, source); }
int stele_reorder(Cache* cache, int count, const int32_t* rows, const int32_t* parents, int length) {
    return guarded([&] { cache->reorder(count, rows, parents, length); });
}

int stele_encode(Network* network, int sources, const int32_t* lengths, const int32_t* tokens, float* latents) {
    return guarded([&] { network->encode(sources, lengths, tokens, latents); });
}
int stele_add_sources(Network* network, Cache* cache, int count, const int32_t* sources, const int32_t* lengths, const float* latents) {
    return guarded([&] {
        for (int s = 0; s < count; ++s) cache->open_source(sources[s], lengths[s]);
        network->add_sources(*cache, count, sources, latents);
        for (int s = 0; s < count; ++s) cache->settle(sources[s], SourceState::ready);
    });
}
int stele_begin_sources(Network* network, Cache* cache, int count, const int32_t* sources, const int32_t* lengths, const int32_t* tokens) {
    return guarded([&] {
        for (int s = 0; s < count; ++s) cache->open_source(sources[s], lengths[s]);
        network->beside().begin(*cache, count, sources, tokens);
    });
}
int stele_help(Network* network, int may_wait, int32_t* has_helped) {
    return guarded([&] {
        *has_helped = network->beside().help(*network, may_wait);
        if (!*has_helped && may_wait) network->beside().await();
    });
}
int stele_forget(Network* network, Cache* cache, int source) {
    return guarded([&] { network->forget(*cache, source); });
}
int stele_source_state(Cache* cache, int source) { return cache->state(source); }
void stele_take_latent(Cache* cache, int source, float* to, size_t size) {
    std::memcpy(to, cache->latent(source), size * sizeof(float));
    cache->close_latent(source);
}
int stele_decode(Network* network, Cache* cache, const Ask* ask, const Found* found) {
    return guarded([&] { network->decode(*cache, *ask, *found); });
}
int stele_run(Network* network, Cache* cache, const Run* run) {
    return guarded([&] { network->run(*cache, *run); });
}

}  // extern "C"
#pragma GCC visibility pop
#endif
