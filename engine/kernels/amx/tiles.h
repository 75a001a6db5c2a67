// 1x1 convolution on AMX tiles.
//
//    inputs: 16 pixels x 64 bytes         weights: 64 bytes x 16 outputs     sums: 16 x 16
//
//      4 [pixels  0..15]               6 [outputs 0..15]  7 [outputs 16..31]      0   1
//      5 [pixels 16..31]                                                          2   3
//
// 32 pixels by 32 outputs at a time: four tiles of sums, which begin with the biases, two of inputs
// and two of weights for every 64 bytes of channels. A map's blocks are 64 bytes of channels, so
// that a tile of inputs is one piece of memory. Narrow maps have smaller blocks: their rows of 64
// bytes reach into the next pixels, and weights of zero meet what is there. The last 16 pixels are
// those at the map's end, some of which may have been done before; fewer pixels have lower tiles.
//
// While tiles are multiplied, the sums before them, which lie in memory, become outputs.
#ifndef MOBILENET_AMX_TILES_H
#define MOBILENET_AMX_TILES_H

#include <cstdint>

#include "../generic/sums.h"
#include "../x86.h"

namespace mobilenet {
namespace amx {

constexpr int kRows = 16, kLine = 64;
constexpr int kTileBytes = kRows * kLine;

// What ldtilecfg reads.
struct alignas(64) Shape {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// By the rows of the tiles of inputs and sums. Constants, for compilers are not told that all of a
// shape is read, and forget to write it.
struct Shapes {
  Shape of[kRows + 1];

  constexpr Shapes() : of{} {
    for (int rows = 1; rows <= kRows; ++rows) {
      of[rows].palette = 1;
      for (int tile = 0; tile < 8; ++tile) {
        of[rows].bytes[tile] = kLine;
        of[rows].rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kRows);
      }
    }
  }
};
constexpr Shapes kShapes;

// Up to 32 pixels by 32 outputs; the second half of either may be missing.
struct Square {
  int pixels[2];  // the first of 16
  int stored[2];  // how many of these an earlier tile has stored: the last tile laps over it
  int panel;
  int rows, columns;  // of tiles
};

struct Inputs {
  const uint8_t* at;
  int64_t stride;  // bytes from one pixel to the next
};

template <class T, int Rows, int Columns>
MOBILENET_INLINE void multiply(const Inputs* in, int64_t in_plane, int steps,
                               const uint8_t* weights, int64_t panel, const void* bias) {
  const uint8_t* first = static_cast<const uint8_t*>(bias);
  const uint8_t *a = in[0].at, *b = in[Rows - 1].at;
  const uint8_t *v = weights, *w = weights + panel;
  const int64_t a_stride = in[0].stride, b_stride = in[Rows - 1].stride;
  // gcc does not know that tiles are loaded from memory
  __asm__ volatile("" ::: "memory");
  _tile_loadd(0, first, 0);
  if constexpr (Columns == 2) _tile_loadd(1, first + kLine, 0);
  if constexpr (Rows == 2) _tile_loadd(2, first, 0);
  if constexpr (Rows == 2 && Columns == 2) _tile_loadd(3, first + kLine, 0);
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(6, v, kLine);
    _tile_loadd(4, a, a_stride);
    if constexpr (Columns == 2) _tile_loadd(7, w, kLine);
    if constexpr (Rows == 2) _tile_loadd(5, b, b_stride);
    T::template dot<Rows, Columns>();
    a += in_plane;
    b += in_plane;
    v += kTileBytes;
    w += kTileBytes;
  }
}

// sums[rows][columns][16 pixels][16 outputs]
template <int Rows, int Columns>
MOBILENET_INLINE void store_tiles(uint8_t* sums) {
  _tile_stored(0, sums, kLine);
  if constexpr (Columns == 2) _tile_stored(1, sums + kTileBytes, kLine);
  if constexpr (Rows == 2) _tile_stored(2, sums + 2 * kTileBytes, kLine);
  if constexpr (Rows == 2 && Columns == 2) _tile_stored(3, sums + 3 * kTileBytes, kLine);
}

// T: the type of the inputs and weights; V: vectors.
template <class T, class V>
class Convolution {
 public:
  explicit Convolution(const Pointwise& g)
      : g_(g),
        store_(T::template store_sums<V>(g)),
        height_(g.pixels < kRows ? g.pixels : kRows),
        panels_((g.outputs + kBlock - 1) / kBlock),
        steps_((g.inputs * T::bytes + kLine - 1) / kLine),
        stride_(g.in_block * T::bytes),
        in_plane_(g.in_plane * T::bytes) {}

  void run() {
    if (height_ < kRows) _tile_loadconfig(&kShapes.of[height_]);
    last_ = T::last_rows(pixels_at(g_.pixels - height_), height_, last_rows_);
    const int tiles = (g_.pixels + kRows - 1) / kRows;
    Square before{};
    for (int panel = 0; panel < panels_; panel += 2)
      for (int tile = 0; tile < tiles; tile += 2) {
        Square s{};
        s.panel = panel;
        s.columns = panels_ - panel > 1 ? 2 : 1;
        s.rows = tiles - tile > 1 ? 2 : 1;
        for (int row = 0; row < s.rows; ++row) {
          const int pixel = (tile + row) * kRows, end = g_.pixels - height_;
          s.pixels[row] = pixel < end ? pixel : end;
          s.stored[row] = pixel - s.pixels[row];
        }
        if (s.rows == 2)
          s.columns == 2 ? square<2, 2>(s, before) : square<2, 1>(s, before);
        else
          s.columns == 2 ? square<1, 2>(s, before) : square<1, 1>(s, before);
        before = s;
      }
    finish(before);
    if (height_ < kRows) _tile_loadconfig(&kShapes.of[kRows]);
  }

 private:
  Inputs pixels_at(int pixel) const {
    return {static_cast<const uint8_t*>(g_.in) + pixel * stride_, stride_};
  }

  template <int Rows, int Columns>
  void square(const Square& s, const Square& before) {
    Inputs in[2];
    for (int row = 0; row < Rows; ++row)
      in[row] = s.pixels[row] == g_.pixels - height_ ? last_ : pixels_at(s.pixels[row]);
    multiply<T, Rows, Columns>(
        in, in_plane_, steps_, static_cast<const uint8_t*>(g_.weights) + s.panel * g_.panel,
        g_.panel, static_cast<const uint8_t*>(g_.bias) + s.panel * kLine);
    finish(before);
    store_tiles<Rows, Columns>(sums_);
  }

  void finish(const Square& s) {
    for (int row = 0; row < s.rows; ++row)
      for (int column = 0; column < s.columns; ++column)
        store_(g_, sums_ + (2 * row + column) * kTileBytes + s.stored[row] * kLine,
               s.pixels[row] + s.stored[row], height_ - s.stored[row], s.panel + column);
  }

  alignas(64) uint8_t sums_[4 * kTileBytes];
  alignas(64) uint8_t last_rows_[kTileBytes];
  const Pointwise& g_;
  const generic::StoreSums store_;
  const int height_, panels_, steps_;
  const int64_t stride_, in_plane_;
  Inputs last_;  // of the last 16 pixels
};

}  // namespace amx
}  // namespace mobilenet

#endif
