// Heights and widths of all values, and the bounds that keep a hostile file from asking for more
// memory or larger indices than the loops can count.

#include "message.h"
#include "sizes.h"

namespace mobilenet {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 31;  // of one map: places in it are int
constexpr int64_t kMaxTotal = int64_t{1} << 31;     // of all maps: 8 GiB of float32
constexpr int64_t kMaxSummed = INT32_MAX / 255;     // pixels of an int8 mean: sums are int32

int64_t elements(int64_t channels, int64_t height, int64_t width) {
  return (channels + kBlock - 1) / kBlock * kBlock * height * width;
}

class Sizer {
 public:
  Sizer(const File& file, std::vector<Shape>* shapes, std::string* error)
      : file_(file), shapes_(*shapes), error_(error) {}

  bool run(int height, int width) {
    const int largest = static_cast<int>(kMaxSide);
    if (height < 1 || width < 1 || height > largest || width > largest)
      return fail(error_, "input of %d x %d pixels: expected 1 to %d each way", height, width,
                  largest);
    shapes_.assign(1, {3, height, width});
    for (uint32_t i = 0; i < file_.header->step_count; ++i) {
      const StepRecord& s = file_.steps[i];
      Shape out = shapes_[s.inputs[0]];
      std::string reason;
      if (!step(s, &out, &reason))
        return fail(error_, "step %u (%s): %s, for an input of %d x %d", i,
                    name(static_cast<StepKind>(s.kind)), reason.c_str(), height, width);
      shapes_.push_back(out);
    }
    return true;
  }

 private:
  bool step(const StepRecord& s, Shape* out, std::string* reason) {
    const Shape in = *out;
    const int stride = static_cast<int>(s.stride), kernel = static_cast<int>(s.kernel);
    out->channels = static_cast<int>(s.out_channels);
    switch (static_cast<StepKind>(s.kind)) {
      case StepKind::conv:
      case StepKind::block:
        out->height = (in.height + stride - 1) / stride;
        out->width = (in.width + stride - 1) / stride;
        break;
      case StepKind::pool:
        if (!summable(in, reason)) return false;
        out->height = out->width = 1;
        break;
      case StepKind::add:
      case StepKind::concat:
        for (uint32_t value : s.inputs)
          if (value != kNone && !same_size(in, shapes_[value], "inputs", reason)) return false;
        break;
      case StepKind::multiply:
        if (!same_size({1, 1, 1}, shapes_[s.inputs[1]], "a 1x1 map and input 1", reason))
          return false;
        break;
      case StepKind::resize:
        out->height = shapes_[s.inputs[1]].height;
        out->width = shapes_[s.inputs[1]].width;
        break;
      case StepKind::average_pool:
        if (kernel > in.height || kernel > in.width)
          return fail(reason, "the map of %d x %d vanishes under a kernel of %d", in.height,
                      in.width, kernel);
        out->height = (in.height - kernel) / stride + 1;
        out->width = (in.width - kernel) / stride + 1;
        break;
    }
    return fits(s, in, *out, reason);
  }

  // The map written, what a block or a convolution holds inside, and the total so far.
  bool fits(const StepRecord& s, const Shape& in, const Shape& out, std::string* reason) {
    const int64_t written = elements(out.channels, out.height, out.width);
    int64_t inside = 0, padded = 0;
    if (static_cast<StepKind>(s.kind) == StepKind::block) {
      if (s.squeeze && !summable(out, reason)) return false;
      const int64_t reach = int64_t{s.dilation} * (s.kernel - 1) + s.stride;
      inside = elements(s.expanded, out.height, out.width);
      padded = elements(s.expanded, in.height + reach, in.width + reach);
    } else if (static_cast<StepKind>(s.kind) == StepKind::conv) {  // a row's inputs, gathered
      padded = conv_inputs(s.in_channels, static_cast<int>(s.kernel), false) * out.width;
    }
    for (int64_t count : {written, inside, padded})
      if (count >= kMaxElements)
        return fail(reason, "a map of %lld numbers is too large", static_cast<long long>(count));
    total_ += written + inside;
    if (total_ >= kMaxTotal)
      return fail(reason, "the maps up to here hold %lld numbers, too many",
                  static_cast<long long>(total_));
    return true;
  }

  bool summable(const Shape& map, std::string* reason) const {
    const int64_t pixels = int64_t{map.height} * map.width;
    return static_cast<Precision>(file_.header->precision) != Precision::int8 ||
           pixels <= kMaxSummed ||
           fail(reason, "the sum over %lld pixels overflows", static_cast<long long>(pixels));
  }

  static bool same_size(const Shape& a, const Shape& b, const char* what, std::string* reason) {
    return (a.height == b.height && a.width == b.width) ||
           fail(reason, "%s differ in size: %d x %d and %d x %d", what, a.height, a.width,
                b.height, b.width);
  }

  const File& file_;
  std::vector<Shape>& shapes_;
  std::string* error_;
  int64_t total_ = 0;
};

}  // namespace

bool infer_shapes(const File& file, int height, int width, std::vector<Shape>* shapes,
                  std::string* error) {
  return Sizer(file, shapes, error).run(height, width);
}

bool check_size(const File& file, int height, int width, std::string* error) {
  std::vector<Shape> shapes;
  return infer_shapes(file, height, width, &shapes, error);
}

}  // namespace mobilenet
