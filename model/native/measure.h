// In which way a call uses threads: the one that was fast lately.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace stele {

// Alone: one thread. Together: all share the work of each layer, and meet before the next. Apart:
// each takes sources or rows of its own through all layers, and weights are read by each.
enum class Way : int { alone, together, apart };

// Threads that meet at barriers wait for the slowest, and where other work takes its core, two are
// slower than one. So all ways are measured, over and over, for each size of work: those that were
// slower lately are tried again now and then. What is computed is the same either way.
class Measure {
  public:
    // Returns the way to take for `products` multiplications; apart only where the work divides.
    Way way(double products, bool divides) {
        Pace& pace = pace_of(products);
        const int ways = divides ? WAYS : WAYS - 1;
        const auto untried = std::min_element(pace.tried, pace.tried + ways);
        if (*untried < FIRST) return static_cast<Way>(untried - pace.tried);
        const int best = static_cast<int>(std::min_element(pace.seconds, pace.seconds + ways) - pace.seconds);
        if (++pace.calls % EVERY) return static_cast<Way>(best);
        return static_cast<Way>((best + 1 + pace.calls / EVERY % (ways - 1)) % ways);
    }

    void record(double products, Way way, double seconds) {
        Pace& pace = pace_of(products);
        const int index = static_cast<int>(way);
        double& lately = pace.seconds[index];
        const double each = seconds / products;
        // The first calls of each kind touch new memory: the next ones replace what they took.
        const bool is_first = pace.tried[index] < FIRST;
        pace.tried[index] += is_first;
        lately = is_first ? each : lately + (each - lately) * WEIGHT;
    }

  private:
    static constexpr int WAYS = 3;
    static constexpr uint32_t FIRST = 2;    // calls in each way, in turns
    static constexpr uint32_t EVERY = 16;   // calls: one is a trial of a slower way
    static constexpr double WEIGHT = 0.25;  // of the newest call
    struct Pace {
        uint32_t calls = 0, tried[WAYS] = {};
        double seconds[WAYS] = {};  // per product
    };
    Pace& pace_of(double products) { return paces_[std::ilogb(products > 1 ? products : 1) & 63]; }

    Pace paces_[64];
};

}  // namespace stele
