// Memory that nobody wrote reaches no answer: kernels read lanes that no channel fills, and what
// lies behind a map. An arena of zeros and one of no numbers give the same bits.
#include <string>
#include <vector>

#include "../dispatch/dispatch.h"
#include "../run/arena.h"
#include "../run/walk.h"
#include "check.h"
#include "model.h"

namespace mobilenet {
namespace {

// Channels that leave lanes of blocks of 16, 32 and 64 empty, in front of whatever reads all of
// them; what is not fused comes first, while its memory is still as it was.
Model ragged(Precision precision) {
  Model m(precision);
  const uint32_t stem = m.conv(0, 40, 3, 2, Activation::hard_swish);  // 8 x 8
  const uint32_t twice = m.simple(StepKind::add, {stem, stem});
  const uint32_t dense = m.conv(twice, 40, 3, 1, Activation::relu6);
  const uint32_t narrow = m.conv(twice, 8, 1, 1, Activation::none);
  const uint32_t separable = m.block(narrow, {8, 40, false, 0, 3, 1, 1, 0, Activation::relu});
  const uint32_t squeezed =
      m.block(separable, {72, 40, true, 24, 5, 1, 1, 0, Activation::hard_swish});
  const uint32_t residual =
      m.block(squeezed, {104, 40, true, 0, 3, 1, 2, 0, Activation::relu6, Activation::none, true});
  const uint32_t filtered =
      m.block(m.simple(StepKind::add, {dense, residual}), {40, 72, false, 0, 3, 2});  // 4 x 4
  const uint32_t wide = m.simple(StepKind::resize, {m.conv(filtered, 40), stem});     // 8 x 8
  const uint32_t gates =
      m.conv(m.simple(StepKind::pool, {wide}), 40, 1, 1, Activation::hard_sigmoid);
  const uint32_t gated = m.simple(StepKind::multiply, {wide, gates});
  const uint32_t small = m.simple(StepKind::average_pool, {gated}, 3, 2);  // 3 x 3
  m.output(m.conv(m.conv(small, 104), 20), "small");
  const uint32_t last = m.conv(gated, 104);
  m.output(m.conv(m.simple(StepKind::pool, {last}), 10, 1, 1, Activation::none), "logits");
  return m;
}

// The outputs' maps after an inference in an arena that begins as `fill`.
std::vector<uint8_t> answer(const Plan& plan, const std::vector<float>& image, int fill) {
  Arena arena(plan.bytes);
  uint8_t* const zeros = arena.data() + plan.scratch.zeros;
  std::memset(arena.data(), fill, plan.bytes);
  std::memset(zeros, 0, plan.scratch.vector - plan.scratch.zeros);  // a row of padding, from the start
  Walk(plan, arena.data(), arena.data(), 0, 1, nullptr, image.data(), nullptr).run();
  std::vector<uint8_t> bytes;
  for (const PlannedOutput& output : plan.outputs) {
    const Map& m = plan.maps[output.map];
    const int each = m.is_float ? static_cast<int>(sizeof(float)) : plan.arithmetic->map_bytes;
    for (int c = 0; c < m.channels; ++c)
      for (int pixel = 0; pixel < m.pixels(); ++pixel) {
        const int64_t at = c / m.block * m.plane + int64_t{pixel} * m.block + c % m.block;
        const uint8_t* from = arena.data() + m.offset + at * each;
        bytes.insert(bytes.end(), from, from + each);
      }
  }
  return bytes;
}

void test(const char* isa, Precision precision, Model model) {
  const Bytes bytes = model.finish();
  File file;
  std::string error;
  CHECK(parse(bytes.data(), bytes.size(), &file, &error), "%s", error.c_str());
  Plan plan;
  constexpr size_t kCache = 16 << 10;  // small, so that there are several bands
  CHECK(make_plan(file, *choose_kernels(isa, &error), 16, 16, 1, kCache, &plan, &error), "%s",
        error.c_str());
  CHECK(plan.scratch.zeros < plan.scratch.vector, "the row of zeros is not where it was");
  std::vector<float> image(3 * 16 * 16);
  std::mt19937 random(7);
  for (float& x : image) x = std::uniform_real_distribution<float>(-2, 2)(random);
  CHECK(answer(plan, image, 0) == answer(plan, image, 0xff), "%s, precision %d", isa,
        static_cast<int>(precision));
}

}  // namespace
}  // namespace mobilenet

int main() {
  using namespace mobilenet;
  for (const char* const* isa = isas(); *isa; ++isa)
    for (auto precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
      test(*isa, precision, every_step(precision));
      test(*isa, precision, ragged(precision));
    }
  return 0;
}
