// 1x1 convolution in int8: four inputs a step.
//
//   a[p][4k..4k+3] broadcast     w[k][0..15][4]: 16 outputs, 4 inputs each, 64 bytes
//   accumulators: pixels * groups * D::registers, int32
//
// D is what one instruction set makes of a dot product of four inputs by four bytes of weights:
//   outputs                               4, 8 or 16 of a panel's 16, that are computed together
//   Input splat(numbers)                  the four inputs of a pixel, for every output
//   Weights weights(bytes, r)             register r of a group's 4 * outputs bytes
//   Sum dot(sum, input, weights)
//   Int total(sums of one pixel and group, v)   vector v of the sums as int32
#ifndef MOBILENET_GENERIC_POINTWISE_I8_H
#define MOBILENET_GENERIC_POINTWISE_I8_H

#include "store.h"

namespace mobilenet {
namespace generic {

// The weights of the outputs from `output` on.
template <class D>
MOBILENET_INLINE const int8_t* group(const Pointwise& g, int output) {
  return static_cast<const int8_t*>(g.weights) + output / kBlock * g.panel + output % kBlock * 4;
}

// M pixels and P groups of outputs.
template <class D, int M, int P>
MOBILENET_INLINE void accumulate(const Pointwise& g, int pixel, int output,
                                 typename D::Sum (&sum)[M][P][D::registers]) {
  const int8_t* w[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    w[p] = group<D>(g, output + p * D::outputs);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int r = 0; r < D::registers; ++r) sum[m][p][r] = D::nothing();
  }
  using Stored = typename D::V::Stored;
  const Stored* a = static_cast<const Stored*>(g.in) + static_cast<int64_t>(pixel) * kBlock;
  auto step = [&](int k) MOBILENET_INLINE_LAMBDA {
    typename D::Weights weights[P][D::registers];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int r = 0; r < D::registers; ++r) weights[p][r] = D::weights(w[p], r);
      w[p] += 4 * kBlock;
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const auto in = D::splat(a + m * kBlock + 4 * k);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int r = 0; r < D::registers; ++r)
          sum[m][p][r] = D::dot(sum[m][p][r], in, weights[p][r]);
    }
  };
  for (int left = (g.inputs + 3) / 4; left > 0; left -= 4) {
    if (left >= 4) {
      step(0);
      step(1);
      step(2);
      step(3);
    } else {
      for (int k = 0; k < left; ++k) step(k);
    }
    a += g.in_plane;
  }
}

// Not inlined, so that nothing of the store is kept in registers that the sums need.
template <class D, int M, int P, Activation A, Store S>
__attribute__((noinline)) void pointwise_i8_tile(const Pointwise& g, int pixel, int output) {
  using V = typename D::V;
  typename D::Sum sum[M][P][D::registers];
  accumulate<D, M, P>(g, pixel, output, sum);
  // copies: behind a store the compiler would read all of them again
  const Rounding rounding = g.rounding;
  const int64_t out_plane = g.out_plane;
  void* const out = g.out;
  const int32_t* const out_at = g.out_at ? g.out_at + pixel : nullptr;
  const int64_t first = static_cast<int64_t>(pixel) * kBlock;
  auto store = [&](auto added) MOBILENET_INLINE_LAMBDA {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < D::outputs / V::width; ++v) {
        const int n = output + p * D::outputs + v * V::width;
        const int64_t lane = n % kBlock;
        const auto bias = V::load_int(static_cast<const int32_t*>(g.bias) + n);
        const auto multiplier = V::load(g.multiplier + n);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
          const auto whole = V::add_int(D::total(sum[m][p], v), bias);
          const int64_t at = out_at ? out_at[m] : first + m * kBlock;
          store_rounded<V, A, S>(V::to_float(whole), multiplier, rounding, added(m, n), out,
                                 at + n / kBlock * out_plane + lane);
        }
      }
  };
  if constexpr (A == Activation::none && S != Store::ring) {
    if (g.residual) {
      const auto ratio = V::splat(g.residual_scale);
      const auto zero = V::splat_int(-g.residual_zero);
      const int64_t plane = g.residual_plane;
      const void* const residual = g.residual;
      const int32_t* const residual_at = g.residual_at ? g.residual_at + pixel : nullptr;
      return store([&](int m, int n) MOBILENET_INLINE_LAMBDA {
        const int64_t from = n / kBlock * plane + n % kBlock;
        if (residual_at)
          return V::mul(V::load(static_cast<const float*>(residual) + from + residual_at[m]),
                        ratio);
        const auto q = V::load_stored(static_cast<const typename V::Stored*>(residual) + from +
                                      first + m * kBlock);
        return V::mul(V::to_float(V::add_int(q, zero)), ratio);
      });
    }
  }
  store([](int, int) MOBILENET_INLINE_LAMBDA { return V::zero(); });
}

template <class D, int M, int P, Activation A, Store S>
void pointwise_i8_tiles(const Pointwise& g, int pixel, int end, int output) {
  for (; pixel < end; pixel += M) pointwise_i8_tile<D, M, P, A, S>(g, pixel, output);
}

// P groups of outputs over all pixels, in tiles of at most sizeof...(M).
template <class D, int P, Activation A, Store S, int... M>
void pointwise_i8_groups(const Pointwise& g, int output) {
  static constexpr Tiles table[] = {nullptr, pointwise_i8_tiles<D, M, P, A, S>...};
  split_evenly<sizeof...(M)>(g.pixels, [&](int size, int pixel, int end) {
    table[size](g, pixel, end, output);
  });
}

}  // namespace generic
}  // namespace mobilenet

#endif
