// Networks of bfloat16: maps are bfloat16, and all between them is float32: the ring, the sums, the
// gates and the arithmetic. Vectors have load_half and store_half.
//
// Whoever writes the last channels of a block fills the rest of it with zeros (see kernels.h).
#ifndef MOBILENET_GENERIC_BFLOAT16_H
#define MOBILENET_GENERIC_BFLOAT16_H

#include "../../format/half.h"
#include "depthwise.h"
#include "stem.h"
#include "sums.h"

namespace mobilenet {
namespace generic {

// Zeros in `lanes` lanes of every pixel, from `at` on.
template <class V>
void clear_lanes(Half* at, int lanes, int pixels, int block) {
  for (int pixel = 0; pixel < pixels; ++pixel, at += block)
    for (int lane = 0; lane < lanes; lane += V::width) V::store_half(at + lane, V::zero());
}

// The lanes of a map's last block that `outputs` channels leave.
template <class V>
void clear_padding(void* map, int outputs, int pixels, int64_t plane, int block) {
  const int end = (outputs + kBlock - 1) / kBlock * kBlock;
  if (end % block)
    clear_lanes<V>(static_cast<Half*>(map) + channel_at(end, plane, block), block - end % block,
                   pixels, block);
}

template <class V, Activation A, bool Sums>
struct DepthwiseHalf : DepthwiseFloat<V, A, Sums> {
  using Base = DepthwiseFloat<V, A, Sums>;
  using Base::Base;

  MOBILENET_INLINE void finish(void* out, int64_t at, typename V::Float x) {
    x = activate<A, V>(x, Base::low, Base::high);
    if constexpr (Sums) Base::sum = V::add(Base::sum, x);
    V::store_half(static_cast<Half*>(out) + at, x);
  }
};

template <class V>
void depthwise_bf16(const Depthwise& g) {
  depthwise<V, DepthwiseHalf>(g);
  if (!g.padding) return;
  for (int row = 0; row < g.out_rows; ++row)
    clear_lanes<V>(static_cast<Half*>(g.out) + row * g.out_row + kBlock, g.padding, g.out_cols,
                   g.out_block);
}

template <class V, Activation A>
struct PutHalf : PutFloat<V, A> {
  using Base = PutFloat<V, A>;
  using Base::Base;

  MOBILENET_INLINE void operator()(int64_t at, int, typename V::Float sum) const {
    V::store_half(static_cast<Half*>(Base::out) + at,
                  activate<A, V>(sum, Base::low, Base::high));
  }
};

template <class V>
void stem_bf16(const Stem& g) {
  if (g.store != Store::map) return stem_f32<V>(g);
  with_body_activation(g.rounding.activation, [&](auto activation) {
    stem_row<V>(g, PutHalf<V, decltype(activation)::value>(g));
  });
  clear_padding<V>(g.out, g.outputs, g.out_cols, g.out_plane, g.out_block);
}

template <class V, Activation A, Store S>
__attribute__((noinline)) void store_sums_bf16(const Pointwise& g, const void* from, int pixel,
                                               int pixels, int panel) {
  static_assert(V::width == kBlock, "a panel is a vector");
  const float* sums = static_cast<const float*>(from);
  const auto low = V::splat(g.rounding.low), high = V::splat(g.rounding.high);
  void* out = g.out;
  auto store = [&](typename V::Float x, int64_t at) MOBILENET_INLINE_LAMBDA {
    if constexpr (S == Store::map)
      V::store_half(static_cast<Half*>(out) + at, x);
    else
      V::store(static_cast<float*>(out) + at, x);
  };
  if (S != Store::ring && g.residual && g.residual_at) {
    const float* added = static_cast<const float*>(g.residual) + panel * g.residual_plane;
    const int32_t* added_at = g.residual_at;
    each_pixel(g, sums, pixel, pixels, panel,
               [&](const float* sum, int64_t at, int m) MOBILENET_INLINE_LAMBDA {
                 const auto x = activate<A, V>(V::load(sum), low, high);
                 store(V::add(x, V::load(added + added_at[m])), at);
               });
  } else if (S != Store::ring && g.residual) {
    const Half* added = static_cast<const Half*>(g.residual) +
                        channel_at(panel * kBlock, g.residual_plane, g.residual_block);
    const int64_t block = g.residual_block;
    each_pixel(g, sums, pixel, pixels, panel,
               [&](const float* sum, int64_t at, int m) MOBILENET_INLINE_LAMBDA {
                 const auto x = activate<A, V>(V::load(sum), low, high);
                 store(V::add(x, V::load_half(added + m * block)), at);
               });
  } else {
    each_pixel(g, sums, pixel, pixels, panel,
               [&](const float* sum, int64_t at, int) MOBILENET_INLINE_LAMBDA {
                 store(activate<A, V>(V::load(sum), low, high), at);
               });
  }
}

template <class V>
StoreSums store_sums_bf16(const Pointwise& g) {
  StoreSums found = nullptr;
  with_activation(g.rounding.activation, [&](auto activation) {
    constexpr Activation A = decltype(activation)::value;
    switch (g.store) {
      case Store::ring: found = store_sums_bf16<V, A, Store::ring>; break;
      case Store::float32: found = store_sums_bf16<V, A, Store::float32>; break;
      case Store::map: found = store_sums_bf16<V, A, Store::map>; break;
    }
  });
  return found;
}

template <class V>
void copy_bf16(const Copy& g) {
  const Half* in = static_cast<const Half*>(g.in);
  for (int pixel = 0; pixel < g.pixels; ++pixel, in += g.in_block)
    for (int lane = 0; lane < kBlock; lane += V::width)
      V::store(g.out + static_cast<int64_t>(pixel) * kBlock + lane, V::load_half(in + lane));
}

template <class V>
void gate_bf16(const Gate& g) {
  for (int lane = 0; lane < kBlock; lane += V::width) {
    const auto gates = V::load(g.gates + lane);
    Half* at = static_cast<Half*>(g.map) + lane;
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block)
      V::store_half(at, V::mul(V::load_half(at), gates));
  }
}

template <class V>
void sum_bf16(const Sum& g) {
  for (int lane = 0; lane < kBlock; lane += V::width) {
    float* sums = static_cast<float*>(g.sums) + lane;
    const Half* at = static_cast<const Half*>(g.map) + lane;
    auto sum = V::load(sums);
    for (int pixel = 0; pixel < g.pixels; ++pixel, at += g.block)
      sum = V::add(sum, V::load_half(at));
    V::store(sums, sum);
  }
}

template <class V>
void mean_bf16(const Mean& g) {
  const auto scale = V::splat(g.scale);
  for (int c = 0; c < g.count; c += V::width)
    V::store_half(static_cast<Half*>(g.out) + c,
                  V::mul(V::load(static_cast<const float*>(g.sums) + c), scale));
}

}  // namespace generic
}  // namespace mobilenet

#endif
