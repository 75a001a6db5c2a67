// AVX2: four inputs by four weights as products of 16 bits, exact (vpmaddubsw would saturate).
#ifndef MOBILENET_AVX2_DOT_H
#define MOBILENET_AVX2_DOT_H

#include "vector.h"

namespace mobilenet {
namespace avx2 {

// A register of sums holds four outputs, each as two halves: of inputs 0 and 1, of 2 and 3.
struct Dot {
  using V = Vector;
  using Input = __m256i;
  using Weights = __m256i;
  using Sum = __m256i;
  static constexpr int outputs = 8;
  static constexpr int registers = 2;

  static MOBILENET_INLINE Sum nothing() { return _mm256_setzero_si256(); }
  static MOBILENET_INLINE Input splat(const int16_t* in) {
    return _mm256_castpd_si256(_mm256_broadcast_sd(reinterpret_cast<const double*>(in)));
  }
  static MOBILENET_INLINE Weights weights(const int8_t* w, int r) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * r)));
  }
  // Written out, because gcc otherwise puts the products of several steps aside, in memory.
  static MOBILENET_INLINE Sum dot(Sum sum, Input in, Weights w) {
#if defined(__GNUC__)
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(in), "x"(w));
    return sum;
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(in, w));
#endif
  }
  static MOBILENET_INLINE __m256i total(const Sum* sums, int) {
    __m256i pairs = _mm256_hadd_epi32(sums[0], sums[1]);
    return _mm256_permute4x64_epi64(pairs, 0xd8);
  }
};

}  // namespace avx2
}  // namespace mobilenet

#endif
