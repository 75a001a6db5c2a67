#include "pool.h"

#include <algorithm>
#include <new>
#include <string>
#include <system_error>

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace mobilenet {
namespace {

constexpr int kBarrierMicroseconds = 80;
constexpr int kIdleMicroseconds = 100;

// Cores that this process may run on.
int cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// While this lives, threads are born deaf to signals: handlers belong to the program's own.
class SignalsBlocked {
 public:
#if defined(_WIN32)
  SignalsBlocked() {}
#else
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#endif
};

void name_this_thread(int index) {
  const std::string name = "mobilenet-" + std::to_string(index);
#if defined(__linux__)
  pthread_setname_np(pthread_self(), name.c_str());
#elif defined(__APPLE__)
  pthread_setname_np(name.c_str());
#endif
}

// The shared pool is never destroyed: threads that outlive main() may still run engines. It owns no
// memory, so that the child of a fork can make it anew where it is.
alignas(Pool) unsigned char shared_storage[sizeof(Pool)];

int assumed_cores = 0;

void start_shared() { new (shared_storage) Pool(assumed_cores ? assumed_cores : cores()); }

Pool& shared_pool() { return *std::launder(reinterpret_cast<Pool*>(shared_storage)); }

struct Shared {
  Shared() {
    start_shared();
#if !defined(_WIN32)
    // the threads stay behind in the parent, and so does whoever was running
    pthread_atfork(nullptr, nullptr, start_shared);
#endif
  }
  // At exit, or when the library is unloaded. On Windows the threads are gone by then.
  ~Shared() {
#if !defined(_WIN32)
    shared_pool().close();
#endif
  }
};

}  // namespace

void Barrier::wait() {
  // read before arriving: behind that the next run may have begun, with another number of threads
  const int threads = threads_;
  const uint32_t phase = phase_.value();
  if (threads == 1) return;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < threads) {
    phase_.wait(phase, patience_);
  } else {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.set(phase + 1);
  }
}

Pool& Pool::shared() {
  static Shared shared;
  return shared_pool();
}

void Pool::assume_cores(int count) { assumed_cores = count; }

Pool::Pool(int threads)
    : most_(std::clamp(threads, 1, kMostThreads)),
      oversubscribed_(most_ > cores()),
      barrier_({kBarrierMicroseconds, oversubscribed_}) {}

void Pool::run(int threads, Body body, void* context) noexcept {
  if (std::min(threads, most_) <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
    Barrier alone;
    body(context, 0, 1, alone);
    return;
  }
  threads_ = grow(std::min(threads, most_));
  body_ = body;
  context_ = context;
  barrier_.threads_ = threads_;
  for (int i = 1; i < threads_; ++i) workers_[i].start.set(workers_[i].start.value() + 1);
  body(context, 0, threads_, barrier_);
  barrier_.wait();
  busy_.store(false, std::memory_order_release);
}

// How many of `threads` there are, after starting those that are missing.
int Pool::grow(int threads) {
  if (started_ >= threads) return threads;
  SignalsBlocked blocked;
  try {
    for (; started_ < threads; ++started_)
      workers_[started_].thread = std::thread(&Pool::work, this, started_);
  } catch (const std::system_error&) {  // no more threads are allowed: fewer do
  }
  return std::min(threads, started_);
}

void Pool::work(int index) noexcept {
  name_this_thread(index);
  Event& start = workers_[index].start;
  for (uint32_t seen = 0;; ++seen) {
    start.wait(seen, {kIdleMicroseconds, oversubscribed_});
    if (closing_) return;
    body_(context_, index, threads_, barrier_);
    barrier_.wait();
  }
}

void Pool::close() {
  if (busy_.exchange(true, std::memory_order_acquire)) return;
  closing_ = true;
  for (int i = 1; i < started_; ++i) workers_[i].start.set(workers_[i].start.value() + 1);
  for (int i = 1; i < started_; ++i) workers_[i].thread.join();
}

}  // namespace mobilenet
