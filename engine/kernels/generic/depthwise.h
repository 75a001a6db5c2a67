// Depthwise convolution of one block of 16 channels, in float32.
//
//   ring rows   y   ....[x-1][x][x+1]....      one output row at a time, X pixels of it at once:
//               y+1 ....                       X accumulators and a row of the filter in registers;
//               y+2 ....                       every input is loaded once a row and meets all taps
//
// The rows are in L1 or L2: they were written a moment ago. Filters of 3 and 5 without dilation have
// everything unrolled; the others go tap by tap.
#ifndef MOBILENET_GENERIC_DEPTHWISE_H
#define MOBILENET_GENERIC_DEPTHWISE_H

#include <type_traits>

#include "activation.h"

namespace mobilenet {
namespace generic {

// Float32: bias in the accumulators, activation, and the sums for squeeze-and-excite.
template <class V, Activation A, bool Sums>
struct DepthwiseFloat {
  using Float = typename V::Float;
  Float bias, low, high, sum;
  float* sums;

  MOBILENET_INLINE void begin(const Depthwise& g, int lane) {
    bias = V::load(static_cast<const float*>(g.bias) + lane);
    low = V::splat(g.rounding.low);
    high = V::splat(g.rounding.high);
    sum = V::zero();
    sums = static_cast<float*>(g.sums) + lane;
  }
  MOBILENET_INLINE Float start() const { return bias; }
  MOBILENET_INLINE void finish(void* out, int64_t at, Float x) {
    x = activate<A, V>(x, low, high);
    if constexpr (Sums) sum = V::add(sum, x);
    V::store(static_cast<float*>(out) + at, x);
  }
  MOBILENET_INLINE void keep(const DepthwiseFloat& after) {
    if constexpr (Sums) sum = after.sum;
  }
  MOBILENET_INLINE void end() const {
    if constexpr (Sums) V::store(sums, V::add(V::load(sums), sum));
  }
};

// int8: the accumulators hold exact whole numbers.
template <class V, Activation A, bool Sums>
struct DepthwiseInt {
  using Float = typename V::Float;
  using Int = typename V::Int;
  Int bias, zero, sum;
  Float multiplier, low, high, after;
  int32_t* sums;

  MOBILENET_INLINE void begin(const Depthwise& g, int lane) {
    bias = V::load_int(static_cast<const int32_t*>(g.bias) + lane);
    zero = V::splat_int(g.rounding.zero);
    sum = V::zero_int();
    multiplier = V::load(g.multiplier + lane);
    low = V::splat(g.rounding.low);
    high = V::splat(g.rounding.high);
    after = V::splat(g.rounding.after);
    sums = static_cast<int32_t*>(g.sums) + lane;
  }
  MOBILENET_INLINE Float start() const { return V::zero(); }
  MOBILENET_INLINE void finish(void* out, int64_t at, Float x) {
    Float y = V::mul(V::to_float(V::add_int(V::to_int(x), bias)), multiplier);
    y = activate_scaled<A, V>(y, after);
    Int q = V::add_int(V::to_int(V::min(V::max(y, low), high)), zero);
    if constexpr (Sums) sum = V::add_int(sum, q);
    V::store_stored(static_cast<typename V::Stored*>(out) + at, q);
  }
  MOBILENET_INLINE void keep(const DepthwiseInt& after) {
    if constexpr (Sums) sum = after.sum;
  }
  MOBILENET_INLINE void end() const {
    if constexpr (Sums) V::store_int(sums, V::add_int(V::load_int(sums), sum));
  }
};

// Stores the sums of X pixels.
template <int X, class End, class Float>
MOBILENET_INLINE void finish(const Depthwise& g, End& end, int64_t out, const Float (&acc)[X]) {
  End own = end;  // behind a store the compiler would read the original again
  void* const to = g.out;
  const int64_t block = g.out_block;
#pragma GCC unroll 16
  for (int j = 0; j < X; ++j) own.finish(to, out + j * block, acc[j]);
  end.keep(own);
}

// X pixels from column x of a K x K filter at stride S, no dilation.
template <class V, int K, int S, int X, class End>
MOBILENET_INLINE void unrolled_tile(const Depthwise& g, const float* const* rows, int x, int lane,
                                    End& end, int64_t out) {
  using Float = typename V::Float;
  Float acc[X];
#pragma GCC unroll 16
  for (int j = 0; j < X; ++j) acc[j] = end.start();
  const float* w = g.weights + lane;
  const int64_t first = static_cast<int64_t>(x) * S * kBlock + lane;
#pragma GCC unroll 1
  for (int ky = 0; ky < K; ++ky, w += K * kBlock) {
    const float* in = rows[ky] + first;
    Float taps[K];
#pragma GCC unroll 8
    for (int kx = 0; kx < K; ++kx) taps[kx] = V::load(w + kx * kBlock);
#pragma GCC unroll 32
    for (int column = 0; column < (X - 1) * S + K; ++column) {
      const Float value = V::load(in + column * kBlock);
#pragma GCC unroll 8
      for (int kx = 0; kx < K; ++kx)
        if ((column - kx) % S == 0 && column >= kx && (column - kx) / S < X)
          V::accumulate(acc[(column - kx) / S], value, taps[kx]);
    }
  }
  finish<X>(g, end, out, acc);
}

// The same for any filter, stride and dilation.
template <class V, int X, class End>
MOBILENET_INLINE void any_tile(const Depthwise& g, const float* const* rows, int x, int lane,
                               End& end, int64_t out) {
  using Float = typename V::Float;
  Float acc[X];
#pragma GCC unroll 16
  for (int j = 0; j < X; ++j) acc[j] = end.start();
  const float* w = g.weights + lane;
  const int64_t first = static_cast<int64_t>(x) * g.stride * kBlock + lane;
  for (int ky = 0; ky < g.kernel; ++ky) {
    const float* in = rows[ky * g.dilation] + first;
    for (int kx = 0; kx < g.kernel; ++kx) {
      const Float weight = V::load(w);
#pragma GCC unroll 16
      for (int j = 0; j < X; ++j)
        acc[j] = V::fma(V::load(in + j * g.stride * kBlock), weight, acc[j]);
      w += kBlock;
      in += g.dilation * kBlock;
    }
  }
  finish<X>(g, end, out, acc);
}

// K and S: filter and stride, 0: any. All vectors of a block's 16 channels while their lines are in
// the nearest cache.
template <class V, int K, int S, int X, class End>
__attribute__((noinline)) void depthwise_tiles(const Depthwise& g, const float* const* rows, int x,
                                               int to, End* ends, int64_t out) {
  for (; x < to; x += X, out += static_cast<int64_t>(X) * g.out_block)
    for (int lane = 0; lane < g.channels; lane += V::width) {
      if constexpr (K == 0)
        any_tile<V, X>(g, rows, x, lane, ends[lane / V::width], out + lane);
      else
        unrolled_tile<V, K, S, X>(g, rows, x, lane, ends[lane / V::width], out + lane);
    }
}

// Tiles of seven, since every map of a 224 pixel image is a multiple of 7 wide, then what is left.
template <class V, int K, int S, class End>
void depthwise_block(const Depthwise& g) {
  End ends[kBlock / V::width];
  for (int lane = 0; lane < g.channels; lane += V::width) ends[lane / V::width].begin(g, lane);
  const float* const* rows = g.rows;
  for (int row = 0; row < g.out_rows; ++row, rows += g.stride) {
    int x = 0;
    auto tiles = [&](auto width) MOBILENET_INLINE_LAMBDA {
      constexpr int X = decltype(width)::value;
      const int to = x + (g.out_cols - x) / X * X;
      if (x == to) return;
      depthwise_tiles<V, K, S, X>(g, rows, x, to, ends,
                                  row * g.out_row + static_cast<int64_t>(x) * g.out_block);
      x = to;
    };
    tiles(std::integral_constant<int, 7>());
    tiles(std::integral_constant<int, 4>());
    tiles(std::integral_constant<int, 2>());
    tiles(std::integral_constant<int, 1>());
  }
  for (int lane = 0; lane < g.channels; lane += V::width) ends[lane / V::width].end();
}

template <class V, class End>
void depthwise_any(const Depthwise& g) {
  if (g.dilation == 1 && g.kernel == 3 && g.stride == 1)
    return depthwise_block<V, 3, 1, End>(g);
  if (g.dilation == 1 && g.kernel == 3 && g.stride == 2)
    return depthwise_block<V, 3, 2, End>(g);
  if (g.dilation == 1 && g.kernel == 5 && g.stride == 1)
    return depthwise_block<V, 5, 1, End>(g);
  if (g.dilation == 1 && g.kernel == 5 && g.stride == 2)
    return depthwise_block<V, 5, 2, End>(g);
  depthwise_block<V, 0, 0, End>(g);
}

template <class V, template <class, Activation, bool> class End>
void depthwise(const Depthwise& g) {
  with_body_activation(g.rounding.activation, [&](auto activation) {
    constexpr Activation A = decltype(activation)::value;
    if (g.sums)
      depthwise_any<V, End<V, A, true>>(g);
    else
      depthwise_any<V, End<V, A, false>>(g);
  });
}

template <class V>
void depthwise_f32(const Depthwise& g) {
  depthwise<V, DepthwiseFloat>(g);
}

template <class V>
void depthwise_i8(const Depthwise& g) {
  depthwise<V, DepthwiseInt>(g);
}

}  // namespace generic
}  // namespace mobilenet

#endif
