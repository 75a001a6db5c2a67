// The engine's model file: one flat, little-endian, checksummed file that is mapped and used where
// it lies.
//
//   FileHeader | StepRecord[step_count] | OutputRecord[output_count] | text and weights
//
// A file holds a short straight program. Value 0 is the input image (3 channels, NCHW float32);
// step i writes value i + 1 and reads only earlier values. Heights and widths are not stored: they
// follow from the size that the engine is planned for. Every array starts at a multiple of 64 and
// lies in the layout that the kernels read, so that nothing is repacked at load (bfloat16 without
// AMX excepted):
//
//   matrix, float32    [N/16][K][16]              N = outputs, K = inputs, N padded with zeros
//   matrix, bfloat16   [N/16][K/2][16][2]         K padded with zeros to a multiple of 32
//   matrix, int8       [N/16][K/4][16][4]         K padded with zeros to a multiple of 64
//   depthwise          [C/16][kernel*kernel][16]  float32 (also in a bfloat16 file), or int8; int16
//                                              where the file is wide
//   bias, multiplier, weight sum   [N], padded to 16: float32 (int8 files: int32, float32, int32)
//
// K of an ordinary convolution counts rows, then columns, then channels padded to 16, except where
// it reads the image: there channels, rows, columns (27 for 3x3), and the matrix is float32 (in an
// int8 file: whole numbers), as in a bfloat16 file.
#ifndef MOBILENET_FORMAT_H
#define MOBILENET_FORMAT_H

#include <cstddef>
#include <cstdint>
#include <string>

namespace mobilenet {

constexpr char kMagic[8] = {'M', 'B', 'N', 'E', 'T', '\r', '\n', '\0'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kNone = 0xffffffffu;  // no value, where one is optional
constexpr int kBlock = 16;               // channels are stored in blocks of 16
constexpr size_t kAlign = 64;

enum class Precision : uint32_t { float32 = 0, bfloat16 = 1, int8 = 2 };

enum class StepKind : uint32_t {
  conv = 1,          // kernel x kernel convolution, activation; kernel 1: pointwise
  block = 2,         // [expand,] depthwise, [squeeze-excite,] project, [add the input]
  pool = 3,          // mean over all pixels: a 1x1 map
  add = 4,           // inputs 0 and 1, then activation
  multiply = 5,      // input 0 times input 1, a 1x1 map, channel by channel
  concat = 6,        // the channels of up to four maps of one size, each a multiple of 16 but the last
  resize = 7,        // input 0, bilinear (half-pixel centres), to the height and width of input 1
  average_pool = 8,  // kernel x kernel, stride, no padding
};

enum class Activation : uint32_t {
  none = 0,
  relu = 1,
  relu6 = 2,
  hard_swish = 3,
  hard_sigmoid = 4,
  sigmoid = 5,  // not in int8
};

enum class Padding : uint32_t {
  symmetric = 0,  // dilation * (kernel - 1) / 2 on both sides
  same = 1,       // TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel below and right
};

// An int8 value q in 0...255 stands for scale * (q - zero). In a wide file the image and what is
// expanded have 0...1023, and the weights that meet the image or are depthwise -511...511: the
// engine keeps those in float32 in any case, where so much is exact. In a file with wide maps every
// tensor has 0...1023; maps are of 16 bits then.
struct Affine {
  float scale;
  int32_t zero;
};

// One matrix or depthwise filter bank. Offsets are from the start of the file; 0: not there.
struct ConvRecord {
  uint64_t weights;
  uint64_t bias;        // float32, or int32 at scale in * weight
  uint64_t multiplier;  // int8 only: float32; see integer/reference.py
  uint64_t weight_sum;  // int8 only: int32, sum of each output's weights (0 for depthwise)
};

struct StepRecord {
  uint32_t kind;        // StepKind
  uint32_t activation;  // conv: of the convolution; block: of expand and depthwise, at most
                        // hard_swish; add: at most relu6
  uint32_t out_activation;  // block: of project (separable); 0 elsewhere
  uint32_t padding;     // Padding
  uint32_t inputs[4];   // value numbers, kNone where unused
  uint32_t in_channels;
  uint32_t expanded;    // block: channels of the depthwise convolution
  uint32_t out_channels;
  uint32_t squeeze;     // block: channels between squeeze and excite, 0 without
  uint32_t kernel;      // of the depthwise, of the convolution, of average_pool
  uint32_t stride;
  uint32_t dilation;
  uint32_t residual;    // block: 1 where the input is added to the output
  ConvRecord expand, depthwise, reduce, excite, project;  // conv uses project alone
  Affine expanded_range, depthwise_range, pooled_range, squeezed_range, gated_range, out_range;
};

struct OutputRecord {
  uint32_t value;
  uint32_t name;        // offset of a NUL-terminated name within the text
};

struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t precision;
  uint64_t file_bytes;
  uint64_t checksum;    // file_checksum() below
  uint32_t step_count;
  uint32_t output_count;
  uint32_t height;      // the size it was made for; another may be planned
  uint32_t width;
  Affine in_range;      // int8: of the input image
  uint64_t text;        // offset of the text: names and labels, each NUL-terminated
  uint64_t text_bytes;
  uint64_t contract;    // offset of model.json as UTF-8, NUL-terminated within its bytes
  uint64_t contract_bytes;
  uint32_t labels;      // offset within the text of the first of label_count labels
  uint32_t label_count;
  float mean[3];        // of the preprocessing: (pixel / 255 - mean) / std
  float std[3];
  uint32_t resize;      // shorter side in pixels before the crop; 0: the whole image is squeezed
  uint32_t filter;      // 0 bilinear, 1 bicubic, both with antialiasing
  uint32_t wide;        // int8: 1 where what never becomes a map has ten bits, 2 where maps have too
  uint32_t reserved[3];
};

static_assert(sizeof(FileHeader) == 144 && sizeof(OutputRecord) == 8, "format");
static_assert(sizeof(ConvRecord) == 32 && sizeof(StepRecord) == 272, "format");

constexpr uint32_t kWideMaps = 2;

// The largest value of an int8 tensor, and the largest weight.
constexpr int kLargest = 255, kLargestWide = 1023;
constexpr int kLargestWeight = 127, kLargestWideWeight = 511;

constexpr uint32_t kMaxSteps = 4096;
constexpr uint32_t kMaxChannels = 1u << 16;
constexpr uint32_t kMaxSide = 1u << 14;  // of the input, in pixels

// A file in memory whose every field has been checked: offsets, sizes, enumerations, dimensions
// and the checksum. It stays valid as long as the bytes do.
struct File {
  const uint8_t* bytes;
  const FileHeader* header;
  const StepRecord* steps;
  const OutputRecord* outputs;

  template <class T>
  const T* at(uint64_t offset) const {
    return offset ? reinterpret_cast<const T*>(bytes + offset) : nullptr;
  }
  const char* name(uint32_t output) const {
    return reinterpret_cast<const char*>(bytes + header->text + outputs[output].name);
  }
};

uint64_t checksum(const uint8_t* data, size_t bytes);  // XXH64 with seed 0

// Of the header, its checksum taken as zero, exclusive-or of all that is behind it. At least a header.
uint64_t file_checksum(const uint8_t* file, size_t bytes);

// Checks everything before anything is used. On failure returns false and says in `error` what
// was wrong and where. `bytes` must be 64-byte aligned.
bool parse(const uint8_t* bytes, size_t size, File* file, std::string* error);

}  // namespace mobilenet

#endif
