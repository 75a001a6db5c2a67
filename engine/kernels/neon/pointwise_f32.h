// 1x1 convolution in float32: four inputs of a pixel are one load, and each of them a lane that
// multiplies the weights of its step.
//
//   in[pixel][k..k+3] -> x[pixel]        weights[k + lane][0..15] -> 4 registers
//   sum[pixel][v] += weights[v] * x[pixel][lane]
//
//   registers, of 32:   5 pixels x 4 sums + 5 inputs + 4 weights
//
// A panel of weights, K x 16 floats, stays in L1 or L2 while the pixels of the band pass by.
#ifndef MOBILENET_NEON_POINTWISE_F32_H
#define MOBILENET_NEON_POINTWISE_F32_H

#include "vector.h"

namespace mobilenet {
namespace neon {

// sum[m][v] += w[v] * x[m][Lane], of one step
template <int Lane, int M, int L>
MOBILENET_INLINE void multiply_lane(const float* w, const float32x4_t (&x)[M],
                                    float32x4_t (&sum)[M][L]) {
  float32x4_t b[L];
#pragma GCC unroll 4
  for (int v = 0; v < L; ++v) b[v] = vld1q_f32(w + Lane * kBlock + v * 4);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < L; ++v) sum[m][v] = vfmaq_laneq_f32(sum[m][v], b[v], x[m], Lane);
}

// M pixels, L vectors of a panel (fewer than 4 where outputs end early).
template <int M, int L>
__attribute__((noinline)) void pointwise_tile(const Pointwise& g, int pixel, int panel) {
  float32x4_t sum[M][L];
#pragma GCC unroll 4
  for (int v = 0; v < L; ++v) {
    float32x4_t bias = vld1q_f32(static_cast<const float*>(g.bias) + panel * kBlock + v * 4);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) sum[m][v] = bias;
  }
  const float* w =
      reinterpret_cast<const float*>(static_cast<const char*>(g.weights) + panel * g.panel);
  const float* block = static_cast<const float*>(g.in) + static_cast<int64_t>(pixel) * kBlock;
  for (int left = g.inputs; left > 0; left -= kBlock, block += g.in_plane) {
    const int count = left < kBlock ? left : kBlock;
    const float* a = block;
    for (const float* end = block + count / 4 * 4; a < end; a += 4, w += 4 * kBlock) {
      float32x4_t x[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = vld1q_f32(a + m * kBlock);
      multiply_lane<0>(w, x, sum);
      multiply_lane<1>(w, x, sum);
      multiply_lane<2>(w, x, sum);
      multiply_lane<3>(w, x, sum);
    }
    for (const float* end = block + count; a < end; ++a, w += kBlock) {
      float32x4_t x[M];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = vdupq_n_f32(a[m * kBlock]);
      multiply_lane<0>(w, x, sum);
    }
  }
  // copies, since for all that the compiler knows the stores could change g
  const float32x4_t low = vdupq_n_f32(g.rounding.low), high = vdupq_n_f32(g.rounding.high);
  const int32_t *out_at = g.out_at, *residual_at = g.residual_at;
  float* out = static_cast<float*>(g.out) + panel * g.out_plane;
  const float* residual = static_cast<const float*>(g.residual);
  if (residual) residual += panel * g.residual_plane;
  generic::with_activation(g.rounding.activation, [&](auto activation) MOBILENET_INLINE_LAMBDA {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const int64_t at = static_cast<int64_t>(pixel + m) * kBlock;
#pragma GCC unroll 4
      for (int v = 0; v < L; ++v)
        sum[m][v] = generic::activate<decltype(activation)::value, Vector>(sum[m][v], low, high);
      if (residual) {
        const float* added = residual + (residual_at ? residual_at[pixel + m] : at);
#pragma GCC unroll 4
        for (int v = 0; v < L; ++v) sum[m][v] = vaddq_f32(sum[m][v], vld1q_f32(added + v * 4));
      }
      float* to = out + (out_at ? out_at[pixel + m] : at);
#pragma GCC unroll 4
      for (int v = 0; v < L; ++v) vst1q_f32(to + v * 4, sum[m][v]);
    }
  });
}

template <int M, int L>
void pointwise_tiles(const Pointwise& g, int pixel, int end, int panel) {
  for (; pixel < end; pixel += M) pointwise_tile<M, L>(g, pixel, panel);
}

// One panel over all pixels, in tiles of at most sizeof...(M).
template <int L, int... M>
void pointwise_panel(const Pointwise& g, int panel) {
  static constexpr generic::Tiles table[] = {nullptr, pointwise_tiles<M, L>...};
  generic::split_evenly<sizeof...(M)>(g.pixels, [&](int size, int pixel, int end) {
    table[size](g, pixel, end, panel);
  });
}

}  // namespace neon
}  // namespace mobilenet

#endif
