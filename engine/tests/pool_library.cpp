// A library with a pool of its own, which pool_test loads and unloads.
#include <atomic>

#include "../pool/pool.h"

extern "C" __attribute__((visibility("default"))) int run_pool(int cores, int threads) {
  using namespace mobilenet;
  Pool::assume_cores(cores);
  std::atomic<int> count{0};
  Pool::shared().run(threads, [](void* context, int, int, Barrier& barrier) {
    barrier.wait();
    ++*static_cast<std::atomic<int>*>(context);
  }, &count);
  return count;
}
