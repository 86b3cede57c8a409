// Encoding beside the decoding: on a thread and with scratch of its own, over the same weights.
#pragma once
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cache.h"

namespace stele {

class Network;

class Beside {
  public:
    // The thread sleeps while there is nothing to encode.
    explicit Beside(const Network& network);
    ~Beside();
    // Whether something was begun that is not done.
    bool is_busy() const { return __atomic_load_n(&left_, __ATOMIC_ACQUIRE) > 0; }

    // Will encode sources that `cache` has opened and write their keys and values; each is then
    // ready there, or has failed for want of memory.
    void begin(Cache& cache, int count, const int32_t* sources, const int32_t* tokens);
    // Encodes on the caller's thread, with the scratch of `desk`, some of what waits, long sources only where it
    // may; false where there is nothing of the kind.
    bool help(Network& desk, bool may_be_long);
    // Returns when some source more is done, at once where none is left.
    void await();
    // Gives up one source of `cache`, or all of them where it is negative; what is under way is awaited.
    void forget(const Cache& cache, int source);

  private:
    struct Item {
        Cache* cache;
        int source;
        std::vector<int32_t> tokens;
        bool is_of(const Cache& other, int wanted) const { return cache == &other && (wanted < 0 || wanted == source); }
    };
    using Items = std::list<Item>;
    static Items take(Items& from, size_t longest);
    static bool encode(Network& desk, Items::const_iterator begin, Items::const_iterator end);
    static void finish(Network& desk, const Items& items);
    void leave(int count);
    void work();

    std::unique_ptr<Network> desk_;
    mutable std::mutex mutex_;
    std::condition_variable wake_, done_;
    Items waiting_, under_way_, helped_;  // the latter two: of the thread, and of who helps
    int left_ = 0;                        // of all three
    bool is_closed_ = false;
    std::thread thread_;
};

}  // namespace stele
