// The table of the AMX kernels: int8 and bfloat16, whose 1x1 convolutions run on tiles.
#include "../avx512/vector.h"
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/stem.h"
#include "bfloat16.h"
#include "int8.h"

namespace mobilenet {
namespace amx {
namespace {

struct Vector : avx512::Vector {
  static MOBILENET_INLINE Float load_half(const Half* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static MOBILENET_INLINE void store_half(Half* p, Float x) {  // to the nearest, half to even
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
  }
};

constexpr int kChunk = 4 * kBlock;

void enter() { _tile_loadconfig(&kShapes.of[kRows]); }
void leave() { _tile_release(); }

template <class T>
double spin(int rounds) {
  enter();
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int i = 0; i < rounds; ++i) T::template dot<2, 2>();
  leave();
  return static_cast<double>(rounds) * 4 * kRows * kBlock * kLine / T::bytes;
}

const Arithmetic kBfloat16 = {
    sizeof(Half),
    kLine / static_cast<int>(sizeof(Half)),
    kChunk,
    0,
    pointwise_bf16<Vector>,
    generic::depthwise_bf16<Vector>,
    generic::stem_bf16<Vector>,
    generic::read_f32,
    generic::copy_bf16<Vector>,
    generic::gate_bf16<Vector>,
    generic::sum_bf16<Vector>,
    generic::mean_bf16<Vector>,
    enter,
    leave,
    kEmulated ? nullptr : spin<Bfloat16>,
};
const Arithmetic kInt8 = {
    sizeof(Vector::Stored),
    kLine,
    kChunk,
    0,
    pointwise_i8<Vector>,
    generic::depthwise_i8<Vector>,
    generic::stem_i8<Vector>,
    generic::read_i8<Vector>,
    generic::copy_i8<Vector>,
    generic::gate_i8<Vector>,
    generic::sum_i8<Vector>,
    generic::mean_i8<Vector>,
    enter,
    leave,
    kEmulated ? nullptr : spin<Int8>,
};
const Kernels kKernels = {"amx", nullptr, &kBfloat16, &kInt8, nullptr};

}  // namespace
}  // namespace amx

const Kernels* amx_kernels() { return &amx::kKernels; }

}  // namespace mobilenet
