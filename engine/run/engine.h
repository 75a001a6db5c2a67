// A planned model: the arena, and the loop that walks the plan's stages.
#ifndef MOBILENET_ENGINE_H
#define MOBILENET_ENGINE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../format/format.h"
#include "../plan/plan.h"
#include "../pool/pool.h"
#include "arena.h"

namespace mobilenet {

struct EngineOptions {
  int height = 0, width = 0;  // 0: what the file was made for
  int threads = 1;
  const char* isa = nullptr;
};

// Parts of a stage, in the order they run; what a profile is broken down by.
enum class Part { produce, depthwise, squeeze, project, other };
constexpr int kParts = 5;

// One stage's time, work and weights, of one inference.
struct PartProfile {
  int step;
  const char* kind;
  double seconds;
  double macs;
  double weight_bytes;
};

PartProfile describe(const Plan& plan, const Stage& s, Part part, double seconds);

class Engine {
 public:
  struct Output {
    const char* name;
    int channels, height, width;
  };

  // Null with a message where the options cannot be. The file must outlive the engine.
  static std::unique_ptr<Engine> plan(const File& file, const EngineOptions& options,
                                      std::string* error);

  // `outputs[i]` receives batch images of output i, float32 NCHW. One call at a time.
  void run(const float* images, int batch, float* const* outputs);

  // Mean seconds of every part over `runs` inferences of one image, on one thread.
  std::vector<PartProfile> profile(const float* image, int runs);

  // Multiply-adds a second of this engine's kernels on registers alone; 0 where they do not say.
  double peak() const;

  size_t arena_bytes() const { return arena_bytes_; }
  const char* isa() const { return isa_; }
  int height() const { return plan_.height; }
  int width() const { return plan_.width; }
  int threads() const { return threads_; }
  const std::vector<Output>& outputs() const { return outputs_; }
  const Plan& plan() const { return plan_; }

 private:
  Engine() = default;

  Plan plan_;
  std::vector<Output> outputs_;
  const char* isa_ = "";
  int threads_ = 1;
  size_t arena_bytes_ = 0;  // of all threads
  size_t stride_ = 0;       // from one thread's arena to the next
  Arena arena_;
};

}  // namespace mobilenet

#endif
