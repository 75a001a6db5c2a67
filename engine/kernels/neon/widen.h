// Sums of products without the dot product instruction: eight inputs of two outputs at once.
//
//   weights register r = outputs 4r..4r+3, four inputs each, of which two outputs are a half
//   16 bits:  half of the weights k..k+3   times the inputs k..k+3
//           + half of the weights k+4..k+7 times the inputs k+4..k+7
//             at most 2 * 128 * 127 = 32512, for no weight is -128: nothing is lost
//   32 bits:  neighbours added: a sum's register holds two outputs, each in two parts
//
//   registers, of 32:   2 pixels x 8 sums + 4 inputs + 4 weights + 4 products
#ifndef MOBILENET_NEON_WIDEN_H
#define MOBILENET_NEON_WIDEN_H

#include "pointwise_i8.h"

namespace mobilenet {
namespace neon {

struct Widen {
  // x[m]: sixteen inputs, of which the eight from 8 * Half on are used
  template <int Half, int M>
  static MOBILENET_INLINE void multiply_half(const int8_t* w, const int8x16_t (&x)[M],
                                             int32x4_t (&part)[M][8]) {
    int8x16_t first[M], second[M];  // four inputs each, four times
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const int32x4_t fours = vreinterpretq_s32_s8(x[m]);
      first[m] = vreinterpretq_s8_s32(vdupq_laneq_s32(fours, 2 * Half));
      second[m] = vreinterpretq_s8_s32(vdupq_laneq_s32(fours, 2 * Half + 1));
      // lest clang take a register's upper half, the same as its lower one, out of it first
      __asm__("" : "+w"(first[m]), "+w"(second[m]));
    }
#pragma GCC unroll 2
    for (int r = 0; r < 4; r += 2) {
      const int8_t* at = w + Half * 128 + r * 16;
      const int8x16_t b[] = {vld1q_s8(at), vld1q_s8(at + 16)};
      const int8x16_t c[] = {vld1q_s8(at + 64), vld1q_s8(at + 80)};
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        // in this order: no instruction waits for the one before it
        int16x8_t low[M], high[M];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) low[m] = vmull_s8(vget_low_s8(b[i]), vget_low_s8(first[m]));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) high[m] = vmull_high_s8(b[i], first[m]);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
          low[m] = vmlal_s8(low[m], vget_low_s8(c[i]), vget_low_s8(second[m]));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) high[m] = vmlal_high_s8(high[m], c[i], second[m]);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          auto& sums = part[m];
          sums[2 * (r + i)] = vpadalq_s16(sums[2 * (r + i)], low[m]);
          sums[2 * (r + i) + 1] = vpadalq_s16(sums[2 * (r + i) + 1], high[m]);
        }
      }
    }
  }

  template <int M>
  static MOBILENET_INLINE void accumulate(int inputs, const uint8_t* in, int64_t in_plane,
                                          const int8_t* w, int32x4_t (&sum)[M][4]) {
    int32x4_t part[M][8];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) part[m][i] = vdupq_n_s32(0);
    int8x16_t x[M];
    for (; inputs > 8; inputs -= kBlock, in += in_plane, w += 4 * 64) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = load_signed(in + m * kBlock);
      multiply_half<0>(w, x, part);
      multiply_half<1>(w, x, part);
    }
    if (inputs > 0) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = load_signed(in + m * kBlock);
      multiply_half<0>(w, x, part);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) sum[m][r] = vpaddq_s32(part[m][2 * r], part[m][2 * r + 1]);
  }
};

}  // namespace neon
}  // namespace mobilenet

#endif
