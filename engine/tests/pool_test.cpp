// The pool under many callers, more threads than cores, pauses long enough to fall asleep, forks.
// Numbers are passed between threads as plain memory: the thread sanitizer watches the barriers.
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "../pool/pool.h"
#include "check.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOBILENET_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define MOBILENET_TSAN 1
#endif

namespace mobilenet {
namespace {

constexpr int kPhases = 7, kMost = 8;

void pause(int microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

// In every phase each thread adds up what all wrote in the phase before.
struct Sums {
  long rows[2][kMost];
  int threads = 0;
  int slow = -1;  // a thread that keeps the others waiting

  static void body(void* context, int thread, int threads, Barrier& barrier) {
    Sums& sums = *static_cast<Sums*>(context);
    if (thread == 0) {
      sums.threads = threads;
      for (auto& row : sums.rows) std::fill(row, row + threads, 1);
    }
    barrier.wait();
    CHECK(sums.threads == threads, "%d and %d threads", sums.threads, threads);
    for (int phase = 0; phase < kPhases; ++phase) {
      if (thread == sums.slow) pause(300);
      long sum = 0;
      for (int i = 0; i < threads; ++i) sum += sums.rows[phase % 2][i];
      sums.rows[(phase + 1) % 2][thread] = sum;
      barrier.wait();
    }
  }

  int run(Pool& pool, int wanted) {
    pool.run(wanted, body, this);
    long expected = 1;
    for (int phase = 0; phase < kPhases; ++phase) expected *= threads;
    for (int i = 0; i < threads; ++i) {
      const long sum = rows[kPhases % 2][i];
      CHECK(sum == expected, "%ld, expected %ld of %d threads", sum, expected, threads);
    }
    return threads;
  }
};

void every_count() {
  Pool pool(5);  // more than many machines have cores
  Sums sums;
  for (int round = 0; round < 200; ++round)
    for (int threads : {1, 5, 2, 3, 9, 1, 4, 0}) {
      const int ran = sums.run(pool, threads);
      CHECK(ran == std::clamp(threads, 1, 5), "%d of %d threads", ran, threads);
    }
}

void sleepers() {
  Pool pool(3);
  Sums sums;
  for (int round = 0; round < 60; ++round) {
    sums.slow = round % 4 - 1;
    CHECK(sums.run(pool, 3) == 3, "%d threads", sums.threads);
    pause(round % 3 * 400);  // workers spin, are about to sleep, or sleep
  }
}

void many_callers(Pool& pool, int rounds) {
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&pool, caller, rounds] {
      Sums sums;
      for (int round = 0; round < rounds; ++round) {
        const int wanted = 1 + (round + caller) % 4, ran = sums.run(pool, wanted);
        CHECK(ran >= 1 && ran <= wanted, "%d of %d threads", ran, wanted);
        if (round % 100 == 0) pause(250);
      }
    });
  for (auto& caller : callers) caller.join();
}

// A run within a run, on the caller and on workers, is its thread's own.
void nested() {
  Pool pool(3);
  pool.run(3, [](void* context, int, int threads, Barrier& barrier) {
    CHECK(threads == 3, "%d threads", threads);
    Sums sums;
    CHECK(sums.run(*static_cast<Pool*>(context), 3) == 1, "%d threads", sums.threads);
    barrier.wait();
  }, &pool);
}

void closed() {
  Pool pool(3);
  Sums sums;
  CHECK(sums.run(pool, 3) == 3, "%d threads", sums.threads);
  pool.close();
  CHECK(sums.run(pool, 3) == 1, "%d threads", sums.threads);
  pool.close();
  for (int round = 0; round < 100; ++round) {  // threads that have not begun to wait yet
    Pool brief(3);
    if (round % 2) sums.run(brief, 2 + round % 4 / 2);
  }
}

// Unloading a library ends its threads first: they would run code that is no longer there.
void reloads() {
#if defined(MOBILENET_POOL_LIBRARY)
  for (int round = 0; round < 50; ++round) {
    void* library = dlopen(MOBILENET_POOL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    CHECK(library, "%s", dlerror());
    const auto run = reinterpret_cast<int (*)(int, int)>(dlsym(library, "run_pool"));
    CHECK(run, "%s", dlerror());
    for (int threads : {1, 3, 2}) {
      const int ran = run(3, threads);
      CHECK(ran == threads, "%d of %d threads", ran, threads);
    }
    if (round % 3 == 0) pause(300);  // asleep
    CHECK(dlclose(library) == 0, "%s", dlerror());
#if defined(__clang__)  // what GCC marks as unique is never unloaded
    CHECK(!dlopen(MOBILENET_POOL_LIBRARY, RTLD_NOW | RTLD_NOLOAD), "it is still loaded");
#endif
  }
#endif
}

double processor_seconds() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  auto seconds = [](const timeval& t) { return t.tv_sec + 1e-6 * t.tv_usec; };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

void idle_uses_nothing() {
  Pool pool(4);
  Sums().run(pool, 4);
  pause(50000);
  const double before = processor_seconds();
  pause(400000);
  const double used = processor_seconds() - before;
  CHECK(used < 0.1, "%g seconds of the processor in 0.4 idle ones", used);
}

#if !defined(MOBILENET_TSAN)  // which does not follow threads behind a fork

int child(void (*work)()) {
  const pid_t id = fork();
  CHECK(id >= 0, "fork");
  if (id == 0) {
    work();
    exit(0);  // not _exit: what ends the pool at exit is part of this
  }
  int status = 0;
  CHECK(waitpid(id, &status, 0) == id, "waitpid");
  return status;
}

void forks() {
  const int most = Sums().run(Pool::shared(), 4);
  auto work = [] {
    alarm(20);
    Sums sums;
    for (int round = 0; round < 50; ++round) sums.run(Pool::shared(), 4);
    many_callers(Pool::shared(), 50);
  };
  CHECK(child(work) == 0, "the child of an idle pool");
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    Sums sums;
    while (!stop) sums.run(Pool::shared(), 4);
  });
  for (int round = 0; round < 20; ++round) CHECK(child(work) == 0, "the child of a busy pool");
  stop = true;
  busy.join();
  CHECK(Sums().run(Pool::shared(), 4) == most, "the parent");
}

#else

void forks() {}

#endif

}  // namespace
}  // namespace mobilenet

int main() {
  using namespace mobilenet;
  Pool::assume_cores(3);
  every_count();
  sleepers();
  many_callers(Pool::shared(), 1500);
  Pool crowded(6);
  many_callers(crowded, 1500);
  nested();
  closed();
  reloads();
  idle_uses_nothing();
  forks();
  std::puts("pool: all hold");
}
