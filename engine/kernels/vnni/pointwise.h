// 1x1 convolution in int8 by vpdpbusd: four inputs of sixteen outputs a step and register.
//
//   14 pixels x 2 panels of 16 outputs     28 registers of sums, 2 of weights, 1 input in all lanes
//
// A tile's sums go through memory to be rounded and stored: the loop has no register to spare, and
// what follows it is written once for tiles of every size.
#ifndef MOBILENET_VNNI_POINTWISE_H
#define MOBILENET_VNNI_POINTWISE_H

#include <cstring>

#include "../generic/pointwise_i8.h"
#include "../generic/sums.h"
#include "../x86.h"

namespace mobilenet {
namespace vnni {

template <class Vector>
struct Dot {
  using V = Vector;
  using Input = __m512i;
  using Weights = __m512i;
  using Sum = __m512i;
  static constexpr int outputs = kBlock;
  static constexpr int registers = 1;

  static MOBILENET_INLINE Sum nothing() { return _mm512_setzero_si512(); }
  static MOBILENET_INLINE Input splat(const uint8_t* in) {
    int32_t four;
    std::memcpy(&four, in, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static MOBILENET_INLINE Weights weights(const int8_t* w, int) { return _mm512_loadu_si512(w); }
  // In place and written out, for gcc copies registers around the intrinsic.
  static MOBILENET_INLINE Sum dot(Sum sum, Input in, Weights w) {
#if MOBILENET_EMULATE
    return _mm512_dpbusd_epi32(sum, in, w);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(in), "v"(w));
    return sum;
#endif
  }
};

constexpr int kMostPixels = 14;  // of a tile

// The sums of M pixels and P panels: [panel][14 pixels][16 outputs]. Not inlined: the bounds of a
// loop over tiles would take registers.
template <class V, int M, int P>
__attribute__((noinline)) void sum_tile(const Pointwise& g, int pixel, int panel, int32_t* sums) {
  __m512i sum[M][P][1];
  generic::accumulate<Dot<V>, M, P>(g, pixel, panel * kBlock, sum);
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    const auto bias = V::load_int(static_cast<const int32_t*>(g.bias) + (panel + p) * kBlock);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      V::store_int(sums + (p * kMostPixels + m) * kBlock, V::add_int(sum[m][p][0], bias));
  }
}

// P panels over all pixels, in tiles of at most sizeof...(M).
template <class V, int P, int... M>
void pointwise_panels(const Pointwise& g, int panel, generic::StoreSums store) {
  static constexpr void (*table[])(const Pointwise&, int, int, int32_t*) = {nullptr,
                                                                            sum_tile<V, M, P>...};
  alignas(64) int32_t sums[P * kMostPixels * kBlock];
  generic::split_evenly<sizeof...(M)>(g.pixels, [&](int size, int pixel, int end) {
    for (; pixel < end; pixel += size) {
      table[size](g, pixel, panel, sums);
      for (int p = 0; p < P; ++p)
        store(g, sums + p * kMostPixels * kBlock, pixel, size, panel + p);
    }
  });
}

// One pixel, such as behind the global pool: the weights stream past, several panels at a time.
template <class V>
void matrix_vector(const Pointwise& g, generic::StoreSums store) {
  constexpr int most = 4;
  const int panels = (g.outputs + kBlock - 1) / kBlock;
  int panel = 0;
  for (; panel + most <= panels; panel += most) pointwise_panels<V, most, 1>(g, panel, store);
  for (; panel + 2 <= panels; panel += 2) pointwise_panels<V, 2, 1>(g, panel, store);
  if (panel < panels) pointwise_panels<V, 1, 1>(g, panel, store);
}

template <class V>
void pointwise_i8(const Pointwise& g) {
  const generic::StoreSums store = generic::store_sums_i8<V>(g);
  if (g.pixels == 1) return matrix_vector<V>(g, store);
  const int panels = (g.outputs + kBlock - 1) / kBlock;
  int panel = 0;
  for (; panel + 2 <= panels; panel += 2)
    pointwise_panels<V, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>(g, panel, store);
  if (panel < panels)
    pointwise_panels<V, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>(g, panel, store);
}

}  // namespace vnni
}  // namespace mobilenet

#endif
