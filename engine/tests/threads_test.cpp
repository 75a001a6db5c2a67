// Engines on several threads against the same engine on one: every kind of step, every precision,
// every instruction set of this machine, batches below and above the number of threads; many
// engines at once; one engine called from many threads.
#include <mobilenet.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "../pool/pool.h"
#include "check.h"
#include "model.h"

namespace mobilenet {
namespace {

constexpr float kError = 1e-4f;  // sums in another order, of numbers about 1; bfloat16: see below

struct Loaded {
  explicit Loaded(Precision precision) : bytes(every_step(precision).finish()) {
    CHECK(mobilenet_load_memory(bytes.data(), bytes.size(), &model) == 0, "%s", mobilenet_error());
  }
  ~Loaded() { mobilenet_free_model(model); }
  Bytes bytes;
  mobilenet_model* model = nullptr;
};

class Planned {
 public:
  Planned(const mobilenet_model* model, int height, int width, int threads, const char* isa)
      : pixels_(static_cast<size_t>(height) * width) {
    const mobilenet_options options{height, width, threads, isa};
    CHECK(mobilenet_plan(model, &options, &engine_) == 0, "%s", mobilenet_error());
  }
  Planned(const Planned&) = delete;
  ~Planned() { mobilenet_free_engine(engine_); }

  // All outputs of `batch` images, one after another.
  std::vector<float> run(int batch, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<float> images(3 * pixels_ * static_cast<size_t>(batch));
    for (float& x : images) x = std::uniform_real_distribution<float>(-2, 2)(random);
    std::vector<std::vector<float>> results;
    std::vector<float*> outputs;
    for (int i = 0; i < mobilenet_output_count(engine_); ++i) {
      const mobilenet_output o = mobilenet_output_at(engine_, i);
      results.emplace_back(static_cast<size_t>(batch) * o.channels * o.height * o.width);
      outputs.push_back(results.back().data());
    }
    CHECK(mobilenet_run(engine_, images.data(), batch, outputs.data()) == 0, "%s",
          mobilenet_error());
    std::vector<float> all;
    for (const auto& result : results) all.insert(all.end(), result.begin(), result.end());
    return all;
  }

 private:
  size_t pixels_;
  mobilenet_engine* engine_ = nullptr;
};

void compare(const std::vector<float>& found, const std::vector<float>& expected, float error,
             const char* what) {
  CHECK(found.size() == expected.size(), "%zu and %zu", found.size(), expected.size());
  float largest = 1;
  for (float x : expected) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < found.size(); ++i)
    CHECK(std::fabs(found[i] - expected[i]) <= error * largest, "%s, number %zu: %g, expected %g",
          what, i, found[i], expected[i]);
}

float error_of(Precision precision) {
  // an int8 sum is the same in any order; a bfloat16 map rounds a tiny difference to a large one
  return precision == Precision::int8       ? 0
         : precision == Precision::bfloat16 ? 0.03f
                                            : kError;
}

void alone_and_together(bool brief) {
  for (auto precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
    const Loaded loaded(precision);
    for (const char* const* isa = mobilenet_isas(); *isa; ++isa)
      for (auto [height, width] : {std::pair{16, 16}, {96, 61}, {33, 128}}) {
        if (brief && height > 16) continue;
        const Planned alone(loaded.model, height, width, 1, *isa);
        for (int threads : {2, 3, 4}) {
          const Planned together(loaded.model, height, width, threads, *isa);
          for (int batch : {1, 2, 5}) {
            const auto seed = static_cast<uint32_t>(batch + threads);
            compare(together.run(batch, seed), alone.run(batch, seed), error_of(precision), *isa);
          }
        }
      }
  }
}

void many_engines(int runs) {
  const Loaded loaded(Precision::int8);
  const std::vector<float> expected = Planned(loaded.model, 40, 40, 1, nullptr).run(2, 9);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&, caller] {
      const Planned engine(loaded.model, 40, 40, 1 + caller, nullptr);
      for (int i = 0; i < runs; ++i) compare(engine.run(2, 9), expected, 0, "many engines");
    });
  for (auto& caller : callers) caller.join();
}

void one_engine(int runs) {
  const Loaded loaded(Precision::float32);
  const Planned engine(loaded.model, 24, 24, 2, nullptr);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&, caller] {
      const auto seed = static_cast<uint32_t>(caller);
      const std::vector<float> expected = engine.run(1, seed);
      for (int i = 0; i < runs; ++i) compare(engine.run(1, seed), expected, kError, "one engine");
    });
  for (auto& caller : callers) caller.join();
}

}  // namespace
}  // namespace mobilenet

// threads_test [brief]: only so much as valgrind can do in a minute
int main(int argc, char**) {
  using namespace mobilenet;
  const bool brief = argc > 1;
  Pool::assume_cores(4);
  alone_and_together(brief);
  many_engines(brief ? 2 : 25);
  one_engine(brief ? 2 : 25);
  std::puts("threads: all hold");
}
