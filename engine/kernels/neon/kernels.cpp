// The table of the NEON kernels that every AArch64 runs: 32 registers, so tiles of 5 pixels by 16
// outputs in float32 and of 2 by 16 in int8. bfloat16 networks are widened and run in float32.
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/pointwise_f32.h"
#include "../generic/pointwise_i8.h"
#include "../generic/stem.h"
#include "dot16.h"
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
template <Activation A, Store S>
void pointwise_i16_into(const Pointwise& g) {
  for (int output = 0; output < g.outputs; output += Dot16::outputs)
    generic::pointwise_i8_groups<Dot16, 1, A, S, 1, 2, 3, 4, 5>(g, output);
}

void pointwise_i16(const Pointwise& g) {
  generic::with_activation(g.rounding.activation, [&](auto activation) {
    constexpr Activation A = decltype(activation)::value;
    switch (g.store) {
      case Store::map: return pointwise_i16_into<A, Store::map>(g);
      case Store::ring: return pointwise_i16_into<A, Store::ring>(g);
      case Store::float32: return pointwise_i16_into<A, Store::float32>(g);
    }
  });
}

const Arithmetic kInt8Maps = {
    sizeof(Vector16::Stored),
    kBlock,
    kBlock,
    0,
    pointwise_i16,
    generic::depthwise_i8<Vector16>,
    generic::stem_i8<Vector16>,
    generic::read_i8<Vector16>,
    generic::copy_i8<Vector16>,
    generic::gate_i8<Vector16>,
    generic::sum_i8<Vector16>,
    generic::mean_i8<Vector16>,
    nullptr,
    nullptr,
};
const Kernels kKernels = {"neon", &kFloat32, nullptr, &kInt8, &kInt8Maps};

}  // namespace
}  // namespace neon

const Kernels* neon_kernels() { return &neon::kKernels; }

}  // namespace mobilenet
