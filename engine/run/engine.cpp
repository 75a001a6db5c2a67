#include "engine.h"

#include <algorithm>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "../dispatch/dispatch.h"
#include "../format/half.h"
#include "walk.h"

namespace mobilenet {
namespace {

// Of a core's own cache.
size_t cache_bytes() {
  long level2 = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  level2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  if (level2 <= 0) level2 = 512 << 10;
  return static_cast<size_t>(level2);
}

// The maps of one image to plain NCHW floats.
void unpack(const Plan& plan, const uint8_t* shared, const Map& m, float* out) {
  const uint8_t* base = shared + m.offset;
  const int bytes = plan.arithmetic->map_bytes;
  for (int c = 0; c < m.channels; ++c) {
    const int64_t first = c / m.block * m.plane + c % m.block;
    for (int64_t p = 0; p < m.pixels(); ++p) {
      const int64_t at = first + p * m.block;
      if (m.is_float || bytes == sizeof(float))
        *out++ = reinterpret_cast<const float*>(base)[at];
      else if (plan.precision == Precision::bfloat16)
        *out++ = widen(reinterpret_cast<const Half*>(base)[at]);
      else if (bytes == 1)
        *out++ = static_cast<float>(base[at] - m.range.zero) * m.range.scale;
      else
        *out++ = static_cast<float>(reinterpret_cast<const int16_t*>(base)[at] - m.range.zero) *
                 m.range.scale;
    }
  }
}

struct Job {
  const Plan* plan;
  uint8_t* arena;
  size_t stride;
  const float* images;
  int batch;
  float* const* outputs;

  size_t image_floats() const { return static_cast<size_t>(3) * plan->height * plan->width; }

  void one(int index, uint8_t* own, int thread, int threads, Barrier* barrier) const {
    uint8_t* shared = threads > 1 ? arena : own;
    Walk(*plan, shared, own, thread, threads, barrier,
         images + index * image_floats(), nullptr)
        .run();
    if (thread) return;
    for (size_t i = 0; i < plan->outputs.size(); ++i) {
      const Map& m = plan->maps[plan->outputs[i].map];
      unpack(*plan, shared, m,
             outputs[i] + static_cast<size_t>(index) * m.channels * m.pixels());
    }
  }

  static void body(void* context, int thread, int threads, Barrier& barrier) {
    const Job& job = *static_cast<const Job*>(context);
    uint8_t* own = job.arena + thread * job.stride;
    if (job.batch < threads || threads == 1) {
      for (int i = 0; i < job.batch; ++i) {
        job.one(i, own, thread, threads, threads > 1 ? &barrier : nullptr);
        // the outputs are read by thread 0 before the others begin to overwrite them
        if (threads > 1) barrier.wait();
      }
    } else {
      for (int i = thread; i < job.batch; i += threads) job.one(i, own, 0, 1, nullptr);
    }
  }
};

}  // namespace

std::unique_ptr<Engine> Engine::plan(const File& file, const EngineOptions& options,
                                     std::string* error) {
  const int height = options.height ? options.height : static_cast<int>(file.header->height);
  const int width = options.width ? options.width : static_cast<int>(file.header->width);
  const int threads = options.threads ? options.threads : 1;
  constexpr int kMostThreads = 256;
  if (threads < 1 || threads > kMostThreads) {
    *error = "threads " + std::to_string(options.threads) + ": expected 1 to " +
             std::to_string(kMostThreads);
    return nullptr;
  }
  const Kernels* kernels = choose_kernels(options.isa, error);
  if (!kernels) return nullptr;
  std::unique_ptr<Engine> engine(new Engine());
  if (!make_plan(file, *kernels, height, width, threads, cache_bytes(), &engine->plan_, error))
    return nullptr;
  const Plan& plan = engine->plan_;
  for (const auto& output : plan.outputs) {
    const Map& m = plan.maps[output.map];
    engine->outputs_.push_back({output.name, m.channels, m.height, m.width});
  }
  engine->isa_ = kernels->name;
  engine->threads_ = threads;
  engine->stride_ = (plan.bytes + 4095) / 4096 * 4096;
  engine->arena_bytes_ = engine->stride_ * threads;
  engine->arena_ = Arena(engine->arena_bytes_);
  return engine;
}

void Engine::run(const float* images, int batch, float* const* outputs) {
  Job job{&plan_, arena_.data(), stride_, images, batch, outputs};
  Pool::shared().run(threads_, Job::body, &job);
}

std::vector<PartProfile> Engine::profile(const float* image, int runs) {
  std::vector<double> seconds(plan_.stages.size() * kParts);
  uint8_t* arena = arena_.data();
  for (int i = 0; i < runs; ++i)
    Walk(plan_, arena, arena, 0, 1, nullptr, image, seconds.data()).run();
  std::vector<PartProfile> found;
  for (size_t i = 0; i < plan_.stages.size(); ++i) {
    const Stage& s = plan_.stages[i];
    for (int part = 0; part < kParts; ++part) {
      const double mean = seconds[i * kParts + part] / runs;
      if (mean > 0) found.push_back(describe(plan_, s, static_cast<Part>(part), mean));
    }
  }
  return found;
}

}  // namespace mobilenet
