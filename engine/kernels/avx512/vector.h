// AVX-512: sixteen floats. Each instruction set built on it derives its own type from this one, so
// that no two folders, compiled with different flags, instantiate the same template.
#ifndef MOBILENET_AVX512_VECTOR_H
#define MOBILENET_AVX512_VECTOR_H

#include <cstdint>

#include "../generic/activation.h"
#include "../x86.h"

namespace mobilenet {
namespace avx512 {

struct Vector {
  using Float = __m512;
  static constexpr int width = 16;

  static MOBILENET_INLINE Float zero() { return _mm512_setzero_ps(); }
  static MOBILENET_INLINE Float splat(float x) { return _mm512_set1_ps(x); }
  static MOBILENET_INLINE Float load(const float* p) { return _mm512_loadu_ps(p); }
  static MOBILENET_INLINE void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static MOBILENET_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static MOBILENET_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static MOBILENET_INLINE Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static MOBILENET_INLINE Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static MOBILENET_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // sum += a * b in place. Written out, because gcc otherwise picks forms that overwrite a or b,
  // and runs out of registers for the sums.
  static MOBILENET_INLINE void accumulate(Float& sum, Float a, Float b) {
#if MOBILENET_EMULATE
    sum = fma(a, b, sum);
#else
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#endif
  }

  // whole numbers
  using Int = __m512i;
  static MOBILENET_INLINE Int load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
  static MOBILENET_INLINE void store_int(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static MOBILENET_INLINE Int zero_int() { return _mm512_setzero_si512(); }
  static MOBILENET_INLINE Int splat_int(int32_t x) { return _mm512_set1_epi32(x); }
  static MOBILENET_INLINE Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static MOBILENET_INLINE Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }
  static MOBILENET_INLINE Int to_int(Float x) { return _mm512_cvtps_epi32(x); }  // half to even
  static MOBILENET_INLINE Float round(Float x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // the numbers of an int8 map, 0...255
  using Stored = uint8_t;
  static MOBILENET_INLINE Int load_stored(const Stored* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static MOBILENET_INLINE void store_stored(Stored* p, Int x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
  }
};

}  // namespace avx512
}  // namespace mobilenet

#endif
