// A number that one thread changes and others wait for: they spin for a while, then sleep.
#ifndef MOBILENET_EVENT_H
#define MOBILENET_EVENT_H

#include <atomic>
#include <cstdint>

#if !defined(__linux__)
#include <condition_variable>
#include <mutex>
#endif

namespace mobilenet {

// How long to spin before sleeping. Where there are more threads than cores, whoever spins keeps
// the one it waits for from running.
struct Patience {
  int microseconds;
  bool oversubscribed;
};

class Event {
 public:
  uint32_t value() const { return value_.load(std::memory_order_relaxed); }

  // What was written before set() is seen behind the wait() that it ends.
  void set(uint32_t value) {
    value_.store(value);
    if (sleepers_.load() != 0) wake();
  }

  // Returns once the value is another than `old`.
  void wait(uint32_t old, const Patience& patience) {
    if (!spin(old, patience)) sleep(old);
  }

 private:
  bool changed(uint32_t old) const { return value_.load(std::memory_order_acquire) != old; }
  bool spin(uint32_t old, const Patience& patience) const;
  void sleep(uint32_t old);
  void wake();

  // The value is written, then sleepers read; sleepers are counted, then the value is read: in one
  // total order, so that one of the two threads sees the other.
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
#if !defined(__linux__)
  std::mutex mutex_;
  std::condition_variable condition_;
#endif
};

}  // namespace mobilenet

#endif
