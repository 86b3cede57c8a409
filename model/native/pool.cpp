// The threads of a call: how they wake, meet and sleep.
#if defined(__x86_64__)
#include "pool.h"

#include <immintrin.h>
#include <sched.h>

namespace stele {
namespace {

constexpr int SPINS = 2000;  // some tens of microseconds; then the core is left to others

template <class Condition>
void spin_until(Condition&& is_met) {
    for (int spins = 0; !is_met();) {
        if (++spins < SPINS)
            _mm_pause();
        else
            sched_yield();
    }
}

}  // namespace

Team::Team(int size) {
    try {
        for (int index = 1; index < size; ++index) workers_.emplace_back([this, index] { work(index); });
    } catch (...) {  // the system has no more threads
        close();
        throw;
    }
}

Team::~Team() { close(); }

void Team::close() {
    {
        std::lock_guard lock(mutex_);
        is_closed_ = true;
        call_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Team::run(int size, const std::function<void(Member&)>& body) {
    if (size > this->size()) size = this->size();
    if (size > 1) {
        for (auto& counter : counters_) counter.next.store(0, std::memory_order_relaxed);
        arrived_.store(0);
        done_.store(0);
        {
            std::lock_guard lock(mutex_);
            body_ = &body;
            begun_ = 0;
            active_.store(size);
            call_.fetch_add(1);
        }
        wake_.notify_all();
    }
    Member self(*this, 0, size);
    body(self);
    if (size == 1) return;
    int begun;
    {
        std::lock_guard lock(mutex_);
        body_ = nullptr;
        begun = begun_;
    }
    spin_until([&] { return done_.load(std::memory_order_acquire) == begun; });
}

void Team::work(int index) {
    for (unsigned seen = 0;;) {
        for (int spins = 0; spins < SPINS && call_.load(std::memory_order_acquire) == seen; ++spins) _mm_pause();
        const std::function<void(Member&)>* body;
        int size;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [&] { return call_.load() != seen; });
            seen = call_.load();
            if (is_closed_) return;
            body = body_;
            size = active_.load();
            if (!body || index >= size) continue;
            ++begun_;
        }
        Member self(*this, index, size);
        (*body)(self);
        done_.fetch_add(1, std::memory_order_release);
    }
}

void Team::meet(int size) {
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
}

}  // namespace stele
#endif
