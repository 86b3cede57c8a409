// The threads of a call: all run the same function and meet at barriers.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace stele {

class Team;

// One thread's view of a call that several make together: who it is, what it claims, when to meet.
class Member {
  public:
    Member(Team& team, int index, int size);
    int index() const { return index_; }

    // Calls `work(i)` for some of 0..count-1; the members together cover each once. Then they meet.
    template <class Work>
    void share(int count, Work&& work);
    // The same, without meeting afterwards.
    template <class Work>
    void share_on(int count, Work&& work);
    void meet();

  private:
    Team& team_;
    int index_, size_;
    size_t phase_ = 0;
    size_t cleared_;  // counters of the phases before it are zero, or in use
};

// Workers that sleep between calls; a call is made by one thread at a time.
class Team {
  public:
    explicit Team(int size);
    ~Team();
    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs `body` on the first `size` members, the caller among them, and returns when all are done
    // that have begun: who wakes too late to find work is not waited for.
    void run(int size, const std::function<void(Member&)>& body);

  private:
    friend class Member;
    static constexpr size_t PHASES = 64;  // whose counters form a ring
    struct alignas(64) Counter {
        std::atomic<int> next{0};
    };
    void work(int index);
    void meet(int size);
    void close();

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    const std::function<void(Member&)>* body_ = nullptr;
    std::atomic<unsigned> call_{0};
    std::atomic<int> active_{0}, done_{0};
    int begun_ = 0;  // besides the caller
    bool is_closed_ = false;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> round_{0};
    Counter counters_[PHASES];
};

inline Member::Member(Team& team, int index, int size)
    : team_(team), index_(index), size_(size), cleared_(Team::PHASES) {}

template <class Work>
void Member::share_on(int count, Work&& work) {
    if (size_ == 1) {
        for (int i = 0; i < count; ++i) work(i);
        return;
    }
    auto& next = team_.counters_[phase_ % Team::PHASES].next;
    ++phase_;
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
}

template <class Work>
void Member::share(int count, Work&& work) {
    share_on(count, work);
    meet();
}

inline void Member::meet() {
    if (size_ == 1) return;
    team_.meet(size_);
    // All have left the phases before. What half a ring of phases will need is reset now, so that
    // everybody meets once more before it is used. Fewer than that are shared without meeting.
    if (index_ != 0) return;
    for (; cleared_ < phase_ + Team::PHASES / 2; ++cleared_)
        team_.counters_[cleared_ % Team::PHASES].next.store(0, std::memory_order_relaxed);
}

}  // namespace stele
