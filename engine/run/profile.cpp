// The work behind a profile's lines, and what a core could do at most.
#include <algorithm>
#include <chrono>

#include "engine.h"

namespace mobilenet {
namespace {

// Bytes of one weight of a matrix.
double weight_bytes(Precision precision) {
  return precision == Precision::float32 ? 4 : precision == Precision::bfloat16 ? 2 : 1;
}

}  // namespace

PartProfile describe(const Plan& plan, const Stage& s, Part part, double seconds) {
  const double bytes = weight_bytes(plan.precision);
  const double in_pixels = static_cast<double>(s.in_height) * s.in_width;
  const double out_pixels = s.kind == StageKind::fused
                                ? static_cast<double>(s.out_height) * s.out_width
                                : static_cast<double>(plan.maps[s.out].pixels());
  PartProfile line{s.step, "rest", seconds, 0, 0};
  double weights = 0;
  switch (part) {
    case Part::produce:
      if (s.source == Source::image || s.kind == StageKind::stem) {
        line.kind = "stem";
        weights = 3.0 * s.stem_kernel * s.stem_kernel *
                  (s.kind == StageKind::fused ? s.expanded : s.outputs);
        line.macs = weights * (s.kind == StageKind::fused ? in_pixels : out_pixels);
      } else if (s.source == Source::expand) {
        line.kind = "expand";
        weights = static_cast<double>(s.in_channels) * s.expanded;
        line.macs = weights * in_pixels;
      }
      break;
    case Part::depthwise:
      line.kind = "depthwise";
      weights = static_cast<double>(s.kernel) * s.kernel * s.expanded;
      line.macs = weights * out_pixels;
      break;
    case Part::squeeze:
      line.kind = "squeeze-excite";
      weights = line.macs = 2.0 * s.squeeze * s.expanded;
      break;
    case Part::project: {
      const double inputs = s.kind == StageKind::fused ? s.expanded : s.in_channels;
      const double pixels = s.kind == StageKind::pooled
                                ? static_cast<double>(plan.maps[s.in[0]].pixels())
                                : out_pixels;
      line.kind = s.kind == StageKind::fused    ? "project"
                  : s.kind == StageKind::pooled ? "last"
                  : pixels == 1                 ? "classifier"
                                                : "pointwise";
      weights = inputs * s.outputs;
      line.macs = weights * pixels;
      break;
    }
    default: break;
  }
  line.weight_bytes = weights * bytes;
  return line;
}

double Engine::peak() const {
  if (!plan_.arithmetic->spin) return 0;
  constexpr int kTrials = 40, kRounds = 20000;
  double best = 0;
  for (int i = 0; i < kTrials; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double done = plan_.arithmetic->spin(kRounds);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, done / seconds.count());
  }
  return best;
}

}  // namespace mobilenet
