#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace mobilenet {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

size_t blocks(int channels) { return (static_cast<size_t>(channels) + kBlock - 1) / kBlock; }

float factor(double x) { return static_cast<float>(x); }

int padding_before(Padding padding, int size, int kernel, int stride, int dilation) {
  const int reach = dilation * (kernel - 1) + 1;
  if (padding == Padding::symmetric) return (reach - 1) / 2;
  const int out = (size + stride - 1) / stride;
  return std::max((out - 1) * stride + reach - size, 0) / 2;
}

class Reader {
 public:
  Reader(const File& file, const Arithmetic& arithmetic, bool widen,
         const std::vector<Shape>& shapes)
      : file_(file), arithmetic_(arithmetic), widen_(widen), shapes_(shapes) {
    precision_ = static_cast<Precision>(file.header->precision);
    is_int8_ = precision_ == Precision::int8;
    wide_ = file.header->wide != 0;
    map_largest_ = file.header->wide == kWideMaps ? kLargestWide : kLargest;
  }

  Program read() {
    const uint32_t steps = file_.header->step_count;
    value_of_.assign(steps + 1, -1);
    std::vector<char> is_output(steps + 1, 0), is_read(steps + 1, 0);
    for (uint32_t i = 0; i < file_.header->output_count; ++i) is_output[file_.outputs[i].value] = 1;
    for (uint32_t i = 0; i < steps; ++i)
      for (uint32_t v : file_.steps[i].inputs)
        if (v != kNone) is_read[v] = 1;
    value_of_[0] = add_value(shapes_[0], file_.header->in_range);
    for (uint32_t i = 0; i < steps; ++i) {
      const StepRecord& s = file_.steps[i];
      step_ = static_cast<int>(i);
      const int out = add_value(shapes_[i + 1], s.out_range);
      Value& value = program_.values[out];
      value.output = is_output[i + 1];
      const auto kind = static_cast<StepKind>(s.kind);
      value.is_float = arithmetic_.map_bytes != sizeof(float) && value.output && !is_read[i + 1];
      value_of_[i + 1] = out;
      if (kind == StepKind::conv) conv(s, out);
      else if (kind == StepKind::block) block(s, out);
      else simple(kind, s, out);
    }
    for (uint32_t i = 0; i < file_.header->output_count; ++i)
      program_.outputs.push_back({file_.name(i), value_of_[file_.outputs[i].value]});
    return std::move(program_);
  }

 private:
  int add_value(const Shape& shape, Affine range) {
    Value value;
    value.channels = shape.channels;
    value.height = shape.height;
    value.width = shape.width;
    value.range = range;
    program_.values.push_back(value);
    return static_cast<int>(program_.values.size()) - 1;
  }

  Node begin(Op op, int in, int out) {
    Node n;
    n.op = op;
    n.step = step_;
    n.in[0] = in;
    n.out = out;
    n.in_channels = program_.values[in].channels;
    n.out_channels = program_.values[out].channels;
    return n;
  }

  void push(const Node& n) {
    const int index = static_cast<int>(program_.nodes.size());
    for (int k = 0; k < n.inputs; ++k) program_.values[n.in[k]].readers.push_back(index);
    if (n.residual >= 0) program_.values[n.residual].readers.push_back(index);
    program_.values[n.out].writer = index;
    program_.nodes.push_back(n);
  }

  Rounding rounding(Activation activation, const Value& out) const {
    Rounding r;
    r.activation = activation;
    const bool at_zero = activation == Activation::relu || activation == Activation::relu6;
    if (!is_int8_ || out.is_float) {
      r.low = at_zero ? 0 : -kInfinity;
      r.high = activation == Activation::relu6 ? 6 : kInfinity;
      r.after = factor(1.0 / 6);
      return r;
    }
    return rounding(activation, out.range, map_largest_);
  }

  Rounding rounding(Activation activation, Affine range, int largest) const {
    Rounding r;
    r.activation = activation;
    const double scale = range.scale;
    const bool at_zero = activation == Activation::relu || activation == Activation::relu6;
    r.zero = range.zero;
    r.low = at_zero ? 0 : static_cast<float>(-range.zero);
    r.high = static_cast<float>(largest - range.zero);
    if (activation == Activation::relu6)
      r.high = std::min(r.high, factor(std::nearbyint(6 / scale)));
    r.after = factor(1 / (6 * scale));
    return r;
  }

  template <class T>
  T* own(size_t count) {
    program_.owned.emplace_back(new uint8_t[count * sizeof(T) + kAlign]());
    auto at = reinterpret_cast<uintptr_t>(program_.owned.back().get());
    return reinterpret_cast<T*>((at + kAlign - 1) / kAlign * kAlign);
  }

  // A matrix of `outputs` by `inputs` that reads a map whose numbers have this zero.
  Weights matrix(const ConvRecord& record, int outputs, int inputs, int32_t zero) {
    Weights w;
    const size_t panels = blocks(outputs);
    w.matrix = file_.bytes + record.weights;
    w.bias = file_.bytes + record.bias;
    if (is_int8_) {
      w.panel = static_cast<int64_t>((inputs + 63) / 64 * 64) * kBlock;
      w.multiplier = file_.at<float>(record.multiplier);
      const int32_t* bias = file_.at<int32_t>(record.bias);
      const int32_t* sum = file_.at<int32_t>(record.weight_sum);
      int32_t* corrected = own<int32_t>(panels * kBlock);
      for (size_t n = 0; n < panels * kBlock; ++n)
        corrected[n] = bias[n] - (zero - arithmetic_.shift) * sum[n];
      w.bias = corrected;
    } else if (precision_ == Precision::bfloat16) {
      const int64_t padded = (inputs + 31) / 32 * 32;
      w.panel = padded * kBlock * 2;
      if (widen_) {
        float* wide = own<float>(panels * inputs * kBlock);
        const uint16_t* from = file_.at<uint16_t>(record.weights);
        for (size_t p = 0; p < panels; ++p)
          for (int k = 0; k < inputs; ++k)
            for (int n = 0; n < kBlock; ++n) {
              const uint32_t bits =
                  static_cast<uint32_t>(from[p * padded * kBlock + k / 2 * 2 * kBlock + n * 2 +
                                             k % 2]) << 16;
              std::memcpy(&wide[(p * inputs + k) * kBlock + n], &bits, sizeof bits);
            }
        w.matrix = wide;
        w.panel = static_cast<int64_t>(inputs) * kBlock * sizeof(float);
      }
    } else {
      w.panel = static_cast<int64_t>(inputs) * kBlock * sizeof(float);
    }
    return w;
  }

  Weights filter(const ConvRecord& record, int channels, int kernel) {
    Weights w;
    w.bias = file_.bytes + record.bias;
    w.matrix = file_.bytes + record.weights;
    w.panel = static_cast<int64_t>(kernel) * kernel * kBlock * sizeof(float);
    if (is_int8_) {
      w.multiplier = file_.at<float>(record.multiplier);
      const size_t count = blocks(channels) * kernel * kernel * kBlock;
      float* whole = own<float>(count);
      const int8_t* from = file_.at<int8_t>(record.weights);
      const int16_t* from_wide = file_.at<int16_t>(record.weights);
      for (size_t i = 0; i < count; ++i) whole[i] = wide_ ? from_wide[i] : from[i];
      w.matrix = whole;
    }
    return w;
  }

  void conv(const StepRecord& s, int out) {
    const int in = value_of_[s.inputs[0]];
    auto activation = static_cast<Activation>(s.activation);
    const bool image = s.inputs[0] == 0;
    Node n = begin(image ? Op::stem : s.kernel == 1 && s.stride == 1 ? Op::pointwise : Op::dense,
                   in, out);
    const Value& from = program_.values[in];
    n.kernel = s.kernel;
    n.stride = s.stride;
    n.dilation = s.dilation;
    n.pad_top = padding_before(static_cast<Padding>(s.padding), from.height, s.kernel, s.stride,
                               s.dilation);
    n.pad_left = padding_before(static_cast<Padding>(s.padding), from.width, s.kernel, s.stride,
                                s.dilation);
    if (activation == Activation::sigmoid) {
      n.after = activation;
      activation = Activation::none;
    }
    n.rounding = rounding(activation, program_.values[out]);
    if (image) {
      n.weights.matrix = file_.bytes + s.project.weights;
      n.weights.bias = file_.bytes + s.project.bias;
      n.weights.panel = static_cast<int64_t>(3) * s.kernel * s.kernel * kBlock * sizeof(float);
      n.weights.multiplier = file_.at<float>(s.project.multiplier);
    } else {
      const int taps = s.kernel * s.kernel;
      const int inputs = taps == 1 ? from.channels
                                   : taps * static_cast<int>(blocks(from.channels)) * kBlock;
      n.weights = matrix(s.project, s.out_channels, inputs, from.range.zero);
      n.in_channels = inputs;
    }
    push(n);
  }

  void block(const StepRecord& s, int out) {
    const int in = value_of_[s.inputs[0]];
    const auto activation = static_cast<Activation>(s.activation);
    const Value from = program_.values[in];
    int expanded = in;
    if (s.expand.weights) {
      expanded = add_value({static_cast<int>(s.expanded), from.height, from.width},
                           s.expanded_range);
      Node n = begin(Op::pointwise, in, expanded);
      n.weights = matrix(s.expand, s.expanded, from.channels, from.range.zero);
      n.rounding = rounding(activation, program_.values[expanded]);
      if (wide_) n.rounding = rounding(activation, s.expanded_range, kLargestWide);
      push(n);
    }
    const Shape shape = shapes_[step_ + 1];
    const Affine read_range = s.squeeze ? s.gated_range : s.depthwise_range;
    const int filtered = add_value({static_cast<int>(s.expanded), shape.height, shape.width},
                                   read_range);
    Node d = begin(Op::depthwise, expanded, filtered);
    d.kernel = s.kernel;
    d.stride = s.stride;
    d.dilation = s.dilation;
    const auto padding = static_cast<Padding>(s.padding);
    d.pad_top = padding_before(padding, from.height, s.kernel, s.stride, s.dilation);
    d.pad_left = padding_before(padding, from.width, s.kernel, s.stride, s.dilation);
    d.weights = filter(s.depthwise, s.expanded, s.kernel);
    d.rounding = is_int8_ ? rounding(activation, s.depthwise_range, map_largest_)
                          : rounding(activation, program_.values[filtered]);
    if (s.squeeze) squeeze(s, shape, &d);
    push(d);
    Node p = begin(Op::pointwise, filtered, out);
    p.weights = matrix(s.project, s.out_channels, s.expanded, read_range.zero);
    p.rounding = rounding(static_cast<Activation>(s.out_activation), program_.values[out]);
    if (s.residual) {
      p.residual = in;
      p.residual_zero = from.range.zero;
      const double scale = program_.values[out].is_float ? 1 : s.out_range.scale;
      p.residual_scale = is_int8_ ? factor(from.range.scale / scale) : 1;
    }
    push(p);
  }

  void squeeze(const StepRecord& s, const Shape& shape, Node* d) {
    const double pixels = static_cast<double>(shape.height) * shape.width;
    d->squeeze = s.squeeze;
    d->reduce = matrix(s.reduce, s.squeeze, s.expanded, s.pooled_range.zero);
    d->excite = matrix(s.excite, s.expanded, s.squeeze, s.squeezed_range.zero);
    d->squeezed.high = kInfinity;
    d->mean_scale = factor(1 / pixels);
    if (!is_int8_) return;
    d->pooled_range = s.pooled_range;
    d->squeezed = rounding(Activation::relu, s.squeezed_range, map_largest_);
    d->gated = rounding(Activation::none, s.gated_range, map_largest_);
    d->mean_scale = factor(static_cast<double>(s.depthwise_range.scale) /
                           (static_cast<double>(s.pooled_range.scale) * pixels));
    d->gate_ratio = factor(static_cast<double>(s.depthwise_range.scale) / s.gated_range.scale);
  }

  void simple(StepKind kind, const StepRecord& s, int out) {
    Op op = Op::pool;
    if (kind == StepKind::add) op = Op::add;
    if (kind == StepKind::multiply) op = Op::multiply;
    if (kind == StepKind::concat) op = Op::concat;
    if (kind == StepKind::resize) op = Op::resize;
    if (kind == StepKind::average_pool) op = Op::average_pool;
    Node n = begin(op, value_of_[s.inputs[0]], out);
    n.inputs = 0;
    for (uint32_t v : s.inputs)
      if (v != kNone) n.in[n.inputs++] = value_of_[v];
    n.kernel = s.kernel;
    n.stride = s.stride;
    const Value& from = program_.values[n.in[0]];
    double pixels = 1;
    if (op == Op::pool) pixels = static_cast<double>(from.height) * from.width;
    if (op == Op::average_pool) pixels = static_cast<double>(s.kernel) * s.kernel;
    n.mean_scale = factor(is_int8_ ? static_cast<double>(from.range.scale) /
                                         (static_cast<double>(s.out_range.scale) * pixels)
                                   : 1 / pixels);
    n.rounding = rounding(op == Op::add ? static_cast<Activation>(s.activation) : Activation::none,
                          program_.values[out]);
    push(n);
  }

  const File& file_;
  const Arithmetic& arithmetic_;
  const bool widen_;
  const std::vector<Shape>& shapes_;
  Precision precision_;
  bool is_int8_, wide_;
  int map_largest_;
  int step_ = 0;
  Program program_;
  std::vector<int> value_of_;
};

}  // namespace

Program read_program(const File& file, const Arithmetic& arithmetic, bool widen,
                     const std::vector<Shape>& shapes) {
  return Reader(file, arithmetic, widen, shapes).read();
}

}  // namespace mobilenet
