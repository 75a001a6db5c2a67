// WebAssembly: four inputs by four weights as products of 16 bits, exact.
#ifndef MOBILENET_WASM_DOT_H
#define MOBILENET_WASM_DOT_H

#include "vector.h"

namespace mobilenet {
namespace wasm {

// A register of sums holds two outputs, each as two halves: of inputs 0 and 1, of 2 and 3.
struct Dot {
  using V = Vector;
  using Input = v128_t;
  using Weights = v128_t;
  using Sum = v128_t;
  static constexpr int outputs = 4;
  static constexpr int registers = 2;

  static MOBILENET_INLINE Sum nothing() { return wasm_i32x4_const_splat(0); }
  static MOBILENET_INLINE Input splat(const int16_t* in) { return wasm_v128_load64_splat(in); }
  static MOBILENET_INLINE Weights weights(const int8_t* w, int r) {
    return wasm_i16x8_load8x8(w + 8 * r);
  }
  static MOBILENET_INLINE Sum dot(Sum sum, Input in, Weights w) {
    return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(in, w));
  }
  static MOBILENET_INLINE v128_t total(const Sum* sums, int) {
    return wasm_i32x4_add(wasm_i32x4_shuffle(sums[0], sums[1], 0, 2, 4, 6),
                          wasm_i32x4_shuffle(sums[0], sums[1], 1, 3, 5, 7));
  }
};

}  // namespace wasm
}  // namespace mobilenet

#endif
