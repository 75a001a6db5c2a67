// Small model files in memory, with random weights.
#ifndef MOBILENET_TESTS_MODEL_H
#define MOBILENET_TESTS_MODEL_H

#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../format/format.h"
#include "../format/sizes.h"

namespace mobilenet {

// A file's bytes, aligned, and not one more than there are: sanitizers see what is read behind.
class Bytes {
 public:
  Bytes(const void* from, size_t size) : size_(size) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlign, size ? size : 1) != 0) abort();
    data_.reset(static_cast<uint8_t*>(memory));
    if (size) std::memcpy(data_.get(), from, size);
  }
  Bytes(const Bytes& other) : Bytes(other.data(), other.size()) {}

  uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }
  FileHeader& header() const { return *reinterpret_cast<FileHeader*>(data()); }
  StepRecord& step(size_t i) const {
    return reinterpret_cast<StepRecord*>(data() + sizeof(FileHeader))[i];
  }
  OutputRecord& output(size_t i) const {
    return reinterpret_cast<OutputRecord*>(&step(header().step_count))[i];
  }
  template <class T>
  T& at(uint64_t offset, size_t index = 0) const {
    return reinterpret_cast<T*>(data() + offset)[index];
  }
  // Makes the size and the checksum right again.
  void seal() const {
    if (size_ < sizeof(FileHeader)) return;
    header().file_bytes = size_;
    header().checksum = file_checksum(data(), size_);
  }

 private:
  struct Free {
    void operator()(uint8_t* p) const { free(p); }
  };
  size_t size_;
  std::unique_ptr<uint8_t[], Free> data_;
};

struct BlockShape {
  uint32_t expanded, out_channels;
  bool expands = true;
  uint32_t squeeze = 0, kernel = 3, stride = 1, dilation = 1, padding = 0;
  Activation activation = Activation::relu6, out_activation = Activation::none;
  bool residual = false;
};

// Steps one after another; each method returns the value that its step writes.
class Model {
 public:
  explicit Model(Precision precision, uint32_t height = 16, uint32_t width = 16, uint32_t seed = 1)
      : precision_(precision), height_(height), width_(width), random_(seed) {}

  uint32_t conv(uint32_t input, uint32_t outputs, uint32_t kernel = 1, uint32_t stride = 1,
                Activation activation = Activation::relu, uint32_t dilation = 1,
                uint32_t padding = 0) {
    StepRecord s = begin(StepKind::conv, {input}, outputs);
    s.kernel = kernel;
    s.stride = stride;
    s.dilation = dilation;
    s.padding = padding;
    s.activation = static_cast<uint32_t>(activation);
    const bool image = input == 0;
    matrix(&s.project, outputs, conv_inputs(s.in_channels, static_cast<int>(kernel), image), image);
    return add(s);
  }

  uint32_t block(uint32_t input, const BlockShape& b) {
    StepRecord s = begin(StepKind::block, {input}, b.out_channels);
    s.expanded = b.expanded;
    s.squeeze = b.squeeze;
    s.kernel = b.kernel;
    s.stride = b.stride;
    s.dilation = b.dilation;
    s.padding = b.padding;
    s.residual = b.residual;
    s.activation = static_cast<uint32_t>(b.activation);
    s.out_activation = static_cast<uint32_t>(b.out_activation);
    if (b.expands) matrix(&s.expand, b.expanded, s.in_channels, false);
    filter(&s.depthwise, b.expanded, static_cast<int>(b.kernel));
    if (b.squeeze) {
      matrix(&s.reduce, b.squeeze, b.expanded, false);
      matrix(&s.excite, b.expanded, b.squeeze, false);
    }
    matrix(&s.project, b.out_channels, b.expanded, false);
    return add(s);
  }

  // pool, add, multiply, concat, resize, average_pool
  uint32_t simple(StepKind kind, std::initializer_list<uint32_t> inputs, uint32_t kernel = 1,
                  uint32_t stride = 1, Activation activation = Activation::none) {
    uint32_t channels = channels_[*inputs.begin()];
    if (kind == StepKind::concat) {
      channels = 0;
      for (uint32_t value : inputs) channels += channels_[value];
    }
    StepRecord s = begin(kind, inputs, channels);
    s.kernel = kernel;
    s.stride = stride;
    s.activation = static_cast<uint32_t>(activation);
    return add(s);
  }

  void output(uint32_t value, const std::string& name) { outputs_.push_back({value, name}); }

  Bytes finish(const std::vector<std::string>& labels = {"cat", "dog"}) {
    std::string text;
    std::vector<OutputRecord> outputs;
    for (const auto& output : outputs_) {
      outputs.push_back({output.first, static_cast<uint32_t>(text.size())});
      text += output.second + '\0';
    }
    FileHeader header{};
    header.labels = labels.empty() ? 0 : static_cast<uint32_t>(text.size());
    for (const auto& label : labels) text += label + '\0';
    const uint64_t text_at = put(text.data(), text.size());
    const std::string contract("{}", 3);
    const uint64_t contract_at = put(contract.data(), contract.size());

    const size_t tables = sizeof header + steps_.size() * sizeof(StepRecord) +
                          outputs.size() * sizeof(OutputRecord);
    const uint64_t base = (tables + kAlign - 1) / kAlign * kAlign;
    for (StepRecord& s : steps_)
      for (ConvRecord* r : {&s.expand, &s.depthwise, &s.reduce, &s.excite, &s.project})
        for (uint64_t* offset : {&r->weights, &r->bias, &r->multiplier, &r->weight_sum})
          if (*offset) *offset += base - kAlign;
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    header.version = kVersion;
    header.precision = static_cast<uint32_t>(precision_);
    header.step_count = static_cast<uint32_t>(steps_.size());
    header.output_count = static_cast<uint32_t>(outputs.size());
    header.height = height_;
    header.width = width_;
    header.in_range = {0.02f, 114};
    header.text = text_at + base - kAlign;
    header.text_bytes = text.size();
    header.contract = contract_at + base - kAlign;
    header.contract_bytes = contract.size();
    header.label_count = static_cast<uint32_t>(labels.size());
    for (float& std : header.std) std = 1;

    std::vector<uint8_t> file;
    auto append = [&](const void* from, size_t bytes) {
      const auto* p = static_cast<const uint8_t*>(from);
      file.insert(file.end(), p, p + bytes);
    };
    append(&header, sizeof header);
    append(steps_.data(), steps_.size() * sizeof(StepRecord));
    append(outputs.data(), outputs.size() * sizeof(OutputRecord));
    file.resize(base);
    append(body_.data() + kAlign, body_.size() - kAlign);
    Bytes bytes(file.data(), file.size());
    bytes.seal();
    return bytes;
  }

 private:
  StepRecord begin(StepKind kind, std::initializer_list<uint32_t> inputs, uint32_t outputs) {
    StepRecord s{};
    s.kind = static_cast<uint32_t>(kind);
    size_t i = 0;
    for (uint32_t& input : s.inputs) {
      input = i < inputs.size() ? inputs.begin()[i] : kNone;
      ++i;
    }
    s.in_channels = channels_[s.inputs[0]];
    s.out_channels = outputs;
    s.kernel = s.stride = s.dilation = 1;
    s.expanded_range = {0.02f, 0};
    s.depthwise_range = {0.03f, 10};
    s.pooled_range = {0.01f, 20};
    s.squeezed_range = {0.02f, 0};
    s.gated_range = {0.02f, 5};
    s.out_range = {0.05f, 120};
    return s;
  }

  uint32_t add(const StepRecord& s) {
    steps_.push_back(s);
    channels_.push_back(s.out_channels);
    return static_cast<uint32_t>(steps_.size());
  }

  // Where it lies, counted from kAlign: 0 is no array.
  uint64_t put(const void* from, size_t bytes) {
    body_.resize((body_.size() + kAlign - 1) / kAlign * kAlign);
    const uint64_t at = body_.size();
    const auto* p = static_cast<const uint8_t*>(from);
    body_.insert(body_.end(), p, p + bytes);
    return at;
  }

  float real() { return std::uniform_real_distribution<float>(-0.5f, 0.5f)(random_); }
  int whole(int most) { return std::uniform_int_distribution<int>(-most, most)(random_); }

  static uint16_t upper(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
  }

  template <class T, class F>
  uint64_t vector(int64_t outputs, F number) {
    std::vector<T> x(static_cast<size_t>(vector_bytes(outputs)) / sizeof(T));
    for (int64_t i = 0; i < outputs; ++i) x[static_cast<size_t>(i)] = number();
    return put(x.data(), x.size() * sizeof(T));
  }

  void vectors(ConvRecord* record, int64_t outputs) {
    if (precision_ != Precision::int8) {
      record->bias = vector<float>(outputs, [&] { return real(); });
      return;
    }
    record->bias = vector<int32_t>(outputs, [&] { return whole(2000); });
    record->multiplier = vector<float>(outputs, [&] { return 0.001f + 0.001f * (real() + 0.5f); });
  }

  // Padding is zeros, as the exporter writes it.
  void matrix(ConvRecord* record, int64_t outputs, int64_t inputs, bool image) {
    const Precision stored = image ? Precision::float32 : precision_;
    const int64_t padded = matrix_inputs(stored, inputs);
    const int64_t together = stored == Precision::int8 ? 4 : stored == Precision::bfloat16 ? 2 : 1;
    std::vector<uint8_t> bytes(static_cast<size_t>(matrix_bytes(stored, outputs, inputs)));
    std::vector<int32_t> sums(static_cast<size_t>(vector_bytes(outputs)) / sizeof(int32_t));
    for (int64_t n = 0; n < outputs; ++n)
      for (int64_t k = 0; k < inputs; ++k) {
        const auto at = static_cast<size_t>(n / kBlock * kBlock * padded +
                                            (k / together * kBlock + n % kBlock) * together +
                                            k % together);
        const int w = whole(127);
        const float x = precision_ == Precision::int8 ? static_cast<float>(w) : real();
        const uint16_t half = upper(x);
        sums[static_cast<size_t>(n)] += w;
        if (stored == Precision::int8) bytes[at] = static_cast<uint8_t>(w);
        if (stored == Precision::bfloat16) std::memcpy(&bytes[at * 2], &half, 2);
        if (stored == Precision::float32) std::memcpy(&bytes[at * 4], &x, 4);
      }
    record->weights = put(bytes.data(), bytes.size());
    vectors(record, outputs);
    if (stored == Precision::int8)
      record->weight_sum = put(sums.data(), sums.size() * sizeof(int32_t));
  }

  void filter(ConvRecord* record, int64_t channels, int kernel) {
    std::vector<uint8_t> bytes(static_cast<size_t>(filter_bytes(precision_, false, channels, kernel)));
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < int64_t{kernel} * kernel; ++k) {
        const auto at = static_cast<size_t>((c / kBlock * kernel * kernel + k) * kBlock +
                                            c % kBlock);
        const float x = real();
        if (precision_ == Precision::int8) bytes[at] = static_cast<uint8_t>(whole(127));
        else std::memcpy(&bytes[at * 4], &x, 4);
      }
    record->weights = put(bytes.data(), bytes.size());
    vectors(record, channels);
  }

  Precision precision_;
  uint32_t height_, width_;
  std::mt19937 random_;
  std::vector<uint32_t> channels_{3};
  std::vector<StepRecord> steps_;
  std::vector<std::pair<uint32_t, std::string>> outputs_;
  std::vector<uint8_t> body_ = std::vector<uint8_t>(kAlign);
};

// Every kind of step at least once, at 16 x 16 pixels.
inline Model every_step(Precision precision) {
  Model m(precision);
  const uint32_t stem = m.conv(0, 16, 3, 2, Activation::hard_swish);              // 8 x 8
  const uint32_t separable = m.block(stem, {16, 16, false, 0, 3, 1, 1, 0, Activation::relu,
                                            Activation::relu});
  const uint32_t squeezed = m.block(separable, {40, 24, true, 8, 5, 2, 1, 1,
                                                Activation::hard_swish});         // 4 x 4
  const uint32_t residual = m.block(squeezed, {72, 24, true, 0, 3, 1, 2, 0, Activation::relu6,
                                               Activation::none, true});
  const uint32_t added = m.simple(StepKind::add, {squeezed, residual}, 1, 1, Activation::relu);
  const uint32_t dense = m.conv(added, 16, 3, 1, Activation::relu6, 2, 1);
  const uint32_t wide = m.simple(StepKind::resize, {dense, stem});                // 8 x 8
  const uint32_t joined = m.simple(StepKind::concat, {wide, separable});
  const uint32_t mean = m.simple(StepKind::pool, {joined});
  const uint32_t gates = m.conv(mean, 32, 1, 1, Activation::hard_sigmoid);
  const uint32_t gated = m.simple(StepKind::multiply, {joined, gates});
  const uint32_t small = m.simple(StepKind::average_pool, {gated}, 3, 2);         // 3 x 3
  const uint32_t mixed = m.conv(small, 40);
  const uint32_t pooled = m.simple(StepKind::pool, {mixed});
  m.output(m.conv(pooled, 10, 1, 1, Activation::none), "logits");
  m.output(residual, "c4");
  return m;
}

}  // namespace mobilenet

#endif
