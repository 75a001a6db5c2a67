// 1x1 convolution in float32: an outer product a step, all accumulators in registers.
//
//            one step of k                         a tile
//        w[k][0..15] -> P vectors          pixels x (panels of 16 outputs)
//   a[p][k] broadcast x those vectors      accumulators: pixels * panels * (16 / width) registers
//
// A panel of weights, K x 16 floats, stays in L1 or L2 while the pixels of the band pass by; the
// band's input is read from L1 or L2 once a panel.
#ifndef MOBILENET_GENERIC_POINTWISE_F32_H
#define MOBILENET_GENERIC_POINTWISE_F32_H

#include "activation.h"

namespace mobilenet {
namespace generic {

constexpr int kLine = 64;  // bytes that a cache loads together

// M pixels, P panels, L vectors of each panel (fewer than 16 / width where outputs end early).
// Not inlined: in a loop over tiles the compiler would keep the bounds in registers that the
// accumulators need.
template <class V, int M, int P, int L>
__attribute__((noinline)) void pointwise_tile(const Pointwise& g, int pixel, int panel) {
  using Float = typename V::Float;
  constexpr int W = V::width;
  const float* w[P];
  Float acc[M][P * L];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    w[p] = reinterpret_cast<const float*>(static_cast<const char*>(g.weights) +
                                          (panel + p) * g.panel);
#pragma GCC unroll 4
    for (int l = 0; l < L; ++l) {
      Float b = V::load(static_cast<const float*>(g.bias) + (panel + p) * kBlock + l * W);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) acc[m][p * L + l] = b;
    }
  }
  const float* a = static_cast<const float*>(g.in) + static_cast<int64_t>(pixel) * kBlock;
  auto step = [&](int k) MOBILENET_INLINE_LAMBDA {
    Float b[P * L];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) b[p * L + l] = V::load(w[p] + l * W);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      Float x = V::splat(a[m * kBlock + k]);
#pragma GCC unroll 16
      for (int v = 0; v < P * L; ++v) V::accumulate(acc[m][v], x, b[v]);
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) w[p] += kBlock;
  };
  // Every tile asks for a share of the next panel, which lies further away than this one. A line for
  // a block of inputs: more at once stalls the loads that are waited for.
  const char* next = static_cast<const char*>(g.weights) + (panel + P) * g.panel +
                     static_cast<int64_t>(pixel / M) * (g.inputs / kBlock) * kLine;
  for (int left = g.inputs; left > 0; left -= kBlock, next += kLine) {
    if constexpr (M > 1) __builtin_prefetch(next, 0, 2);
    if (left >= kBlock) {
      for (int k = 0; k < kBlock; k += 4) {
        step(k);
        step(k + 1);
        step(k + 2);
        step(k + 3);
      }
    } else {
      for (int k = 0; k < left; ++k) step(k);
    }
    a += g.in_plane;
  }
  const Float low = V::splat(g.rounding.low), high = V::splat(g.rounding.high);
  // copies: behind a store the compiler would read all of them again
  float* const out = static_cast<float*>(g.out) + panel * g.out_plane;
  const int64_t out_plane = g.out_plane;
  const int32_t* const out_at = g.out_at ? g.out_at + pixel : nullptr;
  const int64_t first = static_cast<int64_t>(pixel) * kBlock;
  with_activation(g.rounding.activation, [&](auto activation) MOBILENET_INLINE_LAMBDA {
    constexpr Activation A = decltype(activation)::value;
    auto store = [&](auto added) MOBILENET_INLINE_LAMBDA {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        float* const to = out + (out_at ? out_at[m] : first + m * kBlock);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
          for (int l = 0; l < L; ++l) {
            const Float x = activate<A, V>(acc[m][p * L + l], low, high);
            V::store(to + p * out_plane + l * W, added(m, p, l, x));
          }
      }
    };
    if (!g.residual) return store([](int, int, int, Float x) MOBILENET_INLINE_LAMBDA { return x; });
    const int64_t plane = g.residual_plane;
    const float* const residual = static_cast<const float*>(g.residual) + panel * plane;
    const int32_t* const at = g.residual_at ? g.residual_at + pixel : nullptr;
    store([&](int m, int p, int l, Float x) MOBILENET_INLINE_LAMBDA {
      const float* const from = residual + (at ? at[m] : first + m * kBlock);
      return V::add(x, V::load(from + p * plane + l * W));
    });
  });
}

template <class V, int M, int P, int L>
void pointwise_tiles(const Pointwise& g, int pixel, int end, int panel) {
  for (; pixel < end; pixel += M) pointwise_tile<V, M, P, L>(g, pixel, panel);
}

// One panel, or P of them together, over all pixels, in tiles of at most sizeof...(M).
template <class V, int P, int L, int... M>
void pointwise_panels(const Pointwise& g, int panel) {
  static constexpr Tiles table[] = {nullptr, pointwise_tiles<V, M, P, L>...};
  split_evenly<sizeof...(M)>(g.pixels, [&](int size, int pixel, int end) {
    table[size](g, pixel, end, panel);
  });
}

// One pixel, such as behind the global pool: the weights stream past, four panels at a time, for a
// single one would leave the multipliers waiting for their own results.
template <class V>
void matrix_vector(const Pointwise& g, int panel) {
  constexpr int L = kBlock / V::width;
  int panels = (g.outputs + kBlock - 1) / kBlock;
  for (; panel + 4 <= panels; panel += 4) pointwise_tiles<V, 1, 4, L>(g, 0, 1, panel);
  for (; panel < panels; ++panel) pointwise_tiles<V, 1, 1, L>(g, 0, 1, panel);
}

}  // namespace generic
}  // namespace mobilenet

#endif
