// The table of the WebAssembly kernels: browsers give x86's 16 registers, so tiles of 3 pixels by 16
// outputs in float32 and of 5 by 4 in int8.
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/pointwise_f32.h"
#include "../generic/pointwise_i8.h"
#include "../generic/stem.h"
#include "dot.h"
#include "vector.h"

namespace mobilenet {
namespace wasm {
namespace {

void pointwise_f32(const Pointwise& g) {
  if (g.pixels == 1) return generic::matrix_vector<Vector>(g, 0);
  for (int panel = 0; panel * kBlock < g.outputs; ++panel) {
    if (g.outputs - panel * kBlock <= 8)
      generic::pointwise_panels<Vector, 1, 2, 1, 2, 3, 4, 5>(g, panel);
    else
      generic::pointwise_panels<Vector, 1, 4, 1, 2, 3>(g, panel);
  }
}

template <Activation A, Store S>
void pointwise_i8_into(const Pointwise& g) {
  for (int output = 0; output < g.outputs; output += Dot::outputs)
    generic::pointwise_i8_groups<Dot, 1, A, S, 1, 2, 3, 4, 5>(g, output);
}

void pointwise_i8(const Pointwise& g) {
  generic::with_activation(g.rounding.activation, [&](auto activation) {
    constexpr Activation A = decltype(activation)::value;
    switch (g.store) {
      case Store::map: return pointwise_i8_into<A, Store::map>(g);
      case Store::ring: return pointwise_i8_into<A, Store::ring>(g);
      case Store::float32: return pointwise_i8_into<A, Store::float32>(g);
    }
  });
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
    0,
    pointwise_i8,
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
const Kernels kKernels = {"wasm", &kFloat32, nullptr, &kInt8, &kInt8};

}  // namespace
}  // namespace wasm

const Kernels* wasm_kernels() { return &wasm::kKernels; }

}  // namespace mobilenet
