// What the loop does to a block of 16 channels besides convolving it: copy into the ring, gate, sum.
#ifndef MOBILENET_GENERIC_ELEMENTWISE_H
#define MOBILENET_GENERIC_ELEMENTWISE_H

#include <cstring>

#include "activation.h"

namespace mobilenet {
namespace generic {

static inline void read_f32(const Read& g) { std::memcpy(g.out, g.in, g.count * sizeof(float)); }

template <class V>
void read_i8(const Read& g) {
  const auto inverse = V::splat(g.inverse), low = V::splat(g.low), high = V::splat(g.high);
  auto whole = [&](typename V::Float x) MOBILENET_INLINE_LAMBDA {
    return V::round(V::min(V::max(V::mul(x, inverse), low), high));
  };
  int i = 0;
  for (; i + V::width <= g.count; i += V::width) V::store(g.out + i, whole(V::load(g.in + i)));
  if (i == g.count) return;
  float rest[V::width] = {};
  std::memcpy(rest, g.in + i, (g.count - i) * sizeof(float));
  V::store(rest, whole(V::load(rest)));
  std::memcpy(g.out + i, rest, (g.count - i) * sizeof(float));
}

static inline void copy_f32(const Copy& g) {
  std::memcpy(g.out, g.in, static_cast<size_t>(g.pixels) * kBlock * sizeof(float));
}

template <class V>
void copy_i8(const Copy& g) {
  const auto zero = V::splat_int(-g.zero);
  const auto* in = static_cast<const typename V::Stored*>(g.in);
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; lane += V::width)
      V::store(g.out + static_cast<int64_t>(pixel) * kBlock + lane,
               V::to_float(V::add_int(
                   V::load_stored(in + static_cast<int64_t>(pixel) * g.in_block + lane), zero)));
}

template <class V>
void gate_f32(const Gate& g) {
  for (int lane = 0; lane < kBlock; lane += V::width) {
    const auto gates = V::load(g.gates + lane);
    float* at = static_cast<float*>(g.map) + lane;
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block)
      V::store(at, V::mul(V::load(at), gates));
  }
}

template <class V>
void gate_i8(const Gate& g) {
  const auto from = V::splat_int(-g.zero), to = V::splat_int(g.rounding.zero);
  const auto low = V::splat(g.rounding.low), high = V::splat(g.rounding.high);
  for (int lane = 0; lane < kBlock; lane += V::width) {
    const auto gates = V::load(g.gates + lane);
    auto* at = static_cast<typename V::Stored*>(g.map) + lane;
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block) {
      auto x = V::mul(V::to_float(V::add_int(V::load_stored(at), from)), gates);
      V::store_stored(at, V::add_int(V::to_int(V::min(V::max(x, low), high)), to));
    }
  }
}

template <class V>
void sum_f32(const Sum& g) {
  for (int lane = 0; lane < kBlock; lane += V::width) {
    float* sums = static_cast<float*>(g.sums) + lane;
    const float* at = static_cast<const float*>(g.map) + lane;
    auto sum = V::load(sums);
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block) sum = V::add(sum, V::load(at));
    V::store(sums, sum);
  }
}

template <class V>
void sum_i8(const Sum& g) {
  for (int lane = 0; lane < kBlock; lane += V::width) {
    int32_t* sums = static_cast<int32_t*>(g.sums) + lane;
    const auto* at = static_cast<const typename V::Stored*>(g.map) + lane;
    auto sum = V::load_int(sums);
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block)
      sum = V::add_int(sum, V::load_stored(at));
    V::store_int(sums, sum);
  }
}

template <class V>
void mean_f32(const Mean& g) {
  for (int c = 0; c < g.count; c += V::width)
    V::store(static_cast<float*>(g.out) + c,
             V::mul(V::load(static_cast<const float*>(g.sums) + c), V::splat(g.scale)));
}

template <class V>
void mean_i8(const Mean& g) {
  const auto offset = V::splat_int(-g.offset), zero = V::splat_int(g.rounding.zero);
  const auto low = V::splat(g.rounding.low), high = V::splat(g.rounding.high);
  for (int c = 0; c < g.count; c += V::width) {
    auto sum = V::add_int(V::load_int(static_cast<const int32_t*>(g.sums) + c), offset);
    auto y = V::mul(V::to_float(sum), V::splat(g.scale));
    V::store_stored(static_cast<typename V::Stored*>(g.out) + c,
                   V::add_int(V::to_int(V::min(V::max(y, low), high)), zero));
  }
}

}  // namespace generic
}  // namespace mobilenet

#endif
