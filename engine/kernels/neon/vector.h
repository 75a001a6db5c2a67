// NEON: four floats.
#ifndef MOBILENET_NEON_VECTOR_H
#define MOBILENET_NEON_VECTOR_H

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "../generic/activation.h"

namespace mobilenet {
namespace neon {

struct Vector {
  using Float = float32x4_t;
  static constexpr int width = 4;

  static MOBILENET_INLINE Float zero() { return vdupq_n_f32(0); }
  static MOBILENET_INLINE Float splat(float x) { return vdupq_n_f32(x); }
  static MOBILENET_INLINE Float load(const float* p) { return vld1q_f32(p); }
  static MOBILENET_INLINE void store(float* p, Float x) { vst1q_f32(p, x); }
  static MOBILENET_INLINE Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static MOBILENET_INLINE Float mul(Float a, Float b) { return vmulq_f32(a, b); }
  // of a bound and no number, the bound, as on x86
  static MOBILENET_INLINE Float min(Float a, Float b) { return vminnmq_f32(a, b); }
  static MOBILENET_INLINE Float max(Float a, Float b) { return vmaxnmq_f32(a, b); }
  static MOBILENET_INLINE Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  static MOBILENET_INLINE void accumulate(Float& sum, Float a, Float b) {
    sum = vfmaq_f32(sum, a, b);
  }

  // whole numbers
  using Int = int32x4_t;
  static MOBILENET_INLINE Int load_int(const int32_t* p) { return vld1q_s32(p); }
  static MOBILENET_INLINE void store_int(int32_t* p, Int x) { vst1q_s32(p, x); }
  static MOBILENET_INLINE Int zero_int() { return vdupq_n_s32(0); }
  static MOBILENET_INLINE Int splat_int(int32_t x) { return vdupq_n_s32(x); }
  static MOBILENET_INLINE Int add_int(Int a, Int b) { return vaddq_s32(a, b); }
  static MOBILENET_INLINE Float to_float(Int x) { return vcvtq_f32_s32(x); }
  static MOBILENET_INLINE Int to_int(Float x) { return vcvtnq_s32_f32(x); }  // half to even
  static MOBILENET_INLINE Float round(Float x) { return vrndnq_f32(x); }
  // four numbers of 0...255 of a map
  using Stored = uint8_t;
  static MOBILENET_INLINE Int load_stored(const Stored* p) {
    uint32_t four;
    std::memcpy(&four, p, sizeof four);
    uint16x8_t words = vmovl_u8(vcreate_u8(four));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
  }
  static MOBILENET_INLINE void store_stored(Stored* p, Int x) {
    uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(x));
    uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    std::memcpy(p, &four, sizeof four);
  }
};

}  // namespace neon
}  // namespace mobilenet

#endif
