#include "event.h"

#include <chrono>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace mobilenet {
namespace {

constexpr int kLooks = 64;   // between two looks at the clock
constexpr int kYields = 4;

// Tells the core that this is a spinning loop: the other hardware thread goes first.
void relax() {
#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
  _mm_pause();
#elif defined(_MSC_VER)
  __yield();
#elif defined(__x86_64__) || defined(__i386__)
  __asm__ volatile("pause");
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

bool Event::spin(uint32_t old, const Patience& patience) const {
  if (patience.oversubscribed) {
    for (int i = 0; i < kYields; ++i) {
      if (changed(old)) return true;
      std::this_thread::yield();
    }
    return changed(old);
  }
  auto looks = [&] {
    for (int i = 0; i < kLooks; ++i) {
      if (changed(old)) return true;
      relax();
    }
    return false;
  };
  if (looks()) return true;  // most are over before a clock could be read
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(patience.microseconds);
  do {
    if (looks()) return true;
  } while (Clock::now() < end);
  return false;
}

#if defined(__linux__)

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is a plain number");

void Event::sleep(uint32_t old) {
  sleepers_.fetch_add(1);
  while (value_.load() == old)
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
  sleepers_.fetch_sub(1);
}

void Event::wake() {
  syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

#else

void Event::sleep(uint32_t old) {
  sleepers_.fetch_add(1);
  {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [&] { return value_.load() != old; });
  }
  sleepers_.fetch_sub(1);
}

void Event::wake() {
  { std::lock_guard<std::mutex> lock(mutex_); }  // nobody is between looking and sleeping
  condition_.notify_all();
}

#endif

}  // namespace mobilenet
