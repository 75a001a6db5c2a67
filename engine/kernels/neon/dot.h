// Sums of products by the dot product instruction: four inputs of four outputs at once.
//
//   weights register r = outputs 4r..4r+3, four inputs each       inputs: 4 bytes, a lane of x
//   sum[r] += dot(weights r, x[lane])                             exact, int32
//
//   registers, of 32:   5 pixels x 4 sums + 5 inputs + 4 weights
#ifndef MOBILENET_NEON_DOT_H
#define MOBILENET_NEON_DOT_H

#include "pointwise_i8.h"

namespace mobilenet {
namespace neon {

struct Dot {
  template <int Lane, int M>
  static MOBILENET_INLINE void multiply_lane(const int8_t* w, const int8x16_t (&x)[M],
                                             int32x4_t (&sum)[M][4]) {
    int8x16_t b[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) b[r] = vld1q_s8(w + Lane * 64 + r * 16);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) sum[m][r] = vdotq_laneq_s32(sum[m][r], b[r], x[m], Lane);
  }

  template <int M>
  static MOBILENET_INLINE void accumulate(int inputs, const uint8_t* in, int64_t in_plane,
                                          const int8_t* w, int32x4_t (&sum)[M][4]) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) sum[m][r] = vdupq_n_s32(0);
    int8x16_t x[M];
    for (; inputs > 12; inputs -= kBlock, in += in_plane, w += 4 * 64) {
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) x[m] = load_signed(in + m * kBlock);
      multiply_lane<0>(w, x, sum);
      multiply_lane<1>(w, x, sum);
      multiply_lane<2>(w, x, sum);
      multiply_lane<3>(w, x, sum);
    }
    if (inputs <= 0) return;
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) x[m] = load_signed(in + m * kBlock);
    multiply_lane<0>(w, x, sum);
    if (inputs > 4) multiply_lane<1>(w, x, sum);
    if (inputs > 8) multiply_lane<2>(w, x, sum);
  }
};

}  // namespace neon
}  // namespace mobilenet

#endif
