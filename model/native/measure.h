// How many threads a call takes: as many as were fast lately.
#pragma once
#include <chrono>
#include <cmath>
#include <cstdint>

namespace stele {

// Threads that meet at barriers wait for the slowest, and where other work takes its core, two are
// slower than one. So both ways are measured, over and over, for each size of work: the one that
// was slower lately is tried again now and then. What is computed is the same either way.
class Measure {
  public:
    explicit Measure(int most) : most_(most) {}

    // Returns how many threads to use, 1 or all, for `products` multiplications.
    int threads(double products) {
        if (most_ == 1) return 1;
        Pace& pace = pace_of(products);
        if (++pace.calls <= FIRST) return pace.calls % 2 ? most_ : 1;
        const bool is_faster_together = pace.seconds[1] <= pace.seconds[0];
        const bool is_trial = pace.calls % EVERY == 0;
        return is_faster_together != is_trial ? most_ : 1;
    }

    void record(double products, int threads, double seconds) {
        Pace& pace = pace_of(products);
        double& lately = pace.seconds[threads > 1];
        const double each = seconds / products;
        // The first calls of either kind touch new memory: the next ones replace what they took.
        lately = pace.calls <= FIRST ? each : lately + (each - lately) * WEIGHT;
    }

  private:
    static constexpr uint32_t FIRST = 4;    // calls, in turns
    static constexpr uint32_t EVERY = 16;   // calls: one is a trial of the slower way
    static constexpr double WEIGHT = 0.25;  // of the newest call
    struct Pace {
        uint32_t calls = 0;
        double seconds[2] = {0, 0};  // per product: alone, together
    };
    Pace& pace_of(double products) { return paces_[std::ilogb(products > 1 ? products : 1) & 63]; }

    int most_;
    Pace paces_[64];
};

}  // namespace stele
