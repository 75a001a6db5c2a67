// bfloat16 on AMX: tiles of 32 inputs.
#ifndef MOBILENET_AMX_BFLOAT16_H
#define MOBILENET_AMX_BFLOAT16_H

#include <cstring>

#include "../generic/bfloat16.h"
#include "tiles.h"

namespace mobilenet {
namespace amx {

struct Bfloat16 {
  static constexpr int bytes = 2;

  template <int Rows, int Columns>
  static MOBILENET_INLINE void dot() {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Columns == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (Rows == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (Rows == 2 && Columns == 2) _tile_dpbf16ps(3, 5, 7);
  }
  template <class V>
  static generic::StoreSums store_sums(const Pointwise& g) {
    return generic::store_sums_bf16<V>(g);
  }
  // In blocks of less than a tile's row the last pixel's row would end in what nobody wrote, which
  // may be no number: zeros instead.
  static Inputs last_rows(Inputs in, int rows, uint8_t* copy) {
    if (in.stride >= kLine) return in;
    for (int row = 0; row < rows; ++row) {
      std::memset(copy + row * kLine, 0, kLine);
      std::memcpy(copy + row * kLine, in.at + row * in.stride, in.stride);
    }
    return {copy, kLine};
  }
};

// One pixel, whose channels lie one after another: P panels of outputs. The weights stream past,
// widened to float32, for vdpbf16ps is slower than two multiply-adds.
template <class V, int P>
__attribute__((noinline)) void sum_vector(const Pointwise& g, int panel, float* sums) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  auto even = [](__m512i pair) MOBILENET_INLINE_LAMBDA {
    return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
  };
  auto odd = [&](__m512i pair) MOBILENET_INLINE_LAMBDA {
    return _mm512_castsi512_ps(_mm512_and_si512(pair, upper));
  };
  const uint8_t* w[P];
  typename V::Float sum[P][2];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    w[p] = static_cast<const uint8_t*>(g.weights) + (panel + p) * g.panel;
    sum[p][0] = V::load(static_cast<const float*>(g.bias) + (panel + p) * kBlock);
    sum[p][1] = V::zero();
  }
  const uint8_t* in = static_cast<const uint8_t*>(g.in);
  auto step = [&](int32_t pair) MOBILENET_INLINE_LAMBDA {
    const __m512i x = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const __m512i y = _mm512_loadu_si512(w[p]);
      V::accumulate(sum[p][0], even(x), even(y));
      V::accumulate(sum[p][1], odd(x), odd(y));
      w[p] += kLine;
    }
  };
  for (int k = 0; k + 2 <= g.inputs; k += 2, in += 4) {
    int32_t pair;
    std::memcpy(&pair, in, sizeof pair);
    step(pair);
  }
  if (g.inputs % 2) {
    uint16_t one;
    std::memcpy(&one, in, sizeof one);
    step(one);
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) V::store(sums + p * kBlock, V::add(sum[p][0], sum[p][1]));
}

template <class V>
void matrix_vector(const Pointwise& g) {
  constexpr int most = 4;
  const generic::StoreSums store = generic::store_sums_bf16<V>(g);
  alignas(64) float sums[most * kBlock];
  const int panels = (g.outputs + kBlock - 1) / kBlock;
  for (int panel = 0; panel < panels;) {
    const int count = panels - panel < most ? 1 : most;
    count == most ? sum_vector<V, most>(g, panel, sums) : sum_vector<V, 1>(g, panel, sums);
    for (int p = 0; p < count; ++p) store(g, sums + p * kBlock, 0, 1, panel++);
  }
}

template <class V>
void pointwise_bf16(const Pointwise& g) {
  if (g.pixels == 1 && g.in_plane == g.in_block)
    matrix_vector<V>(g);
  else
    Convolution<Bfloat16, V>(g).run();
  if (g.store == Store::map)
    generic::clear_padding<V>(g.out, g.outputs, g.pixels, g.out_plane, g.out_block);
}

}  // namespace amx
}  // namespace mobilenet

#endif
