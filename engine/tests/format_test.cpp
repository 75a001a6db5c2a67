// parse() on good files, on cut and flipped ones, and on files whose checksum is right and whose
// content is hostile: each is refused, with a text that says what was wrong.
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "check.h"
#include "model.h"

namespace mobilenet {
namespace {

bool parses(const Bytes& bytes, std::string* error) {
  File file;
  error->clear();
  const bool good = parse(bytes.data(), bytes.size(), &file, error);
  CHECK(good == error->empty(), "%s", error->c_str());
  return good;
}

// github.com/Cyan4973/xxHash, xxhsum of these texts
void checksums() {
  auto sum = [](const std::string& text, size_t shift) {
    std::string moved = std::string(shift, ' ') + text;
    return checksum(reinterpret_cast<const uint8_t*>(moved.data()) + shift, text.size());
  };
  for (size_t shift = 0; shift < 9; ++shift) {
    CHECK(sum("", shift) == 0xef46db3751d8e999, "no bytes");
    CHECK(sum("a", shift) == 0xd24ec4f1a98c6e5b, "a");
    CHECK(sum("abc", shift) == 0x44bc2cf5ad770999, "abc");
    CHECK(sum("Nobody inspects the spammish repetition", shift) == 0xfbcea83c8a378bf1, "39 bytes");
  }
}

void good_files() {
  std::string error;
  for (auto precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
    const Bytes bytes = every_step(precision).finish();
    File file;
    CHECK(parse(bytes.data(), bytes.size(), &file, &error), "%s", error.c_str());
    CHECK(std::string(file.name(1)) == "c4", "%s", file.name(1));
    std::vector<Shape> shapes;
    CHECK(infer_shapes(file, 16, 16, &shapes, &error), "%s", error.c_str());
    const Shape expected[] = {{3, 16, 16}, {16, 8, 8}, {16, 8, 8}, {24, 4, 4}, {24, 4, 4},
                              {24, 4, 4},  {16, 4, 4}, {16, 8, 8}, {32, 8, 8}, {32, 1, 1},
                              {32, 1, 1},  {32, 8, 8}, {32, 3, 3}, {40, 3, 3}, {40, 1, 1},
                              {10, 1, 1}};
    CHECK(shapes.size() == std::size(expected), "%zu", shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i)
      CHECK(shapes[i].channels == expected[i].channels && shapes[i].height == expected[i].height &&
                shapes[i].width == expected[i].width,
            "value %zu: %d, %d x %d", i, shapes[i].channels, shapes[i].height, shapes[i].width);
  }
}

void cut_files() {
  const Bytes whole = every_step(Precision::int8).finish();
  std::string error;
  for (size_t size = 0; size < whole.size(); size += size < 8192 ? 1 : 61) {
    const Bytes cut(whole.data(), size);
    CHECK(!parses(cut, &error), "%zu bytes", size);
    cut.seal();  // what is missing is found without the size and the checksum, too
    CHECK(!parses(cut, &error), "%zu bytes, sealed", size);
  }
  std::vector<uint8_t> more(whole.data(), whole.data() + whole.size());
  more.resize(more.size() + 64);
  CHECK(!parses(Bytes(more.data(), more.size()), &error), "64 bytes more");
}

void flipped_files() {
  std::string error;
  for (auto precision : {Precision::float32, Precision::int8}) {
    const Bytes whole = every_step(precision).finish();
    std::mt19937 random(7);
    for (int i = 0; i < 500; ++i) {
      const Bytes bytes(whole);
      const size_t at = sizeof(FileHeader) + random() % (bytes.size() - sizeof(FileHeader));
      bytes.data()[at] ^= static_cast<uint8_t>(1u << random() % 8);
      CHECK(!parses(bytes, &error), "a flipped bit at %zu", at);
      CHECK(error.find("checksum") != std::string::npos, "%s", error.c_str());
    }
    const size_t tables = sizeof(FileHeader) + whole.header().step_count * sizeof(StepRecord) +
                          whole.header().output_count * sizeof(OutputRecord);
    int refused = 0;
    for (size_t at = 0; at < tables; ++at)
      for (int i = 0; i < 2; ++i) {
        const Bytes bytes(whole);
        bytes.data()[at] ^= static_cast<uint8_t>(1u << random() % 8);
        bytes.header().checksum = file_checksum(bytes.data(), bytes.size());
        File file;
        std::vector<Shape> shapes;
        if (!parse(bytes.data(), bytes.size(), &file, &error)) ++refused;
        else infer_shapes(file, 16, 16, &shapes, &error);
      }
    CHECK(refused > static_cast<int>(tables), "only %d of %zu", refused, tables * 2);
  }
}

struct Case {
  const char* expected;  // within the message
  std::function<void(const Bytes&)> spoil;
};

void refuse(const Bytes& good, const std::vector<Case>& cases) {
  std::string error;
  CHECK(parses(good, &error), "%s", error.c_str());
  for (const Case& c : cases) {
    const Bytes bytes(good);
    c.spoil(bytes);
    const uint64_t size = bytes.header().file_bytes;
    bytes.seal();
    bytes.header().file_bytes = size;
    CHECK(!parses(bytes, &error), "accepted, although: %s", c.expected);
    CHECK(error.find(c.expected) != std::string::npos, "\"%s\", expected \"%s\"", error.c_str(),
          c.expected);
  }
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void hostile_headers() {
  refuse(every_step(Precision::int8).finish(), {
    {"not a model file", [](const Bytes& b) { b.header().magic[0] = 'X'; }},
    {"version 2", [](const Bytes& b) { b.header().version = 2; }},
    {"truncated or damaged", [](const Bytes& b) { b.header().file_bytes += 1; }},
    {"truncated or damaged", [](const Bytes& b) { b.header().file_bytes = ~0ull; }},
    {"precision 3", [](const Bytes& b) { b.header().precision = 3; }},
    {"0 steps", [](const Bytes& b) { b.header().step_count = 0; }},
    {"steps: expected 1 to 4096", [](const Bytes& b) { b.header().step_count = ~0u; }},
    {"run past the end", [](const Bytes& b) { b.header().step_count = 4096; }},
    {"0 outputs", [](const Bytes& b) { b.header().output_count = 0; }},
    {"outputs: expected 1 to 4096", [](const Bytes& b) { b.header().output_count = 1u << 31; }},
    {"made for 0 x 16", [](const Bytes& b) { b.header().height = 0; }},
    {"made for 16 x 4294967295", [](const Bytes& b) { b.header().width = ~0u; }},
    {"input range: scale 0", [](const Bytes& b) { b.header().in_range.scale = 0; }},
    {"input range: scale -", [](const Bytes& b) { b.header().in_range.scale = -0.1f; }},
    {"input range: scale", [](const Bytes& b) { b.header().in_range.scale = NAN; }},
    {"input range: scale", [](const Bytes& b) { b.header().in_range.scale = 1e-40f; }},
    {"input range: zero -1", [](const Bytes& b) { b.header().in_range.zero = -1; }},
    {"input range: zero 256", [](const Bytes& b) { b.header().in_range.zero = 256; }},
    {"mean inf", [](const Bytes& b) { b.header().mean[1] = kInfinity; }},
    {"std 0", [](const Bytes& b) { b.header().std[2] = 0; }},
    {"std", [](const Bytes& b) { b.header().std[0] = NAN; }},
    {"resize to 70000", [](const Bytes& b) { b.header().resize = 70000; }},
    {"filter 2", [](const Bytes& b) { b.header().filter = 2; }},
    {"reserved", [](const Bytes& b) { b.header().reserved[2] = 1; }},
    {"wide 3: expected 0 to 2", [](const Bytes& b) { b.header().wide = 3; }},
    // its depthwise weights are of one byte each
    {"depthwise weights", [](const Bytes& b) { b.header().wide = 1; }},
    {"text: offset 1 is not a multiple", [](const Bytes& b) { b.header().text = 1; }},
    {"text: offset 0 lies before", [](const Bytes& b) { b.header().text = 0; }},
    {"text: offset 64 lies before", [](const Bytes& b) { b.header().text = 64; }},
    {"runs past the end", [](const Bytes& b) { b.header().text = ~63ull; }},
    {"runs past the end", [](const Bytes& b) { b.header().text_bytes = ~0ull; }},
    {"text: 0 bytes", [](const Bytes& b) { b.header().text_bytes = 0; }},
    {"text: does not end with a NUL", [](const Bytes& b) { b.header().text_bytes -= 1; }},
    {"text: not UTF-8", [](const Bytes& b) { b.at<uint8_t>(b.header().text) = 0xff; }},
    {"contract: offset", [](const Bytes& b) { b.header().contract = ~63ull; }},
    {"contract: 0 bytes", [](const Bytes& b) { b.header().contract_bytes = 0; }},
    {"contract: does not end with a NUL",
     [](const Bytes& b) { b.header().contract = b.header().text; }},
    {"overlaps", [](const Bytes& b) {
       b.header().contract = b.header().text;
       b.header().contract_bytes = 7;
     }},
    {"labels: offset", [](const Bytes& b) { b.header().labels = ~0u; }},
    {"labels, but the text holds only", [](const Bytes& b) { b.header().label_count = 100; }},
    {"labels: expected at most", [](const Bytes& b) { b.header().label_count = ~0u; }},
    {"output 0: value 0", [](const Bytes& b) { b.output(0).value = 0; }},
    {"output 1: value 16", [](const Bytes& b) { b.output(1).value = 16; }},
    {"output 1: value 4294967295", [](const Bytes& b) { b.output(1).value = kNone; }},
    {"output 1: name at", [](const Bytes& b) { b.output(1).name = ~0u; }},
    {"output 0: a name of", [](const Bytes& b) { b.output(0).name = 6; }},
    {"two outputs are named logits", [](const Bytes& b) { b.output(1).name = 0; }},
  });
}

// Steps of every_step(), by number
enum { kStem, kSeparable, kSqueezed, kResidual, kAdd, kDense, kResize, kConcat, kPool, kGates,
       kMultiply, kAverage };

void hostile_steps() {
  refuse(every_step(Precision::int8).finish(), {
    {"step 4 (unknown): kind 0", [](const Bytes& b) { b.step(kAdd).kind = 0; }},
    {"kind 9", [](const Bytes& b) { b.step(kAdd).kind = 9; }},
    {"step 4 (add): activation 3", [](const Bytes& b) { b.step(kAdd).activation = 3; }},
    {"step 0 (conv): activation 5", [](const Bytes& b) { b.step(kStem).activation = 5; }},
    {"step 8 (pool): activation 1", [](const Bytes& b) { b.step(kPool).activation = 1; }},
    {"out_activation 6", [](const Bytes& b) { b.step(kSeparable).out_activation = 6; }},
    {"out_activation 1", [](const Bytes& b) { b.step(kResidual).out_activation = 1; }},
    {"padding 2", [](const Bytes& b) { b.step(kDense).padding = 2; }},
    {"input 0: value 5: only values 0 to 4", [](const Bytes& b) { b.step(4).inputs[0] = 5; }},
    {"input 1: value 15", [](const Bytes& b) { b.step(4).inputs[1] = 15; }},
    {"input 0: value 1: only values 0 to 0", [](const Bytes& b) { b.step(0).inputs[0] = 1; }},
    {"input 0: value 2147483648", [](const Bytes& b) { b.step(2).inputs[0] = 1u << 31; }},
    {"1 inputs: expected 2 to 2", [](const Bytes& b) { b.step(kAdd).inputs[1] = kNone; }},
    {"0 inputs", [](const Bytes& b) { b.step(kPool).inputs[0] = kNone; }},
    {"3 inputs", [](const Bytes& b) { b.step(kAdd).inputs[2] = 1; }},
    {"input 1 is missing", [](const Bytes& b) { b.step(kPool).inputs[2] = 1; }},
    {"only an ordinary convolution", [](const Bytes& b) { b.step(kSeparable).inputs[0] = 0; }},
    {"step 13: nothing reads its result", [](const Bytes& b) { b.step(14).inputs[0] = 13; }},
    {"in_channels 17, but value 1 has 16", [](const Bytes& b) { b.step(1).in_channels = 17; }},
    {"in_channels 0", [](const Bytes& b) { b.step(1).in_channels = 0; }},
    {"in_channels 4294967295", [](const Bytes& b) { b.step(1).in_channels = ~0u; }},
    {"out_channels 0", [](const Bytes& b) { b.step(kStem).out_channels = 0; }},
    {"out_channels 65537", [](const Bytes& b) { b.step(kStem).out_channels = 65537; }},
    {"out_channels 25: expected 24", [](const Bytes& b) { b.step(kAdd).out_channels = 25; }},
    {"out_channels 33: expected 32", [](const Bytes& b) { b.step(kConcat).out_channels = 33; }},
    {"out_channels 8: expected 24", [](const Bytes& b) { b.step(kResidual).out_channels = 8; }},
    {"inputs of 24 and 16 channels", [](const Bytes& b) { b.step(kAdd).inputs[1] = 1; }},
    {"expected multiples of 16", [](const Bytes& b) { b.step(kConcat).inputs[0] = 5;
                                                       b.step(kConcat).in_channels = 24; }},
    {"expanded 0", [](const Bytes& b) { b.step(kResidual).expanded = 0; }},
    {"expanded 70000", [](const Bytes& b) { b.step(kResidual).expanded = 70000; }},
    {"expanded 1: expected 0 here", [](const Bytes& b) { b.step(kAdd).expanded = 1; }},
    {"expanded 32 without expand", [](const Bytes& b) { b.step(kSeparable).expanded = 32; }},
    {"squeeze 65537", [](const Bytes& b) { b.step(kSqueezed).squeeze = 65537; }},
    {"squeeze 1: expected 0", [](const Bytes& b) { b.step(kDense).squeeze = 1; }},
    {"reduce: not expected", [](const Bytes& b) { b.step(kSqueezed).squeeze = 0; }},
    {"residual 2", [](const Bytes& b) { b.step(kResidual).residual = 2; }},
    {"residual 1: expected 0", [](const Bytes& b) { b.step(kSqueezed).residual = 1; }},
    {"out_channels 24: expected 16", [](const Bytes& b) { b.step(kSqueezed).residual = 1;
                                                           b.step(kSqueezed).stride = 1; }},
    {"kernel 0", [](const Bytes& b) { b.step(kResidual).kernel = 0; }},
    {"kernel 4: expected an odd", [](const Bytes& b) { b.step(kResidual).kernel = 4; }},
    {"kernel 33", [](const Bytes& b) { b.step(kDense).kernel = 33; }},
    {"kernel 3: expected 1", [](const Bytes& b) { b.step(kPool).kernel = 3; }},
    {"kernel 513", [](const Bytes& b) { b.step(kAverage).kernel = 513; }},
    {"stride 0", [](const Bytes& b) { b.step(kDense).stride = 0; }},
    {"stride 9", [](const Bytes& b) { b.step(kDense).stride = 9; }},
    {"stride 0", [](const Bytes& b) { b.step(kAverage).stride = 0; }},
    {"dilation 0", [](const Bytes& b) { b.step(kDense).dilation = 0; }},
    {"dilation 65", [](const Bytes& b) { b.step(kDense).dilation = 65; }},
    {"dilation 2: expected 1", [](const Bytes& b) { b.step(kStem).dilation = 2; }},
    {"depthwise: a sum of 529 products", [](const Bytes& b) {
       b.step(kSeparable).kernel = 23;
       b.step(kSeparable).depthwise.weights = b.step(kStem).project.weights;
     }},
    {"expanded 72 without expand", [](const Bytes& b) { b.step(kResidual).expand.weights = 0; }},
    {"reduce: not expected here", [](const Bytes& b) { b.step(kSeparable).reduce.bias = 64; }},
    {"project: not expected here", [](const Bytes& b) { b.step(kPool).project.weight_sum = 64; }},
  });
}

// Every offset of every step in turn: nowhere that it can point to but its own place is accepted.
void hostile_offsets() {
  std::string error;
  for (auto precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
    const Bytes good = every_step(precision).finish();
    const uint64_t end = good.size();
    for (size_t step = 0; step < good.header().step_count; ++step)
      for (size_t field = 0; field < 5 * 4; ++field) {
        auto offset = [&](const Bytes& b) -> uint64_t& {
          return (&b.step(step).expand.weights)[field];
        };
        const uint64_t here = offset(good);
        for (uint64_t to : {uint64_t{0}, uint64_t{1}, uint64_t{64}, here + 1, here + 4, here + 64,
                            here - 64, end, end - 64, (end + 63) / 64 * 64, ~uint64_t{0},
                            ~uint64_t{63}, uint64_t{1} << 63, good.header().text,
                            good.step(0).project.weights, good.step(3).project.bias}) {
          if (to == here) continue;
          const Bytes bytes(good);
          offset(bytes) = to;
          bytes.seal();
          CHECK(!parses(bytes, &error), "step %zu, offset %zu: %llu instead of %llu", step, field,
                static_cast<unsigned long long>(to), static_cast<unsigned long long>(here));
        }
      }
  }
  refuse(every_step(Precision::float32).finish(), {
    {"step 3 (block): expand weights: offset 64 lies before the end of the tables (",
     [](const Bytes& b) { b.step(3).expand.weights = 64; }},
    {"step 3 (block): expand bias: offset 6401 is not a multiple of 64",
     [](const Bytes& b) { b.step(3).expand.bias = 6401; }},
    {"step 3 (block): depthwise weights: offset 1048576 + 2880 bytes runs past the end of the "
     "file (", [](const Bytes& b) { b.step(3).depthwise.weights = 1 << 20; }},
    {"step 3 (block): project: a multiplier or weight_sum is not expected",
     [](const Bytes& b) { b.step(3).project.multiplier = b.step(3).project.bias; }},
    {") overlaps step 3: project weights (to ",
     [](const Bytes& b) { b.step(4).kind = 1; b.step(4).inputs[1] = kNone;
                          b.step(4).project = b.step(3).project;
                          b.step(4).project.weights += 64; }},
  });
}

void hostile_numbers() {
  refuse(every_step(Precision::float32).finish(), {
    {"step 0 (conv): project bias of output 0: nan",
     [](const Bytes& b) { b.at<float>(b.step(0).project.bias) = NAN; }},
    {"step 3 (block): depthwise bias of output 71: inf",
     [](const Bytes& b) { b.at<float>(b.step(3).depthwise.bias, 71) = kInfinity; }},
    {"step 3 (block): depthwise bias of output 79: -inf",  // padding counts
     [](const Bytes& b) { b.at<float>(b.step(3).depthwise.bias, 79) = -kInfinity; }},
  });
  std::vector<Case> cases = {
    {"step 0 (conv): project weights: 0.5: expected whole",
     [](const Bytes& b) { b.at<float>(b.step(0).project.weights) = 0.5f; }},
    {"project weights: nan", [](const Bytes& b) { b.at<float>(b.step(0).project.weights) = NAN; }},
    {"project weights: 128", [](const Bytes& b) { b.at<float>(b.step(0).project.weights) = 128; }},
    {"step 2 (block): excite multiplier of output 3: nan",
     [](const Bytes& b) { b.at<float>(b.step(2).excite.multiplier, 3) = NAN; }},
    {"step 2 (block): depthwise multiplier of output 0: 1e+30",
     [](const Bytes& b) { b.at<float>(b.step(2).depthwise.multiplier) = 1e30f; }},
    {"step 2 (block): reduce bias of output 1: -2147483648",
     [](const Bytes& b) { b.at<int32_t>(b.step(2).reduce.bias, 1) = INT32_MIN; }},
    {"step 2 (block): depthwise bias of output 1: 2147483647",
     [](const Bytes& b) { b.at<int32_t>(b.step(2).depthwise.bias, 1) = INT32_MAX; }},
    {"step 5 (conv): project weight_sum of output 2: 1000000",
     [](const Bytes& b) { b.at<int32_t>(b.step(5).project.weight_sum, 2) = 1000000; }},
  };
  Affine StepRecord::*ranges[] = {&StepRecord::expanded_range, &StepRecord::depthwise_range,
                                  &StepRecord::pooled_range,   &StepRecord::squeezed_range,
                                  &StepRecord::gated_range,    &StepRecord::out_range};
  for (auto range : ranges)
    for (size_t step : {size_t{0}, size_t{2}, size_t{kPool}}) {
      for (float scale : {0.f, -0.f, -1.f, NAN, kInfinity, 1e-30f, 1e30f})
        cases.push_back({"_range: scale", [=](const Bytes& b) {
                           (b.step(step).*range).scale = scale;
                         }});
      for (int32_t zero : {-1, 256, INT32_MIN, INT32_MAX})
        cases.push_back({"_range: zero", [=](const Bytes& b) {
                           (b.step(step).*range).zero = zero;
                         }});
    }
  refuse(every_step(Precision::int8).finish(), cases);
}

// int8: sums of more products than 32 bits hold.
void hostile_sums() {
  std::string error;
  Model model(Precision::int8);
  const uint32_t wide = model.conv(0, 4096);
  model.output(model.conv(wide, 16, 3), "out");  // 36864 products
  CHECK(!parses(model.finish(), &error), "accepted");
  CHECK(error.find("step 1 (conv): project: a sum of 36864 products overflows") == 0, "%s",
        error.c_str());
}

void misaligned_bytes() {
  const Bytes good = every_step(Precision::float32).finish();
  std::vector<uint8_t> room(good.size() + 2 * kAlign);
  uint8_t* at = room.data() + kAlign - reinterpret_cast<uintptr_t>(room.data()) % kAlign + 8;
  std::memcpy(at, good.data(), good.size());
  File file;
  std::string error;
  CHECK(!parse(at, good.size(), &file, &error), "accepted");
  CHECK(error.find("64-byte aligned") != std::string::npos, "%s", error.c_str());
}

bool fits(const Model& model, int height, int width, std::string* error) {
  Model copy = model;
  const Bytes bytes = copy.finish();
  File file;
  CHECK(parse(bytes.data(), bytes.size(), &file, error), "%s", error->c_str());
  return check_size(file, height, width, error);
}

void sizes() {
  std::string error;
  auto refused = [&](const Model& model, int height, int width, const char* expected) {
    CHECK(!fits(model, height, width, &error), "accepted, although: %s", expected);
    CHECK(error.find(expected) != std::string::npos, "\"%s\", expected \"%s\"", error.c_str(),
          expected);
  };
  const Model all = every_step(Precision::int8);
  CHECK(fits(all, 13, 29, &error), "%s", error.c_str());
  CHECK(fits(all, 224, 224, &error), "%s", error.c_str());
  for (int side : {0, -1, INT32_MIN, INT32_MAX, 16385}) {
    refused(all, side, 16, "expected 1 to 16384 each way");
    refused(all, 16, side, "expected 1 to 16384 each way");
  }
  refused(all, 4, 4, "step 11 (average_pool): the map of 2 x 2 vanishes under a kernel of 3, for "
                     "an input of 4 x 4");
  refused(all, 16384, 16384, "too many");

  Model pooled(Precision::int8);
  pooled.output(pooled.simple(StepKind::pool, {pooled.conv(0, 16, 3, 1)}), "out");
  CHECK(fits(pooled, 2900, 2900, &error), "%s", error.c_str());
  refused(pooled, 2903, 2903, "step 1 (pool): the sum over 8427409 pixels overflows");

  Model mixed(Precision::float32);
  const uint32_t half = mixed.conv(0, 16, 3, 2), whole = mixed.conv(0, 16, 3, 1);
  mixed.output(mixed.simple(StepKind::add, {half, whole}), "out");
  refused(mixed, 8, 6, "step 2 (add): inputs differ in size: 4 x 3 and 8 x 6");
  CHECK(fits(mixed, 1, 1, &error), "%s", error.c_str());

  Model gated(Precision::float32);
  const uint32_t map = gated.conv(0, 16, 3, 2);
  gated.output(gated.simple(StepKind::multiply, {map, map}), "out");
  refused(gated, 8, 8, "a 1x1 map and input 1 differ in size: 1 x 1 and 4 x 4");

  Model many(Precision::float32);  // each fits, all together do not
  uint32_t value = many.conv(0, 16, 1, 1);
  for (int i = 0; i < 10; ++i) value = many.conv(value, 16);
  many.output(value, "out");
  refused(many, 4096, 4096, "the maps up to here hold 2147483648 numbers, too many");

  Model wide(Precision::float32);  // narrow outside, wide inside
  BlockShape shape{65536, 16};
  shape.stride = 8;
  wide.output(wide.block(wide.conv(0, 16), shape), "out");
  refused(wide, 512, 512, "step 1 (block): a map of");

  Model gathered(Precision::float32);  // wide in a row of a dense convolution
  gathered.output(gathered.conv(gathered.conv(0, 4096), 1, 31), "out");
  refused(gathered, 2, 1024, "step 1 (conv): a map of");

  Model reaching(Precision::float32);  // padding wider than the map
  shape = {65536, 16};
  shape.kernel = 31;
  shape.dilation = 64;
  reaching.output(reaching.block(reaching.conv(0, 16), shape), "out");
  refused(reaching, 1, 1, "step 1 (block): a map of");
}

}  // namespace
}  // namespace mobilenet

int main() {
  using namespace mobilenet;
  checksums();
  good_files();
  cut_files();
  flipped_files();
  hostile_headers();
  hostile_steps();
  hostile_offsets();
  hostile_numbers();
  hostile_sums();
  misaligned_bytes();
  sizes();
  std::puts("format: all hold");
}
