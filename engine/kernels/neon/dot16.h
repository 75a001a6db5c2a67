// NEON: four inputs of 16 bits by four bytes of weights, exact; for int8 networks with maps of ten
// bits, whose numbers the dot product of bytes cannot take.
#ifndef MOBILENET_NEON_DOT16_H
#define MOBILENET_NEON_DOT16_H

#include "vector.h"

namespace mobilenet {
namespace neon {

// The vector whose maps are of 16 bits.
struct Vector16 : Vector {
  using Stored = int16_t;
  static MOBILENET_INLINE Int load_stored(const Stored* p) { return vmovl_s16(vld1_s16(p)); }
  static MOBILENET_INLINE void store_stored(Stored* p, Int x) { vst1_s16(p, vmovn_s32(x)); }
};

// A register of sums holds one output, as four parts: of each of the four inputs.
struct Dot16 {
  using V = Vector16;
  using Input = int16x4_t;
  using Weights = int16x4_t;
  using Sum = int32x4_t;
  static constexpr int outputs = 4;
  static constexpr int registers = 4;

  static MOBILENET_INLINE Sum nothing() { return vdupq_n_s32(0); }
  static MOBILENET_INLINE Input splat(const int16_t* in) { return vld1_s16(in); }
  static MOBILENET_INLINE Weights weights(const int8_t* w, int r) {
    const int16x8_t two = vmovl_s8(vld1_s8(w + r / 2 * 8));
    return r % 2 ? vget_high_s16(two) : vget_low_s16(two);
  }
  static MOBILENET_INLINE Sum dot(Sum sum, Input in, Weights w) { return vmlal_s16(sum, in, w); }
  static MOBILENET_INLINE int32x4_t total(const Sum* sums, int) {
    return vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
  }
};

}  // namespace neon
}  // namespace mobilenet

#endif
