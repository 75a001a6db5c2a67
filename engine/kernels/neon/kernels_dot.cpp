// The table of the NEON kernels with the dot product extension: int8's pointwise convolution is its
// own, all else that of the table below. Nothing else may be compiled here: a template that both
// files instantiate would be one function, perhaps with instructions that the baseline lacks.
#include "dot.h"

namespace mobilenet {

const Kernels* neon_dot_kernels() {
  static const Arithmetic int8 = [] {
    Arithmetic a = *neon_kernels()->int8;
    a.pointwise = neon::pointwise_i8<neon::Dot, 1, 2, 3, 4, 5>;
    return a;
  }();
  static const Kernels kernels = {"neon_dot", nullptr, nullptr, &int8, nullptr};
  return &kernels;
}

}  // namespace mobilenet
