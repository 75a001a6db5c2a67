// The stages that are not fused: the stem and pointwise convolutions alone, pooling, and what heads
// are made of.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "../format/half.h"
#include "walk.h"

namespace mobilenet {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One number of a map as a float: its value, or q - zero.
float get(const float* p, const Map&) { return *p; }
float get(const uint8_t* p, const Map& m) { return static_cast<float>(*p - m.range.zero); }
float get(const int16_t* p, const Map& m) { return static_cast<float>(*p - m.range.zero); }
float get(const Half* p, const Map&) { return widen(*p); }

void put(float* p, float x, const Rounding& r) { *p = std::min(std::max(x, r.low), r.high); }
template <class T>  // uint8_t or int16_t
void put(T* p, float x, const Rounding& r) {
  x = std::nearbyintf(std::min(std::max(x, r.low), r.high));
  *p = static_cast<T>(static_cast<int32_t>(x) + r.zero);
}
void put(Half* p, float x, const Rounding& r) {
  *p = narrow(std::min(std::max(x, r.low), r.high));
}

// The ratio of two maps' scales; 1 where numbers are not scaled.
float ratio(double from, const Map& to, bool int8) {
  return int8 ? static_cast<float>(from / to.range.scale) : 1.f;
}

struct Axis {
  int before, after;
  float weight;  // of `after`
};

// Half-pixel centres, as PyTorch's bilinear interpolation without align_corners.
Axis axis(int i, int in, int out) {
  const double position = std::max((i + 0.5) * in / out - 0.5, 0.0);
  const int before = std::min(static_cast<int>(position), in - 1);
  return {before, std::min(before + 1, in - 1), static_cast<float>(position - before)};
}

template <class T>
struct Simple {
  const Plan& plan;
  const Stage& s;
  uint8_t* shared;
  bool int8;

  const Map& map(int i) const { return plan.maps[i]; }
  T* at(int i, int channel, int64_t pixel) const {
    const Map& m = map(i);
    return reinterpret_cast<T*>(shared + m.offset) + channel / m.block * m.plane +
           pixel * m.block + channel % m.block;
  }
  int lanes(int channel) const {
    return std::max(0, std::min(kBlock, map(s.out).channels - channel));
  }
  // Stores one number of the output, which may be float32 in any network.
  void store(int channel, int64_t pixel, int lane, float x) const {
    const Map& m = map(s.out);
    if (m.is_float)
      put(reinterpret_cast<float*>(shared + m.offset) + channel / m.block * m.plane +
              pixel * m.block + channel % m.block + lane,
          x, s.rounding);
    else
      put(at(s.out, channel, pixel) + lane, x, s.rounding);
  }

  void add(int c) const {
    const Map &a = map(s.in[0]), &b = map(s.in[1]), &out = map(s.out);
    const float ra = ratio(a.range.scale, out, int8), rb = ratio(b.range.scale, out, int8);
    for (int64_t p = 0; p < out.pixels(); ++p) {
      const T *x = at(s.in[0], c, p), *y = at(s.in[1], c, p);
      for (int l = 0; l < lanes(c); ++l)
        store(c, p, l, get(x + l, a) * ra + get(y + l, b) * rb);
    }
  }

  void multiply(int c) const {
    const Map &a = map(s.in[0]), &b = map(s.in[1]), &out = map(s.out);
    const float r = ratio(static_cast<double>(a.range.scale) * b.range.scale, out, int8);
    const T* gate = at(s.in[1], c, 0);
    for (int64_t p = 0; p < out.pixels(); ++p) {
      const T* x = at(s.in[0], c, p);
      for (int l = 0; l < lanes(c); ++l) store(c, p, l, get(x + l, a) * get(gate + l, b) * r);
    }
  }

  void concat(int c) const {
    int from = 0, input = 0;
    while (c - from >= map(s.in[input]).channels) from += map(s.in[input++]).channels;
    const Map &in = map(s.in[input]), &out = map(s.out);
    const float r = ratio(in.range.scale, out, int8);
    for (int64_t p = 0; p < out.pixels(); ++p) {
      const T* x = at(s.in[input], c - from, p);
      for (int l = 0; l < lanes(c); ++l) store(c, p, l, get(x + l, in) * r);
    }
  }

  void resize(int c) const {
    const Map &in = map(s.in[0]), &out = map(s.out);
    const float r = ratio(in.range.scale, out, int8);
    for (int row = 0; row < out.height; ++row) {
      const Axis y = axis(row, in.height, out.height);
      for (int col = 0; col < out.width; ++col) {
        const Axis x = axis(col, in.width, out.width);
        const T* top = at(s.in[0], c, static_cast<int64_t>(y.before) * in.width);
        const T* bottom = at(s.in[0], c, static_cast<int64_t>(y.after) * in.width);
        for (int l = 0; l < lanes(c); ++l) {
          const T *a = top + x.before * in.block + l, *b = top + x.after * in.block + l;
          const T *d = bottom + x.before * in.block + l, *e = bottom + x.after * in.block + l;
          const float above = get(a, in) * (1 - x.weight) + get(b, in) * x.weight;
          const float below = get(d, in) * (1 - x.weight) + get(e, in) * x.weight;
          store(c, static_cast<int64_t>(row) * out.width + col, l,
                (above * (1 - y.weight) + below * y.weight) * r);
        }
      }
    }
  }

  void average(int c) const {
    const Map &in = map(s.in[0]), &out = map(s.out);
    for (int row = 0; row < out.height; ++row)
      for (int col = 0; col < out.width; ++col)
        for (int l = 0; l < lanes(c); ++l) {
          float sum = 0;
          for (int y = row * s.stride; y < row * s.stride + s.kernel; ++y)
            for (int x = col * s.stride; x < col * s.stride + s.kernel; ++x)
              sum += get(at(s.in[0], c, static_cast<int64_t>(y) * in.width + x) + l, in);
          store(c, static_cast<int64_t>(row) * out.width + col, l, sum * s.mean_scale);
        }
  }

  // Zeros in the lanes that no channel fills (see kernels.h).
  void clear(int c) const {
    const Map& out = map(s.out);
    if (out.is_float) return;
    for (int64_t p = 0; p < out.pixels(); ++p)
      for (int l = lanes(c); l < kBlock; ++l) at(s.out, c, p)[l] = T{};
  }

  void run(int c) const {
    clear(c);
    if (lanes(c) == 0) return;
    switch (s.kind) {
      case StageKind::add: return add(c);
      case StageKind::multiply: return multiply(c);
      case StageKind::concat: return concat(c);
      case StageKind::resize: return resize(c);
      default: return average(c);
    }
  }
};

}  // namespace

void Walk::charge(Part part) {
  if (!seconds) return;
  const double time = now();
  seconds[stage_ * kParts + static_cast<int>(part)] += time - since_;
  since_ = time;
}

void Walk::run() {
  if (plan.arithmetic->enter) plan.arithmetic->enter();
  if (seconds) since_ = now();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& s = plan.stages[i];
    if (s.feeds) continue;
    stage_ = static_cast<int>(i);
    planes_end_ = 0;
    switch (s.kind) {
      case StageKind::fused: fused(s); break;
      case StageKind::pointwise: pointwise(s); break;
      case StageKind::pooled: pooled(s); break;
      case StageKind::stem: stem(s); break;
      case StageKind::dense: dense(s); break;
      case StageKind::pool: pool(s); break;
      default: elementwise(s); break;
    }
    wait();
    if (s.after == Activation::sigmoid) {
      if (thread == 0) sigmoid(s);
      wait();
    }
  }
  if (plan.arithmetic->leave) plan.arithmetic->leave();
}

void Walk::pointwise(const Stage& s) {
  Pointwise g = project_arguments(s);
  g.inputs = s.in_channels;
  g.in = at(s.in[0]);
  g.in_plane = map(s.in[0]).plane;
  g.in_block = map(s.in[0]).block;
  g.pixels = map(s.out).pixels();
  project(s, g);
  charge(Part::project);
}

// A chunk of outputs over all pixels at a time, summed before the next: the widest map of the
// network, in front of the classifier, never exists.
void Walk::pooled(const Stage& s) {
  const Map& in = map(s.in[0]);
  const int block = plan.block_of(s.chunk);
  const int chunks = (s.outputs + s.chunk - 1) / s.chunk;
  uint8_t* buffer = own<uint8_t>(s.ring);
  float* sums = own<float>(plan.scratch.vector);
  for (int i = share(chunks, thread); i < share(chunks, thread + 1); ++i) {
    const int channel = i * s.chunk;
    const int count = std::min(s.chunk, s.outputs - channel);
    Pointwise g{};
    g.in = at(s.in[0]);
    g.in_plane = in.plane;
    g.in_block = in.block;
    g.inputs = s.in_channels;
    from_output(s.project, channel, &g);
    g.outputs = count;
    g.pixels = in.pixels();
    g.out = buffer;
    g.out_plane = static_cast<int64_t>(in.pixels()) * block;
    g.out_block = block;
    g.store = Store::map;
    g.rounding = s.rounding;
    plan.arithmetic->pointwise(g);
    charge(Part::project);
    std::memset(sums, 0, s.chunk * sizeof(float));
    for (int c = 0; c < count; c += kBlock) {
      Sum sum{};
      sum.map = buffer + (c / block * g.out_plane + c % block) * plan.arithmetic->map_bytes;
      sum.block = block;
      sum.pixels = in.pixels();
      sum.sums = sums + c;
      plan.arithmetic->sum(sum);
    }
    mean(sums, blocks(count) * kBlock, in.pixels(), s.pooled_range.zero, s.mean_scale, s.gated,
         s.out, channel);
    charge(Part::other);
  }
}

void Walk::pool(const Stage& s) {
  const Map& in = map(s.in[0]);
  float* sums = own<float>(plan.scratch.vector);
  const int count = blocks(in.channels);
  for (int i = share(count, thread); i < share(count, thread + 1); ++i) {
    std::memset(sums, 0, kBlock * sizeof(float));
    Sum sum{};
    sum.map = place(s.in[0], i * kBlock, 0);
    sum.block = in.block;
    sum.pixels = in.pixels();
    sum.sums = sums;
    plan.arithmetic->sum(sum);
    mean(sums, kBlock, in.pixels(), in.range.zero, s.mean_scale, s.rounding,
         s.out, i * kBlock);
  }
  charge(Part::other);
}

// Sums of `count` channels to means of a map of one pixel. The sums of an int8 map are of q.
void Walk::mean(const void* sums, int count, int pixels, int32_t zero, float scale,
                const Rounding& rounding, int out, int channel) const {
  if (map(out).is_float) {
    float* to = reinterpret_cast<float*>(place(out, channel, 0));
    for (int c = 0; c < count; ++c) {
      const float sum =
          plan.precision == Precision::int8
              ? static_cast<float>(static_cast<const int32_t*>(sums)[c] - pixels * zero)
              : static_cast<const float*>(sums)[c];
      to[c] = sum * scale;
    }
    return;
  }
  mean(sums, count, pixels, zero, scale, rounding, place(out, channel, 0));
}

// The same, in the network's own numbers.
void Walk::mean(const void* sums, int count, int pixels, int32_t zero, float scale,
                const Rounding& rounding, void* out) const {
  Mean g{};
  g.sums = sums;
  g.count = count;
  g.offset = pixels * zero;
  g.scale = scale;
  g.rounding = rounding;
  g.out = out;
  plan.arithmetic->mean(g);
}

// ------------------------------------------------------------------------------------- the image

void Walk::stem(const Stage& s) {
  const Map& out = map(s.out);
  for (int row = share(out.height, thread); row < share(out.height, thread + 1); ++row)
    stem_row(s, row, place(s.out, 0, static_cast<int64_t>(row) * out.width), out.plane, out.block,
             store(s.out));
  charge(Part::produce);
}

// One output row of the convolution of the image. The rows that it reads are copied, with padding,
// into planes that keep the last few of them.
void Walk::stem_row(const Stage& s, int row, void* out, int64_t plane, int block, Store store) {
  float* planes = own<float>(plan.scratch.planes);
  const float** rows = own<const float*>(plan.scratch.stem_rows);
  const float* zeros = own<float>(plan.scratch.zeros);
  const int first = row * s.stem_stride - s.stem_top;
  const int end = std::min(plan.height, first + s.stem_kernel);
  // a jump, forwards or back to the top: nothing that is there can be kept
  const bool anew = planes_end_ == 0 || first > planes_end_ || planes_end_ > end;
  int begin = std::max(anew ? first : planes_end_, 0);
  const bool int8 = plan.precision == Precision::int8;
  for (int y = begin; y < end; ++y)
    for (int c = 0; c < 3; ++c) {
      float* to = planes + (static_cast<int64_t>(y % s.stem_kernel) * 3 + c) * s.stem_columns;
      std::memset(to, 0, s.stem_left * sizeof(float));
      Read g{};
      g.in = image + (static_cast<int64_t>(c) * plan.height + y) * plan.width;
      g.count = plan.width;
      g.out = to + s.stem_left;
      if (int8) {
        g.inverse = static_cast<float>(1 / static_cast<double>(plan.in_range.scale));
        g.low = static_cast<float>(-plan.in_range.zero);
        g.high = static_cast<float>(plan.in_largest - plan.in_range.zero);
      }
      plan.arithmetic->read(g);
      std::memset(g.out + plan.width, 0,
                  (s.stem_columns - s.stem_left - plan.width) * sizeof(float));
    }
  planes_end_ = std::max(end, 0);
  for (int c = 0; c < 3; ++c)
    for (int ky = 0; ky < s.stem_kernel; ++ky) {
      const int y = first + ky;
      rows[c * s.stem_kernel + ky] =
          y < 0 || y >= plan.height
              ? zeros
              : planes + (static_cast<int64_t>(y % s.stem_kernel) * 3 + c) * s.stem_columns;
    }
  const bool fused = s.kind == StageKind::fused;
  Stem g{};
  g.rows = rows;
  g.kernel = s.stem_kernel;
  g.stride = s.stem_stride;
  g.out_cols = fused ? s.in_width : s.out_width;
  g.weights = static_cast<const float*>(s.produce.matrix);
  g.bias = s.produce.bias;
  g.multiplier = s.produce.multiplier;
  g.outputs = fused ? s.expanded : s.outputs;
  g.out = out;
  g.out_plane = plane;
  g.out_block = block;
  g.store = store;
  g.rounding = s.produced;
  plan.arithmetic->stem(g);
}

// ------------------------------------------------------------------------------------------ heads

// A block of 16 channels of a pixel outside of a map.
void Walk::padding(uint8_t* to, int32_t zero) const {
  const int bytes = plan.arithmetic->map_bytes;
  std::memset(to, 0, kBlock * bytes);
  if (plan.precision != Precision::int8) return;
  for (int lane = 0; lane < kBlock; ++lane) {
    const auto word = static_cast<int16_t>(zero);
    if (bytes == 1) to[lane] = static_cast<uint8_t>(zero);
    else std::memcpy(to + lane * bytes, &word, sizeof word);
  }
}

// kernel x kernel convolution of a map: one output row's inputs are gathered, tap by tap, and meet
// the weights as in a pointwise convolution.
void Walk::dense(const Stage& s) {
  const Map &in = map(s.in[0]), &out = map(s.out);
  const int bytes = plan.arithmetic->map_bytes;
  uint8_t* gathered = own<uint8_t>(s.ring);
  const int block = plan.block_of(s.in_channels);
  const int64_t plane = static_cast<int64_t>(out.width) * block;
  // the last block's lanes behind the last tap are read, and never written
  if (s.in_channels % block)
    std::memset(gathered + s.in_channels / block * plane * bytes, 0, plane * bytes);
  for (int row = share(out.height, thread); row < share(out.height, thread + 1); ++row) {
    for (int tap = 0; tap < s.kernel * s.kernel; ++tap) {
      const int y = row * s.stride - s.pad_top + tap / s.kernel * s.dilation;
      for (int c = 0; c < blocks(in.channels); ++c) {
        const int k = (tap * blocks(in.channels) + c) * kBlock;
        // what lies behind the last channel was never written, and may be no number
        const int exist = std::min(kBlock, in.channels - c * kBlock) * bytes;
        for (int col = 0; col < out.width; ++col) {
          const int x = col * s.stride - s.pad_left + tap % s.kernel * s.dilation;
          uint8_t* to = gathered + (k / block * plane + static_cast<int64_t>(col) * block +
                                    k % block) * bytes;
          if (y < 0 || y >= in.height || x < 0 || x >= in.width)
            padding(to, in.range.zero);
          else
            std::memcpy(to, place(s.in[0], c * kBlock, static_cast<int64_t>(y) * in.width + x), exist);
          std::memset(to + exist, 0, kBlock * bytes - exist);
        }
      }
    }
    Pointwise g = project_arguments(s);
    g.inputs = s.in_channels;
    g.in = gathered;
    g.in_plane = plane;
    g.in_block = block;
    g.pixels = out.width;
    g.out = place(s.out, 0, static_cast<int64_t>(row) * out.width);
    plan.arithmetic->pointwise(g);
  }
  charge(Part::project);
}

void Walk::elementwise(const Stage& s) {
  const Map& out = map(s.out);
  const int count = (out.channels + out.block - 1) / out.block * (out.block / kBlock);
  const bool int8 = plan.precision == Precision::int8;
  for (int i = share(count, thread); i < share(count, thread + 1); ++i) {
    if (int8 && plan.arithmetic->map_bytes == 1)
      Simple<uint8_t>{plan, s, shared, true}.run(i * kBlock);
    else if (int8)
      Simple<int16_t>{plan, s, shared, true}.run(i * kBlock);
    else if (plan.arithmetic->map_bytes == sizeof(Half))
      Simple<Half>{plan, s, shared, false}.run(i * kBlock);
    else
      Simple<float>{plan, s, shared, false}.run(i * kBlock);
  }
  charge(Part::other);
}

// In place; never of an int8 map.
void Walk::sigmoid(const Stage& s) {
  const Map& m = map(s.out);
  auto apply = [](float x) { return 1 / (1 + std::exp(-x)); };
  for (int c = 0; c < m.channels; ++c)
    for (int64_t p = 0; p < m.pixels(); ++p) {
      uint8_t* to = at(s.out) + (c / m.block * m.plane + p * m.block + c % m.block) * each(s.out);
      if (each(s.out) == sizeof(float)) {
        auto* x = reinterpret_cast<float*>(to);
        *x = apply(*x);
      } else {
        auto* x = reinterpret_cast<Half*>(to);
        *x = narrow(apply(widen(*x)));
      }
    }
}

}  // namespace mobilenet
