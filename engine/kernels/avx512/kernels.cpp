// The table of the AVX-512 kernels: 32 registers, so tiles of 7 pixels by 48 outputs, which a map of
// a 224 pixel image is a multiple of, or of 14 by 32. No panel of 16 outputs is computed in vain.
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/pointwise_f32.h"
#include "../generic/spin.h"
#include "../generic/stem.h"
#include "vector.h"

namespace mobilenet {
namespace avx512 {
namespace {

constexpr int kChunk = 3 * kBlock;

void pointwise_f32(const Pointwise& g) {
  if (g.pixels == 1) return generic::matrix_vector<Vector>(g, 0);
  const int panels = (g.outputs + kBlock - 1) / kBlock;
  for (int panel = 0; panel < panels;) {
    const int left = panels - panel;
    if (left == 3 || left > 4) {
      generic::pointwise_panels<Vector, 3, 1, 1, 2, 3, 4, 5, 6, 7>(g, panel);
      panel += 3;
    } else if (left > 1) {
      generic::pointwise_panels<Vector, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>(g,
                                                                                           panel);
      panel += 2;
    } else {
      generic::pointwise_panels<Vector, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>(g,
                                                                                           panel);
      panel += 1;
    }
  }
}

const Arithmetic kFloat32 = {
    sizeof(float),
    kBlock,
    kChunk,
    0,
    pointwise_f32,
    generic::depthwise_f32<Vector>,
    generic::stem_f32<Vector>,
    generic::read_f32,
    generic::copy_f32,
    generic::gate_f32<Vector>,
    generic::sum_f32<Vector>,
    generic::mean_f32<Vector>,
    nullptr,
    nullptr,
    kEmulated ? nullptr : generic::spin_f32<Vector>,
};
const Kernels kKernels = {"avx512", &kFloat32, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace avx512

const Kernels* avx512_kernels() { return &avx512::kKernels; }

}  // namespace mobilenet
