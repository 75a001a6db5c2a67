// 1x1 convolution in int8: what surrounds the sums, which are made by one of two multipliers.
//
//   in[pixel][k..k+15]              one load; every byte q becomes q - 128, signed
//   weights[k / 4][0..15][4]        16 outputs, 4 inputs each: 4 registers
//   sums                            pixels x 16 outputs, int32
//
// A multiplier is a type D with
//   D::accumulate<M>(inputs, in, in_plane, weights, sums[M][4])
// (dot.h: the dot product instruction; widen.h: 16-bit products). The functions here are templates
// of D, so that those which are compiled for more than the baseline have names of their own.
#ifndef MOBILENET_NEON_POINTWISE_I8_H
#define MOBILENET_NEON_POINTWISE_I8_H

#include "../generic/store.h"
#include "vector.h"

namespace mobilenet {
namespace neon {

constexpr int kShift = 128;  // what the inputs lose as signed bytes

MOBILENET_INLINE int8x16_t load_signed(const uint8_t* in) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(in), vdupq_n_u8(kShift)));
}

template <class D, int M, Activation A, Store S>
__attribute__((noinline)) void pointwise_i8_tile(const Pointwise& g, int pixel, int panel) {
  using V = Vector;
  int32x4_t sum[M][4];
  D::template accumulate<M>(
      g.inputs, static_cast<const uint8_t*>(g.in) + static_cast<int64_t>(pixel) * kBlock,
      g.in_plane, static_cast<const int8_t*>(g.weights) + panel * g.panel, sum);
  // copies, since for all that the compiler knows the stores could change g
  const Rounding rounding = g.rounding;
  const int32_t* bias = static_cast<const int32_t*>(g.bias) + panel * kBlock;
  const float* multiplier = g.multiplier + panel * kBlock;
  const int32_t *out_at = g.out_at, *residual_at = g.residual_at;
  const void* residual = g.residual;
  const int64_t residual_plane = panel * g.residual_plane;
  const auto zero = V::splat_int(-g.residual_zero);
  const auto ratio = V::splat(g.residual_scale);
  void* out = g.out;
  const int64_t out_plane = panel * g.out_plane;
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const int64_t at = static_cast<int64_t>(pixel + m) * kBlock;
    V::Float added[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    if constexpr (A == Activation::none && S != Store::ring) {
      if (residual_at) {
        const float* from = static_cast<const float*>(residual) + residual_plane;
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v)
          added[v] = V::mul(V::load(from + residual_at[pixel + m] + v * 4), ratio);
      } else if (residual) {
        const uint8_t* from = static_cast<const uint8_t*>(residual) + residual_plane;
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          const auto q = V::load_stored(from + at + v * 4);
          added[v] = V::mul(V::to_float(V::add_int(q, zero)), ratio);
        }
      }
    }
    const int64_t to = out_plane + (out_at ? out_at[pixel + m] : at);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const auto whole = V::add_int(sum[m][v], V::load_int(bias + v * 4));
      generic::store_rounded<V, A, S>(V::to_float(whole), V::load(multiplier + v * 4), rounding,
                                      added[v], out, to + v * 4);
    }
  }
}

template <class D, int M, Activation A, Store S>
void pointwise_i8_tiles(const Pointwise& g, int pixel, int end, int panel) {
  for (; pixel < end; pixel += M) pointwise_i8_tile<D, M, A, S>(g, pixel, panel);
}

// Panel by panel over all pixels, in tiles of at most sizeof...(M).
template <class D, Activation A, Store S, int... M>
void pointwise_i8_into(const Pointwise& g) {
  static constexpr generic::Tiles table[] = {nullptr, pointwise_i8_tiles<D, M, A, S>...};
  for (int panel = 0; panel * kBlock < g.outputs; ++panel)
    generic::split_evenly<sizeof...(M)>(g.pixels, [&](int size, int pixel, int end) {
      table[size](g, pixel, end, panel);
    });
}

template <class D, int... M>
void pointwise_i8(const Pointwise& g) {
  generic::with_activation(g.rounding.activation, [&](auto activation) {
    constexpr Activation A = decltype(activation)::value;
    switch (g.store) {
      case Store::map: return pointwise_i8_into<D, A, Store::map, M...>(g);
      case Store::ring: return pointwise_i8_into<D, A, Store::ring, M...>(g);
      case Store::float32: return pointwise_i8_into<D, A, Store::float32, M...>(g);
    }
  });
}

}  // namespace neon
}  // namespace mobilenet

#endif
