// From the file's steps to stages: what is fused, in which bands, and where everything lives.
//
// A block is expand -> depthwise -> [squeeze-excite] -> project. Its expanded tensor exists only as
// a ring of rows:
//
//   narrow input map        ring (expanded, float32)      depthwise rows        narrow output map
//   [C/16][H*W][16]   -->   [E/16][R rows][W + pad][16] -> [E/16][band*Wo][16] -> [N/16][Ho*Wo][16]
//                 expand 1x1                      depthwise             project 1x1, + input
//
// for each band of output rows:
//     for each chunk of expanded channels:
//         expand the input rows that are new into the ring; depthwise the band
//     project the band
//
// Where only one such block reads another's output, and both are wide, even the narrow map between
// them is never whole: for every band the first block computes the rows that the second is about to
// expand, into a strip. It feeds it.
//
// Any pointwise convolution or stem that only a depthwise convolution reads takes the place of
// expand: the stem in the first block, and in MobileNetV1 every pointwise convolution, so that V1
// runs as stem+depthwise, then pointwise+depthwise twelve times.
#ifndef MOBILENET_PLAN_H
#define MOBILENET_PLAN_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../format/format.h"
#include "../kernels/kernels.h"

namespace mobilenet {

// A convolution's numbers as the kernels take them.
struct Weights {
  const void* matrix = nullptr;  // panels, or a filter bank
  int64_t panel = 0;
  const void* bias = nullptr;
  const float* multiplier = nullptr;
};

// An activation map; a network's own numbers, or float32 in blocks of 16.
struct Map {
  int channels = 0, height = 0, width = 0;
  Affine range{1, 0};
  bool is_float = false;  // float32 in a network of another type: an output
  int block = kBlock;
  int64_t plane = 0;      // elements
  size_t bytes = 0;
  size_t offset = 0;      // in the arena
  int first = 0, last = -1;  // the stages between which it lives
  int over = -1;             // the map whose place it takes, element by element
  bool strip = false;        // only the rows that one band reads anew, in every thread's arena

  int pixels() const { return height * width; }
};

enum class StageKind {
  fused,      // produce -> depthwise -> [squeeze-excite] -> [project]
  pointwise,  // 1x1 convolution of a map
  pooled,     // 1x1 convolution and mean over the pixels
  stem,       // convolution of the image
  dense,      // kernel x kernel convolution of a map
  pool,
  add,
  multiply,
  concat,
  resize,
  average_pool,
};

enum class Source { image, expand, copy };  // what fills the ring

// How one thread, or several together, walk through a fused stage.
struct Schedule {
  int band = 1;              // output rows
  int ring_rows = 0;
  bool reuse_ring = false;   // one band: the ring holds one chunk of channels at a time
  bool by_channels = false;  // threads share the channels, not the rows
};

struct Stage {
  StageKind kind;
  Source source = Source::copy;
  int in[4] = {-1, -1, -1, -1};  // maps; -1 of a stem: the image
  int inputs = 0;                // how many of them
  int out = -1;
  int step = 0;                  // of the file, for profiles
  Weights produce, filter, reduce, excite, project;
  Rounding produced, filtered, squeezed, gated, rounding;
  int in_channels = 0, expanded = 0, squeeze = 0, outputs = 0;
  int chunk = kBlock;  // expanded channels, or outputs, that are computed together
  int kernel = 1, stride = 1, dilation = 1;
  int in_height = 0, in_width = 0;    // of what the depthwise convolution reads
  int out_height = 0, out_width = 0;  // of what it writes
  int pad_top = 0, pad_left = 0;
  int columns = 0;                    // of the ring, padding included
  int stem_kernel = 0, stem_stride = 0, stem_top = 0, stem_left = 0, stem_columns = 0;
  bool projects = false;
  int residual = -1;           // map
  bool residual_ring = false;  // the input of the depthwise convolution itself
  float residual_scale = 1;
  int32_t residual_zero = 0;
  Affine pooled_range{1, 0};
  float mean_scale = 1;        // float32 or int8 factor of the sum over the pixels
  float gate_ratio = 1;
  int depthwise_map = -1;      // the whole depthwise map, where project cannot run band by band
  int feeder = -1;             // the stage that computes the rows of in[0], band by band
  bool feeds = false;          // such a stage: it has no turn of its own
  size_t ring = 0;             // the expanded rows; also the outputs pooled, the inputs gathered
  size_t depthwise = 0;        // a band's depthwise rows
  Schedule alone, together;
  Activation after = Activation::none;  // sigmoid
};

// What a thread keeps for itself besides a stage's ring and depthwise rows.
struct Scratch {
  size_t done = 0;       // int32 of every stage: the row behind the last that its ring has seen
  size_t table = 0;      // int32 places of pixels in the ring
  size_t places = 0;     // int32 places of rows in the ring
  size_t rows = 0;       // pointers to them
  size_t stem_rows = 0;  // pointers to the rows of the image's planes
  size_t planes = 0;     // those rows
  size_t zeros = 0;      // a row of padding
  size_t vector = 0;     // channels: sums, or means
};

struct PlannedOutput {
  const char* name;
  int map;
};

// All places are offsets in an arena, of which every thread has one. Threads that work together keep
// the maps in the first thread's, and the rest in their own.
struct Plan {
  Precision precision;
  const Arithmetic* arithmetic;
  int height, width;
  Affine in_range;
  int in_largest = kLargest, map_largest = kLargest;
  std::vector<Map> maps;
  std::vector<Stage> stages;
  std::vector<PlannedOutput> outputs;
  size_t bytes = 0;         // of an arena
  size_t sums = 0, squeezed = 0, gates = 0;  // with the maps
  size_t sums_stride = 0;  // bytes from one thread's sums to the next
  Scratch scratch;
  std::vector<std::unique_ptr<uint8_t[]>> owned;  // widened or corrected numbers

  // Channels in a block of a map of so many.
  int block_of(int channels) const {
    int block = kBlock;
    while (block < arithmetic->map_block && block < channels) block *= 2;
    return block;
  }
};

// `threads` is the most that will run it together, `cache` the bytes of a core's own cache. False
// with a message where the size cannot be.
bool make_plan(const File& file, const Kernels& kernels, int height, int width, int threads,
               size_t cache, Plan* plan, std::string* error);

}  // namespace mobilenet

#endif
