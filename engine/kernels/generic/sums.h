// Sums that lie in memory become outputs: of the kernels whose sums fill all registers, or tiles.
//
// sums[pixel][16] of one panel of outputs, biases included, int32 or float32; vectors are as wide
// as a panel.
#ifndef MOBILENET_GENERIC_SUMS_H
#define MOBILENET_GENERIC_SUMS_H

#include "store.h"

namespace mobilenet {
namespace generic {

using StoreSums = void (*)(const Pointwise&, const void* sums, int pixel, int pixels, int panel);

// Element of a channel of the first pixel of a map.
MOBILENET_INLINE int64_t channel_at(int channel, int64_t plane, int block) {
  return channel / block * plane + channel % block;
}

// Calls f(sums of a pixel, element of the output, pixel) for one pixel after another.
template <class T, class F>
MOBILENET_INLINE void each_pixel(const Pointwise& g, const T* sums, int pixel, int pixels,
                                 int panel, F&& f) {
  const int64_t at = channel_at(panel * kBlock, g.out_plane, g.out_block);
  const int32_t* out_at = g.out_at;
  const int64_t out_block = g.out_block;
  if (out_at) {
#pragma GCC unroll 4
    for (int m = pixel; m < pixel + pixels; ++m, sums += kBlock) f(sums, at + out_at[m], m);
  } else {
#pragma GCC unroll 4
    for (int m = pixel; m < pixel + pixels; ++m, sums += kBlock) f(sums, at + m * out_block, m);
  }
}

template <class V, Activation A, Store S>
__attribute__((noinline)) void store_sums_i8(const Pointwise& g, const void* from, int pixel,
                                             int pixels, int panel) {
  static_assert(V::width == kBlock, "a panel is a vector");
  const int32_t* sums = static_cast<const int32_t*>(from);
  const int n = panel * kBlock;
  const Rounding rounding = g.rounding;  // a copy, which no store can change
  const auto multiplier = V::load(g.multiplier + n), after = V::splat(rounding.after);
  void* out = g.out;
  auto scaled = [&](const int32_t* sum) MOBILENET_INLINE_LAMBDA {
    return activate_scaled<A, V>(V::mul(V::to_float(V::load_int(sum)), multiplier), after);
  };
  if (A == Activation::none && S != Store::ring && g.residual) {
    const auto ratio = V::splat(g.residual_scale);
    if (g.residual_at) {
      const float* added = static_cast<const float*>(g.residual) + panel * g.residual_plane;
      const int32_t* added_at = g.residual_at;
      each_pixel(g, sums, pixel, pixels, panel,
                 [&](const int32_t* sum, int64_t at, int m) MOBILENET_INLINE_LAMBDA {
                   const auto x = V::mul(V::load(added + added_at[m]), ratio);
                   store_bounded<V, S>(V::add(scaled(sum), x), rounding, out, at);
                 });
    } else {
      const auto* added = static_cast<const typename V::Stored*>(g.residual) +
                          channel_at(n, g.residual_plane, g.residual_block);
      const int64_t block = g.residual_block;
      const auto zero = V::splat_int(-g.residual_zero);
      each_pixel(g, sums, pixel, pixels, panel,
                 [&](const int32_t* sum, int64_t at, int m) MOBILENET_INLINE_LAMBDA {
                   const auto q = V::add_int(V::load_stored(added + m * block), zero);
                   const auto x = V::mul(V::to_float(q), ratio);
                   store_bounded<V, S>(V::add(scaled(sum), x), rounding, out, at);
                 });
    }
  } else {
    each_pixel(g, sums, pixel, pixels, panel,
               [&](const int32_t* sum, int64_t at, int) MOBILENET_INLINE_LAMBDA {
                 store_bounded<V, S>(scaled(sum), rounding, out, at);
               });
  }
}

template <class V, Activation A>
StoreSums store_sums_i8(Store store) {
  switch (store) {
    case Store::ring: return store_sums_i8<V, A, Store::ring>;
    case Store::float32: return store_sums_i8<V, A, Store::float32>;
    default: return store_sums_i8<V, A, Store::map>;
  }
}

template <class V>
StoreSums store_sums_i8(const Pointwise& g) {
  StoreSums found = nullptr;
  with_activation(g.rounding.activation, [&](auto activation) {
    found = store_sums_i8<V, decltype(activation)::value>(g.store);
  });
  return found;
}

}  // namespace generic
}  // namespace mobilenet

#endif
