#include "steps.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "message.h"
#include "sizes.h"

namespace mobilenet {
namespace {

constexpr uint32_t kMaxKernel = 31, kMaxStride = 8, kMaxDilation = 64;
constexpr uint32_t kMaxWindow = 512;  // of average_pool: its kernel and stride

// Bounds within which no int8 arithmetic makes a NaN of an infinity, which has no rounding:
// products and quotients of scales stay finite, and so does a sum times its multiplier.
constexpr float kMinScale = 0x1p-67f, kMaxScale = 0x1p30f, kMaxMultiplier = 0x1p60f;

// Sums of an int8 network are int32; those that are made of float32 numbers are exact to 2^24.
constexpr int64_t kMaxProduct = kLargest * 128;
constexpr int64_t kMaxWideProduct = kLargestWide * (kLargestWideWeight + 1);
constexpr int64_t kMaxExact = int64_t{1} << 24;

// How a step uses a filter.
enum class Use {
  image,   // matrix that reads the image
  matrix,
  depthwise,
};

class StepChecker {
 public:
  StepChecker(const File& file, Layout* layout)
      : file_(file),
        layout_(*layout),
        precision_(static_cast<Precision>(file.header->precision)),
        wide_(file.header->wide != 0),
        wide_maps_(file.header->wide == kWideMaps),
        channels_{3} {}

  bool run(std::string* error) {
    const uint32_t steps = file_.header->step_count;
    used_.assign(steps + 1, false);
    for (uint32_t i = 0; i < file_.header->output_count; ++i) used_[file_.outputs[i].value] = true;
    for (index_ = 0; index_ < steps; ++index_) {
      const StepRecord& s = file_.steps[index_];
      if (!check(s)) {
        *error = "step " + std::to_string(index_) + " (" + name(static_cast<StepKind>(s.kind)) +
                 "): " + reason_;
        return false;
      }
      channels_.push_back(s.out_channels);
    }
    for (uint32_t value = 1; value <= steps; ++value)
      if (!used_[value])
        return fail(error, "step %u: nothing reads its result, and it is no output", value - 1);
    return true;
  }

 private:
  bool check(const StepRecord& s) {
    return check_inputs(s) && check_fields(s) && check_channels(s) && check_filters(s) &&
           check_ranges(s);
  }

  // -------------------------------------------------------------------------- what it reads

  bool check_inputs(const StepRecord& s) {
    uint32_t least = 1, most = 1;
    switch (static_cast<StepKind>(s.kind)) {
      case StepKind::conv:
      case StepKind::block:
      case StepKind::pool:
      case StepKind::average_pool: break;
      case StepKind::add:
      case StepKind::multiply:
      case StepKind::resize: least = most = 2; break;
      case StepKind::concat: least = 2, most = 4; break;
      default: return fail(&reason_, "kind %u: expected 1 to 8", s.kind);
    }
    uint32_t count = 0;
    while (count < 4 && s.inputs[count] != kNone) ++count;
    for (uint32_t i = count; i < 4; ++i)
      if (s.inputs[i] != kNone) return fail(&reason_, "input %u is missing before others", count);
    if (count < least || count > most)
      return fail(&reason_, "%u inputs: expected %u to %u", count, least, most);
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t value = s.inputs[i];
      if (value > index_)
        return fail(&reason_, "input %u: value %u: only values 0 to %u are there yet", i, value,
                    index_);
      if (value == 0 && static_cast<StepKind>(s.kind) != StepKind::conv)
        return fail(&reason_, "only an ordinary convolution can read the image");
      used_[value] = true;
    }
    return true;
  }

  // ----------------------------------------------------------------------------- dimensions

  bool check_fields(const StepRecord& s) {
    const auto kind = static_cast<StepKind>(s.kind);
    const bool conv = kind == StepKind::conv, block = kind == StepKind::block;
    const bool window = kind == StepKind::average_pool;
    const uint32_t kernels = conv || block ? kMaxKernel : window ? kMaxWindow : 1;
    const uint32_t strides = conv || block ? kMaxStride : window ? kMaxWindow : 1;
    const uint32_t dilations = block || (conv && s.inputs[0] != 0) ? kMaxDilation : 1;
    const uint32_t curves = static_cast<uint32_t>(Activation::hard_sigmoid);
    if (!within("kernel", s.kernel, 1, kernels) || !within("stride", s.stride, 1, strides) ||
        !within("dilation", s.dilation, 1, dilations))
      return false;
    if ((conv || block) && s.kernel % 2 == 0)
      return fail(&reason_, "kernel %u: expected an odd number", s.kernel);
    return within("padding", s.padding, 0, conv || block ? 1 : 0) &&
           within("activation", s.activation, 0, last_activation(s)) &&
           within("out_activation", s.out_activation, 0, block && !s.residual ? curves : 0) &&
           within("in_channels", s.in_channels, 1, kMaxChannels) &&
           within("out_channels", s.out_channels, 1, kMaxChannels) &&
           within("expanded", s.expanded, block ? 1 : 0, block ? kMaxChannels : 0) &&
           within("squeeze", s.squeeze, 0, block ? kMaxChannels : 0) &&
           within("residual", s.residual, 0, block && s.stride == 1 ? 1 : 0);
  }

  uint32_t last_activation(const StepRecord& s) const {
    const bool int8 = precision_ == Precision::int8;
    Activation last = Activation::none;
    switch (static_cast<StepKind>(s.kind)) {
      case StepKind::conv:
        last = int8 || s.inputs[0] == 0 ? Activation::hard_sigmoid : Activation::sigmoid;
        break;
      case StepKind::block: last = Activation::hard_swish; break;
      case StepKind::add: last = Activation::relu6; break;
      default: break;
    }
    return static_cast<uint32_t>(last);
  }

  bool within(const char* what, uint32_t found, uint32_t least, uint32_t most) {
    if (found >= least && found <= most) return true;
    return least == most ? fail(&reason_, "%s %u: expected %u here", what, found, least)
                         : fail(&reason_, "%s %u: expected %u to %u", what, found, least, most);
  }

  bool check_channels(const StepRecord& s) {
    const uint32_t in = channels_[s.inputs[0]];
    if (s.in_channels != in)
      return fail(&reason_, "in_channels %u, but value %u has %u", s.in_channels, s.inputs[0], in);
    uint32_t out = in;
    switch (static_cast<StepKind>(s.kind)) {
      case StepKind::conv: return true;
      case StepKind::block:
        if (!s.expand.weights && s.expanded != in)
          return fail(&reason_, "expanded %u without expand: expected in_channels, %u", s.expanded,
                      in);
        if (!s.residual) return true;
        break;
      case StepKind::add:
      case StepKind::multiply:
        if (channels_[s.inputs[1]] != in)
          return fail(&reason_, "inputs of %u and %u channels: expected the same", in,
                      channels_[s.inputs[1]]);
        break;
      case StepKind::concat:
        if (!concatenated(s, &out)) return false;
        break;
      default: break;
    }
    return s.out_channels == out ||
           fail(&reason_, "out_channels %u: expected %u", s.out_channels, out);
  }

  bool concatenated(const StepRecord& s, uint32_t* sum) {
    *sum = 0;
    for (uint32_t value : s.inputs) {
      if (value == kNone) break;
      if (*sum % kBlock != 0)
        return fail(&reason_, "channels of all inputs but the last: expected multiples of %d",
                    kBlock);
      *sum += channels_[value];
    }
    return true;
  }

  // -------------------------------------------------------------------------------- arrays

  bool check_filters(const StepRecord& s) {
    const int kernel = static_cast<int>(s.kernel);
    switch (static_cast<StepKind>(s.kind)) {
      case StepKind::conv: {
        const bool image = s.inputs[0] == 0;
        return absent("expand", s.expand) && absent("depthwise", s.depthwise) &&
               absent("reduce", s.reduce) && absent("excite", s.excite) &&
               filter("project", s.project, image ? Use::image : Use::matrix, s.out_channels,
                      conv_inputs(s.in_channels, kernel, image), kernel);
      }
      case StepKind::block:
        return (s.expand.weights
                    ? filter("expand", s.expand, Use::matrix, s.expanded, s.in_channels, 1)
                    : absent("expand", s.expand)) &&
               filter("depthwise", s.depthwise, Use::depthwise, s.expanded, kernel * kernel,
                      kernel) &&
               (s.squeeze
                    ? filter("reduce", s.reduce, Use::matrix, s.squeeze, s.expanded, 1) &&
                          filter("excite", s.excite, Use::matrix, s.expanded, s.squeeze, 1)
                    : absent("reduce", s.reduce) && absent("excite", s.excite)) &&
               filter("project", s.project, Use::matrix, s.out_channels, s.expanded, 1);
      default:
        return absent("expand", s.expand) && absent("depthwise", s.depthwise) &&
               absent("reduce", s.reduce) && absent("excite", s.excite) &&
               absent("project", s.project);
    }
  }

  bool absent(const char* what, const ConvRecord& record) {
    return !(record.weights || record.bias || record.multiplier || record.weight_sum) ||
           fail(&reason_, "%s: not expected here", what);
  }

  bool array(const char* what, const char* part, uint64_t offset, int64_t bytes) {
    return layout_.add({index_, what, part}, offset, static_cast<uint64_t>(bytes), &reason_);
  }

  // `inputs`: products in the sum of one output.
  bool filter(const char* what, const ConvRecord& record, Use use, int64_t outputs, int64_t inputs,
              int kernel) {
    const bool int8 = precision_ == Precision::int8;
    const Precision stored = use == Use::image ? Precision::float32 : precision_;
    const int64_t bytes = use == Use::depthwise ? filter_bytes(stored, wide_, outputs, kernel)
                                                : matrix_bytes(stored, outputs, inputs);
    const bool sums = int8 && use == Use::matrix;
    if (!array(what, " weights", record.weights, bytes) ||
        !array(what, " bias", record.bias, vector_bytes(outputs)))
      return false;
    if (int8 && !array(what, " multiplier", record.multiplier, vector_bytes(outputs))) return false;
    if (sums && !array(what, " weight_sum", record.weight_sum, vector_bytes(outputs))) return false;
    if ((!int8 && record.multiplier) || (!sums && record.weight_sum))
      return fail(&reason_, "%s: a multiplier or weight_sum is not expected here", what);
    const int64_t padded = vector_bytes(outputs) / 4;
    return int8 ? check_integers(what, record, use, padded, inputs)
                : check_floats(what, " bias", file_.at<float>(record.bias), padded,
                               std::numeric_limits<float>::max());
  }

  // ------------------------------------------------------------------------------- numbers

  // The weights themselves are not looked at: whatever they are, no index depends on them, and a
  // NaN among float32 stays one.
  bool check_floats(const char* what, const char* part, const float* x, int64_t count, float most) {
    for (int64_t i = 0; i < count; ++i)
      if (!(std::fabs(x[i]) <= most))
        return fail(&reason_, "%s%s of output %lld: %g: expected a finite number up to %g", what,
                    part, static_cast<long long>(i), x[i], most);
    return true;
  }

  bool check_integers(const char* what, const ConvRecord& record, Use use, int64_t count,
                      int64_t inputs) {
    const int32_t* bias = file_.at<int32_t>(record.bias);
    const bool exact = use != Use::matrix;  // computed in float32
    if (!exact) inputs = matrix_inputs(precision_, inputs);
    // a correction by the weights' sum times the input's zero is as large as the sum itself
    const int64_t product = wide_maps_ ? kLargestWide * 128 : kMaxProduct;
    const int64_t sum =
        exact ? inputs * (wide_ ? kMaxWideProduct : kMaxProduct) : 2 * inputs * product;
    const int64_t left = (exact ? kMaxExact : INT32_MAX) - sum;
    if (left < 0)
      return fail(&reason_, "%s: a sum of %lld products overflows in int8", what,
                  static_cast<long long>(inputs));
    const int64_t most = exact ? INT32_MAX - sum : left;
    for (int64_t i = 0; i < count; ++i)
      if (std::llabs(bias[i]) > most)
        return fail(&reason_, "%s bias of output %lld: %d: expected at most %lld", what,
                    static_cast<long long>(i), bias[i], static_cast<long long>(most));
    if (use == Use::matrix) {
      const int32_t* sums = file_.at<int32_t>(record.weight_sum);
      for (int64_t i = 0; i < count; ++i)
        if (std::llabs(sums[i]) > inputs * 128)
          return fail(&reason_, "%s weight_sum of output %lld: %d: impossible for %lld weights",
                      what, static_cast<long long>(i), sums[i], static_cast<long long>(inputs));
    }
    if (use == Use::image) {
      const float* weights = file_.at<float>(record.weights);
      for (int64_t i = 0; i < count * inputs; ++i)
        if (!(std::fabs(weights[i]) <= most_weight()) || weights[i] != std::nearbyint(weights[i]))
          return fail(&reason_, "%s weights: %g: expected whole numbers from -%d to %d", what,
                      weights[i], most_weight(), most_weight());
    }
    if (use == Use::depthwise && wide_) {
      // one byte a weight is within bounds whatever it holds
      const int16_t* weights = file_.at<int16_t>(record.weights);
      for (int64_t i = 0; i < count * inputs; ++i)
        if (std::abs(weights[i]) > most_weight())
          return fail(&reason_, "%s weights: %d: expected -%d to %d", what, weights[i],
                      most_weight(), most_weight());
    }
    return check_floats(what, " multiplier", file_.at<float>(record.multiplier), count,
                        kMaxMultiplier);
  }

  int most_weight() const { return wide_ ? kLargestWideWeight : kLargestWeight; }

  bool check_ranges(const StepRecord& s) {
    return precision_ != Precision::int8 ||
           (check_range("expanded_range", s.expanded_range, wide_, &reason_) &&
            check_range("depthwise_range", s.depthwise_range, wide_maps_, &reason_) &&
            check_range("pooled_range", s.pooled_range, wide_maps_, &reason_) &&
            check_range("squeezed_range", s.squeezed_range, wide_maps_, &reason_) &&
            check_range("gated_range", s.gated_range, wide_maps_, &reason_) &&
            check_range("out_range", s.out_range, wide_maps_, &reason_));
  }

  const File& file_;
  Layout& layout_;
  const Precision precision_;
  const bool wide_, wide_maps_;
  std::vector<uint32_t> channels_;  // of the values so far
  std::vector<bool> used_;          // values that are read or outputs
  uint32_t index_ = 0;
  std::string reason_;
};

}  // namespace

bool check_range(const char* what, const Affine& range, bool wide, std::string* error) {
  const int most = wide ? kLargestWide : kLargest;
  if (!(range.scale >= kMinScale && range.scale <= kMaxScale))
    return fail(error, "%s: scale %g: expected %g to %g", what, range.scale, kMinScale, kMaxScale);
  return (range.zero >= 0 && range.zero <= most) ||
         fail(error, "%s: zero %d: expected 0 to %d", what, range.zero, most);
}

bool check_steps(const File& file, Layout* layout, std::string* error) {
  return StepChecker(file, layout).run(error);
}

}  // namespace mobilenet
