// The file's steps taken apart into single convolutions, with shapes and corrected numbers.
#ifndef MOBILENET_PROGRAM_H
#define MOBILENET_PROGRAM_H

#include <memory>
#include <vector>

#include "../format/sizes.h"
#include "plan.h"

namespace mobilenet {

enum class Op { stem, dense, pointwise, depthwise, pool, add, multiply, concat, resize, average_pool };

struct Value {
  int channels = 0, height = 0, width = 0;
  Affine range{1, 0};
  bool output = false;
  bool is_float = false;
  int writer = -1;           // node; -1: the image
  std::vector<int> readers;  // nodes, in order
};

struct Node {
  Op op;
  int step = 0;
  int in[4] = {-1, -1, -1, -1};
  int inputs = 1;
  int out = -1;
  int residual = -1;
  float residual_scale = 1;
  int32_t residual_zero = 0;
  int in_channels = 0, out_channels = 0;
  int kernel = 1, stride = 1, dilation = 1, pad_top = 0, pad_left = 0;
  Weights weights, reduce, excite;
  Rounding rounding, squeezed, gated;
  int squeeze = 0;
  Affine pooled_range{1, 0};
  float mean_scale = 1, gate_ratio = 1;
  Activation after = Activation::none;
};

struct ProgramOutput {
  const char* name;
  int value;
};

struct Program {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<ProgramOutput> outputs;
  std::vector<std::unique_ptr<uint8_t[]>> owned;
};

// `widen`: bfloat16 matrices become float32. `shapes` are those of the file's values.
Program read_program(const File& file, const Arithmetic& arithmetic, bool widen,
                     const std::vector<Shape>& shapes);

}  // namespace mobilenet

#endif
