// AVX2 + FMA: eight floats.
#ifndef MOBILENET_AVX2_VECTOR_H
#define MOBILENET_AVX2_VECTOR_H

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "../generic/activation.h"

namespace mobilenet {
namespace avx2 {

struct Vector {
  using Float = __m256;
  static constexpr int width = 8;

  static MOBILENET_INLINE Float zero() { return _mm256_setzero_ps(); }
  static MOBILENET_INLINE Float splat(float x) { return _mm256_set1_ps(x); }
  static MOBILENET_INLINE Float load(const float* p) { return _mm256_loadu_ps(p); }
  static MOBILENET_INLINE void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static MOBILENET_INLINE Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static MOBILENET_INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static MOBILENET_INLINE Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static MOBILENET_INLINE Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static MOBILENET_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // sum += a * b in place. Written out, because gcc otherwise picks forms that overwrite a or b, and
  // runs out of registers for the sums.
  static MOBILENET_INLINE void accumulate(Float& sum, Float a, Float b) {
#if defined(__GNUC__)
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#else
    sum = fma(a, b, sum);
#endif
  }

  // whole numbers
  using Int = __m256i;
  static MOBILENET_INLINE Int load_int(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static MOBILENET_INLINE void store_int(int32_t* p, Int x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static MOBILENET_INLINE Int zero_int() { return _mm256_setzero_si256(); }
  static MOBILENET_INLINE Int splat_int(int32_t x) { return _mm256_set1_epi32(x); }
  static MOBILENET_INLINE Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static MOBILENET_INLINE Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }
  static MOBILENET_INLINE Int to_int(Float x) { return _mm256_cvtps_epi32(x); }  // half to even
  static MOBILENET_INLINE Float round(Float x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // int8 networks keep their numbers in 16 bits, which the multiplier wants
  using Stored = int16_t;
  static MOBILENET_INLINE Int load_stored(const Stored* p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static MOBILENET_INLINE void store_stored(Stored* p, Int x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
  }
};

}  // namespace avx2
}  // namespace mobilenet

#endif
