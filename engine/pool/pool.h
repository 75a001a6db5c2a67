// One set of threads for all engines of the process.
//
//   caller     run: body(0) ... barrier ... body(0) ... barrier, back
//   worker 1        body(1) ... barrier ... body(1) ... barrier, spin, sleep
//
// Threads are started when they are first wanted and kept. Whoever waits spins for a moment, since
// the next stage or image is mostly microseconds away, and then sleeps: an idle process uses no
// CPU. While one engine has the pool, others run on their callers alone.
#ifndef MOBILENET_POOL_H
#define MOBILENET_POOL_H

#include <atomic>
#include <cstddef>
#include <thread>

#include "event.h"

namespace mobilenet {

constexpr size_t kLine = 64;  // bytes that cores pass around at once
constexpr int kMostThreads = 256;

// Where the threads of a run wait for one another; what each wrote before is seen by all behind.
class Barrier {
 public:
  Barrier() : Barrier({0, false}) {}  // of one thread
  explicit Barrier(const Patience& patience) : patience_(patience) {}

  void wait();

 private:
  friend class Pool;

  const Patience patience_;
  int threads_ = 1;
  alignas(kLine) std::atomic<int> arrived_{0};
  alignas(kLine) Event phase_;
};

class Pool {
 public:
  using Body = void (*)(void* context, int thread, int threads, Barrier& barrier);

  // The pool of the process. The child of a fork begins with an empty one.
  static Pool& shared();
  // For tests, before the first shared(): as if there were so many cores.
  static void assume_cores(int count);

  // At most `threads` and kMostThreads run together, the caller among them.
  explicit Pool(int threads);
  ~Pool() { close(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Calls body(context, 0, n, barrier) here and body(context, 1...n-1, n, barrier) on other
  // threads, and returns when all have returned; what they throw ends the process. n is `threads`,
  // or as many as there are; 1 where the pool is busy, also with the run that calls this.
  void run(int threads, Body body, void* context) noexcept;

  // Ends the threads, unless they are at work; later runs are the caller's alone.
  void close();

 private:
  struct alignas(kLine) Worker {
    Event start;
    std::thread thread;
  };

  int grow(int threads);
  void work(int index) noexcept;

  const int most_;
  const bool oversubscribed_;
  Worker workers_[kMostThreads];  // [0] is the caller's, unused
  std::atomic<bool> busy_{false};
  int started_ = 1;  // the caller counts
  bool closing_ = false;

  Body body_ = nullptr;
  void* context_ = nullptr;
  int threads_ = 1;
  Barrier barrier_;
};

}  // namespace mobilenet

#endif
