// The table of the NEON kernels that every AArch64 runs: 32 registers, so tiles of 5 pixels by 16
// outputs in float32 and of 2 by 16 in int8. bfloat16 networks are widened and run in float32.
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/pointwise_f32.h"
#include "../generic/stem.h"
#include "pointwise_f32.h"
#include "vector.h"
#include "widen.h"

namespace mobilenet {
namespace neon {
namespace {

void pointwise_f32(const Pointwise& g) {
  if (g.pixels == 1) return generic::matrix_vector<Vector>(g, 0);
  for (int panel = 0; panel * kBlock < g.outputs; ++panel) {
    if (g.outputs - panel * kBlock <= 8)
      pointwise_panel<2, 1, 2, 3, 4, 5>(g, panel);
    else
      pointwise_panel<4, 1, 2, 3, 4, 5>(g, panel);
  }
}

const Arithmetic kFloat32 = {
    sizeof(float),
    kBlock,
    kBlock,
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
};
const Arithmetic kInt8 = {
    sizeof(Vector::Stored),
    kBlock,
    kBlock,
    kShift,
    pointwise_i8<Widen, 1, 2>,
    generic::depthwise_i8<Vector>,
    generic::stem_i8<Vector>,
    generic::read_i8<Vector>,
    generic::copy_i8<Vector>,
    generic::gate_i8<Vector>,
    generic::sum_i8<Vector>,
    generic::mean_i8<Vector>,
    nullptr,
    nullptr,
};
const Kernels kKernels = {"neon", &kFloat32, nullptr, &kInt8};

}  // namespace
}  // namespace neon

const Kernels* neon_kernels() { return &neon::kKernels; }

}  // namespace mobilenet
