// WebAssembly's 128-bit SIMD: four floats. It has no fused multiply-add.
#ifndef MOBILENET_WASM_VECTOR_H
#define MOBILENET_WASM_VECTOR_H

#include <wasm_simd128.h>

#include <cstdint>

#include "../generic/activation.h"

namespace mobilenet {
namespace wasm {

struct Vector {
  using Float = v128_t;
  static constexpr int width = 4;

  static MOBILENET_INLINE Float zero() { return wasm_f32x4_const_splat(0); }
  static MOBILENET_INLINE Float splat(float x) { return wasm_f32x4_splat(x); }
  static MOBILENET_INLINE Float load(const float* p) { return wasm_v128_load(p); }
  static MOBILENET_INLINE void store(float* p, Float x) { wasm_v128_store(p, x); }
  static MOBILENET_INLINE Float add(Float a, Float b) { return wasm_f32x4_add(a, b); }
  static MOBILENET_INLINE Float mul(Float a, Float b) { return wasm_f32x4_mul(a, b); }
  // one instruction of x86 each; of a bound and no number, the bound
  static MOBILENET_INLINE Float min(Float a, Float b) { return wasm_f32x4_pmin(b, a); }
  static MOBILENET_INLINE Float max(Float a, Float b) { return wasm_f32x4_pmax(b, a); }
  static MOBILENET_INLINE Float fma(Float a, Float b, Float c) { return add(mul(a, b), c); }
  static MOBILENET_INLINE void accumulate(Float& sum, Float a, Float b) { sum = fma(a, b, sum); }

  // whole numbers
  using Int = v128_t;
  static MOBILENET_INLINE Int load_int(const int32_t* p) { return wasm_v128_load(p); }
  static MOBILENET_INLINE void store_int(int32_t* p, Int x) { wasm_v128_store(p, x); }
  static MOBILENET_INLINE Int zero_int() { return wasm_i32x4_const_splat(0); }
  static MOBILENET_INLINE Int splat_int(int32_t x) { return wasm_i32x4_splat(x); }
  static MOBILENET_INLINE Int add_int(Int a, Int b) { return wasm_i32x4_add(a, b); }
  static MOBILENET_INLINE Float to_float(Int x) { return wasm_f32x4_convert_i32x4(x); }
  static MOBILENET_INLINE Float round(Float x) { return wasm_f32x4_nearest(x); }
  // half to even; whole numbers up to 2^24 go through as they are
  static MOBILENET_INLINE Int to_int(Float x) {
    return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(x));
  }
  // int8 networks keep their numbers in 16 bits, which the multiplier wants
  using Stored = int16_t;
  static MOBILENET_INLINE Int load_stored(const Stored* p) { return wasm_i32x4_load16x4(p); }
  static MOBILENET_INLINE void store_stored(Stored* p, Int x) {
    wasm_v128_store64_lane(p, wasm_i16x8_narrow_i32x4(x, x), 0);
  }
};

}  // namespace wasm
}  // namespace mobilenet

#endif
