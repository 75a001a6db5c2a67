// How large things are: a file's arrays, and the maps of a network at an input size.
#ifndef MOBILENET_SIZES_H
#define MOBILENET_SIZES_H

#include <cstdint>
#include <string>
#include <vector>

#include "format.h"

namespace mobilenet {

// Arrays of a file, in bytes. Dimensions that parse() accepts do not overflow.
int64_t matrix_bytes(Precision precision, int64_t outputs, int64_t inputs);
// Depthwise.
int64_t filter_bytes(Precision precision, bool wide, int64_t channels, int kernel);
int64_t vector_bytes(int64_t outputs);  // of a bias, multiplier or weight sum

// Inputs of one output of a convolution (K), and of its row in a matrix, padding included.
int64_t conv_inputs(int64_t channels, int kernel, bool image);
int64_t matrix_inputs(Precision precision, int64_t inputs);

struct Shape {
  int channels, height, width;
};

// Shapes of all values, the image's first. False with a message where the input's size is out of
// range, a map vanishes, maps that must be alike differ, or maps are too large to hold.
bool infer_shapes(const File& file, int height, int width, std::vector<Shape>* shapes,
                  std::string* error);
bool check_size(const File& file, int height, int width, std::string* error);

const char* name(StepKind kind);

}  // namespace mobilenet

#endif
