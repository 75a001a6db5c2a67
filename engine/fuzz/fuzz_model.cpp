// A model file is anybody's: whatever its bytes, it is refused with a message or runs.
//
// Mutations are sealed with the size and checksum that belong to them, or hardly any would get past
// the first look. Half of them are of one field of the tables, to a number that is near a bound or
// stands elsewhere in the file. Plans that would take long are left out.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../format/format.h"
#include "../format/sizes.h"
#include "../run/engine.h"
#include "../tests/model.h"

using namespace mobilenet;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

constexpr int64_t kMostWork = 8 << 20;    // multiply-adds of a run
constexpr int64_t kMostMemory = 64 << 20;  // numbers in maps and rings

[[noreturn]] void bug(const char* text) {
  std::fprintf(stderr, "%s\n", text);
  std::abort();
}

bool is_small(const File& file, const std::vector<Shape>& shapes) {
  int64_t work = 0, memory = 0;
  for (uint32_t i = 0; i < file.header->step_count; ++i) {
    const StepRecord& s = file.steps[i];
    const Shape &in = shapes[s.inputs[0]], &out = shapes[i + 1];
    const int64_t pixels = int64_t{out.height} * out.width, taps = int64_t{s.kernel} * s.kernel;
    const int64_t wide = std::max(s.expanded, kBlock * 1u);
    const int64_t reach = int64_t{s.kernel} * s.dilation + s.stride;
    const int64_t inside = wide * (in.height + reach) * (in.width + reach);
    memory += out.channels * pixels + inside + s.in_channels * taps * out.width;
    work += static_cast<StepKind>(s.kind) == StepKind::block
                ? wide * (s.in_channels * int64_t{in.height} * in.width +
                          (taps + s.out_channels) * pixels + s.squeeze * 2)
                : pixels * out.channels * taps * s.in_channels;
    if (work > kMostWork || memory > kMostMemory) return false;
  }
  return true;
}

void run(const File& file, int height, int width, int threads, const char* isa) {
  std::string error;
  std::vector<Shape> shapes;
  if (!infer_shapes(file, height, width, &shapes, &error)) {
    if (error.empty()) bug("refused without a message");
    return;
  }
  if (!is_small(file, shapes)) return;
  EngineOptions options;
  options.height = height;
  options.width = width;
  options.threads = threads;
  options.isa = isa;
  const auto engine = Engine::plan(file, options, &error);
  if (!engine) bug(error.c_str());  // its shapes are good
  std::vector<float> image(static_cast<size_t>(3) * height * width);
  std::mt19937 random(1);
  for (float& x : image) x = std::uniform_real_distribution<float>(-3, 3)(random);
  image[random() % image.size()] = std::numeric_limits<float>::infinity();
  image[random() % image.size()] = -std::numeric_limits<float>::max();
  // to int8 no number stands for one that is none
  if (file.header->precision != static_cast<uint32_t>(Precision::int8))
    image[random() % image.size()] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::vector<float>> results;
  std::vector<float*> outputs;
  for (const auto& output : engine->outputs()) {
    results.emplace_back(static_cast<size_t>(output.channels) * output.height * output.width);
    outputs.push_back(results.back().data());
  }
  engine->run(image.data(), 1, outputs.data());
}

// Whatever names a place in the file is set to where something lies, or nearly.
void mutate_field(const Bytes& bytes, std::mt19937* random) {
  const auto pick = [&](size_t count) { return (*random)() % count; };
  FileHeader& header = bytes.header();
  const size_t steps = std::min<size_t>(header.step_count,
                                        (bytes.size() - sizeof header) / sizeof(StepRecord));
  if (steps == 0) return;
  StepRecord& s = bytes.step(pick(steps));
  const StepRecord& other = bytes.step(pick(steps));
  constexpr uint32_t small[] = {0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 63, 64, 65, 1000, 1u << 16,
                                (1u << 16) + 1, 1u << 31, kNone};
  constexpr float reals[] = {0, -1, 1e-20f, 1e-6f, 0.01f, 1, 1e6f, 1e9f, 1e18f,
                             std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN()};
  auto* offsets = &s.expand.weights;
  switch (pick(8)) {
    case 0:
    case 1: (&s.kind)[pick(16)] = small[pick(std::size(small))]; break;
    case 2: {
      const size_t field = pick(16);
      (&s.kind)[field] = (&other.kind)[field];
      break;
    }
    case 3: (&s.kind)[4 + pick(4)] = static_cast<uint32_t>(pick(steps + 2)); break;
    case 4: offsets[pick(20)] = (&other.expand.weights)[pick(20)] + (pick(4) ? 0 : 64); break;
    case 5: {
      Affine& range = (&s.expanded_range)[pick(6)];
      if (pick(2)) range.scale = reals[pick(std::size(reals))];
      else range.zero = static_cast<int32_t>(pick(260));
      break;
    }
    case 6: {  // a number of a bias, multiplier or sum
      const uint64_t at = offsets[pick(20)] + 4 * pick(32);
      if (at < sizeof header || at > bytes.size() - 4) break;
      const float real = reals[pick(std::size(reals))];
      const uint32_t whole = small[pick(std::size(small))];
      std::memcpy(bytes.data() + at, pick(2) ? static_cast<const void*>(&real) : &whole, 4);
      break;
    }
    case 7:
      (pick(2) ? header.height : header.width) = static_cast<uint32_t>(1 + pick(40));
      if (pick(4) == 0) header.output_count = static_cast<uint32_t>(pick(4));
      if (pick(8) == 0) header.precision = static_cast<uint32_t>(pick(3));
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes bytes(data, size);
  File file;
  std::string error;
  if (!parse(bytes.data(), bytes.size(), &file, &error)) {
    if (error.empty()) bug("refused without a message");
    return 0;
  }
  const int height = static_cast<int>(file.header->height);
  const int width = static_cast<int>(file.header->width);
  for (const char* isa : {static_cast<const char*>(nullptr), "scalar"}) {
    run(file, height, width, 1, isa);
    run(file, height % 23 + 1, width % 29 + 1, 3, isa);
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  std::mt19937 random(seed);
  const bool fields = size > sizeof(FileHeader) && random() % 2;
  if (!fields) size = LLVMFuzzerMutate(data, size, max_size);
  const Bytes bytes(data, size);
  if (fields)
    for (uint32_t i = random() % 3 + 1; i > 0; --i) mutate_field(bytes, &random);
  if (random() % 16) bytes.seal();
  std::memcpy(data, bytes.data(), size);
  return size;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  Pool::assume_cores(3);
  return 0;
}
