// The table of the AVX-512 VNNI kernels: int8.
#include "../avx512/vector.h"
#include "../generic/depthwise.h"
#include "../generic/elementwise.h"
#include "../generic/spin.h"
#include "../generic/stem.h"
#include "pointwise.h"

namespace mobilenet {
namespace vnni {
namespace {

struct Vector : avx512::Vector {};

constexpr int kChunk = 2 * kBlock;

const Arithmetic kInt8 = {
    sizeof(Vector::Stored),
    kBlock,
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
    nullptr,
    nullptr,
    kEmulated ? nullptr : generic::spin_i8<Dot<Vector>>,
};
const Kernels kKernels = {"vnni", nullptr, nullptr, &kInt8, nullptr};

}  // namespace
}  // namespace vnni

const Kernels* vnni_kernels() { return &vnni::kKernels; }

}  // namespace mobilenet
