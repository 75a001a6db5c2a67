// What the depth-first loop asks of an instruction set: a table of functions on tiles.
//
// Layouts. A map holds channels in blocks: [channels / block][pixels][block], pixels row by row, so
// that a pixel's address is base + (c / block) * plane + pixel * block + c % block. The block is 16
// (AMX: 64 bytes). A ring holds some rows of the expanded tensor as float32, always in blocks of
// 16, with padding columns on both sides; in an int8 network its numbers are q - zero, whole
// numbers, so that sums of products of a depthwise convolution are exact below 2^24. Strides called
// `plane` are in elements of the array they belong to.
//
// Lanes of a block that no channel fills are padding: kernels may write anything there, and read it,
// for weights of zero meet it. In bfloat16 it must be a number then, so whoever writes the last
// channels of a block makes the rest of it zeros. Up to 64 bytes behind a map's last number are read.
#ifndef MOBILENET_KERNELS_H
#define MOBILENET_KERNELS_H

#include <cstdint>

#include "../format/format.h"

namespace mobilenet {

// Where a result goes: into a map of the network's own type, into the ring, or into a float32 map.
enum class Store { map, ring, float32 };

// How a sum becomes a stored number. float32 and bfloat16: none, relu and relu6 are nothing but the
// bounds. int8: the arithmetic of integer/reference.py.
struct Rounding {
  Activation activation = Activation::none;
  float low = 0, high = 0;  // bounds of the result; of q - zero in int8
  float after = 0;          // int8: the factor behind hard_swish and hard_sigmoid
  int32_t zero = 0;         // int8
};

// out[n][p] = activation(bias[n] + sum over k of in[k][p] * weights[n][k]) (+ residual[n][p])
//
// The residual may be the output: every number of it is read once, before its sum is stored.
struct Pointwise {
  const void* in;
  int64_t in_plane;
  int in_block;
  int inputs;
  const void* weights;  // [outputs / 16] panels
  int64_t panel;        // bytes from one panel to the next
  const void* bias;
  const float* multiplier;  // int8
  int outputs;
  int pixels;
  void* out;
  int64_t out_plane;
  int out_block;
  const int32_t* out_at;  // ring: the pixels' places; null: one after another
  Store store;
  Rounding rounding;
  const void* residual;         // null: none. A map of the network's own type, or the ring
  int64_t residual_plane;
  int residual_block;           // of a map
  const int32_t* residual_at;   // null: a map, else places in the ring
  float residual_scale;         // int8
  int32_t residual_zero;        // int8, of a map
};

// A depthwise convolution of one block of 16 channels, `out_rows` rows of it.
struct Depthwise {
  const float* const* rows;  // ring rows from the first that the first output row needs
  int out_rows, out_cols;
  int kernel, stride, dilation;
  int channels;              // of the 16 that exist
  int padding;               // lanes of the block behind these 16 that no channel fills
  const float* weights;      // [kernel * kernel][16]
  const void* bias;          // [16] float32, or int32
  const float* multiplier;   // [16], int8
  void* out;                 // first pixel, first of these channels
  int out_block;
  int64_t out_row;           // elements from one row to the next
  Rounding rounding;
  void* sums;                // null, or [16] float32 or int32: the sums over all pixels are added
};

// One row of a convolution that reads the image.
struct Stem {
  const float* const* rows;  // [3 * kernel]: rows of the padded planes, channel by channel
  int kernel, stride;
  int out_cols;
  const float* weights;      // [outputs / 16][3 * kernel * kernel][16]
  const void* bias;
  const float* multiplier;
  int outputs;
  void* out;
  int64_t out_plane;
  int out_block;
  Store store;
  Rounding rounding;
};

// One row of a plane of the image, copied or made whole numbers q - zero.
struct Read {
  const float* in;
  int count;
  float inverse, low, high;  // int8
  float* out;
};

// Rows of a map, one block of 16 channels, copied into the ring.
struct Copy {
  const void* in;  // first pixel, first of these channels
  int in_block;
  int pixels;
  int32_t zero;    // int8
  float* out;
};

// The pixels of one block of 16 channels multiplied by its gates, in place.
struct Gate {
  void* map;  // first pixel, first of these channels
  int block;
  int pixels;
  const float* gates;  // [16]
  Rounding rounding;   // int8
  int32_t zero;        // int8, of what is there
};

// sums[c] += the sum over the pixels of one block of 16 channels (int8: of q, as int32).
struct Sum {
  const void* map;
  int block;
  int pixels;
  void* sums;
};

// Sums over pixels to means, in the map's own type: channels of a map of one pixel.
struct Mean {
  const void* sums;   // float32, or int32 of q
  int count;          // a multiple of 16
  int32_t offset;     // int8: pixels * zero, taken from every sum
  float scale;
  Rounding rounding;  // int8
  void* out;
};

// The functions of one precision on one instruction set.
struct Arithmetic {
  int map_bytes;   // of one number of a map (int8: 1, or 2 where 16 bits are faster or needed)
  int map_block;   // channels in a block of a map
  int chunk;       // expanded channels that are produced together, a multiple of 16
  int shift;       // int8: pointwise sees q - shift, which the planner puts into the bias
  void (*pointwise)(const Pointwise&);
  void (*depthwise)(const Depthwise&);
  void (*stem)(const Stem&);
  void (*read)(const Read&);
  void (*copy)(const Copy&);
  void (*gate)(const Gate&);
  void (*sum)(const Sum&);
  void (*mean)(const Mean&);
  // called by every thread before and after it runs kernels: tile configuration; may be null
  void (*enter)();
  void (*leave)();
  // does so many multiply-adds in registers, and says how many: for the roofline; may be null
  double (*spin)(int rounds) = nullptr;
};

// What one instruction set offers; a null pointer falls back to the next lower set.
struct Kernels {
  const char* name;
  const Arithmetic* float32;
  const Arithmetic* bfloat16;  // null: float32 with weights that are widened at load
  const Arithmetic* int8;
  const Arithmetic* int8_maps;  // int8 with ten bits in its maps, which are int16 then
};

const Kernels* scalar_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* vnni_kernels();
const Kernels* amx_kernels();
const Kernels* neon_kernels();
const Kernels* neon_dot_kernels();
const Kernels* wasm_kernels();

}  // namespace mobilenet

#endif
