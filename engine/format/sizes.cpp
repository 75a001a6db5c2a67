#include "sizes.h"

namespace mobilenet {
namespace {

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

}  // namespace

int64_t conv_inputs(int64_t channels, int kernel, bool image) {
  const bool exact = image || kernel == 1;
  return int64_t{kernel} * kernel * (exact ? channels : round_up(channels, kBlock));
}

int64_t matrix_inputs(Precision precision, int64_t inputs) {
  switch (precision) {
    case Precision::bfloat16: return round_up(inputs, 32);
    case Precision::int8: return round_up(inputs, 64);
    default: return inputs;
  }
}

int64_t matrix_bytes(Precision precision, int64_t outputs, int64_t inputs) {
  const int64_t each = precision == Precision::float32    ? 4
                       : precision == Precision::bfloat16 ? 2
                                                          : 1;
  return round_up(outputs, kBlock) * matrix_inputs(precision, inputs) * each;
}

int64_t filter_bytes(Precision precision, bool wide, int64_t channels, int kernel) {
  const int64_t each = precision != Precision::int8 ? 4 : wide ? 2 : 1;
  return round_up(channels, kBlock) * kernel * kernel * each;
}

int64_t vector_bytes(int64_t outputs) { return round_up(outputs, kBlock) * 4; }

const char* name(StepKind kind) {
  switch (kind) {
    case StepKind::conv: return "conv";
    case StepKind::block: return "block";
    case StepKind::pool: return "pool";
    case StepKind::add: return "add";
    case StepKind::multiply: return "multiply";
    case StepKind::concat: return "concat";
    case StepKind::resize: return "resize";
    case StepKind::average_pool: return "average_pool";
  }
  return "unknown";
}

}  // namespace mobilenet
