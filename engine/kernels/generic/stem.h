// The convolution that reads the image, one output row at a time.
//
// Three planes of float32, already padded: rows[channel * kernel + ky]. A tile is M pixels by 16
// outputs; as in the 1x1 convolution an input is broadcast and meets 16 weights. In an int8 network
// the image's numbers are q - zero and the weights whole numbers: the sums are exact.
#ifndef MOBILENET_GENERIC_STEM_H
#define MOBILENET_GENERIC_STEM_H

#include "activation.h"
#include "store.h"

namespace mobilenet {
namespace generic {

// M pixels; K and S are the kernel and the stride, 0: any.
template <class V, class Put, int K, int S, int M>
__attribute__((noinline)) void stem_tile(const Stem& g, const Put& put, int x, int panel) {
  using Float = typename V::Float;
  const int stride = S ? S : g.stride, kernel = K ? K : g.kernel;
  constexpr int L = kBlock / V::width;
  const int taps = 3 * kernel * kernel;
  const float* w = g.weights + static_cast<int64_t>(panel) * taps * kBlock;
  Float acc[M][L];
#pragma GCC unroll 4
  for (int l = 0; l < L; ++l) {
    Float b = put.start(panel * kBlock + l * V::width);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) acc[m][l] = b;
  }
  const float* const* rows = g.rows;
  for (int row = 0; row < 3 * kernel; ++row) {
    const float* in = rows[row] + static_cast<int64_t>(x) * stride;
#pragma GCC unroll 3
    for (int kx = 0; kx < kernel; ++kx, ++in, w += kBlock) {
      Float b[L];
#pragma GCC unroll 4
      for (int l = 0; l < L; ++l) b[l] = V::load(w + l * V::width);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        Float a = V::splat(in[m * stride]);
#pragma GCC unroll 4
        for (int l = 0; l < L; ++l) V::accumulate(acc[m][l], a, b[l]);
      }
    }
  }
  const int64_t out_block = g.out_block;
  int64_t at = panel * kBlock / out_block * g.out_plane + panel * kBlock % out_block + x * out_block;
  const Put own = put;  // behind a store the compiler would read the original again
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m, at += out_block)
#pragma GCC unroll 4
    for (int l = 0; l < L; ++l)
      own(at + l * V::width, panel * kBlock + l * V::width, acc[m][l]);
}

template <class V, class Put, int K, int S, int M>
void stem_tiles(const Stem& g, const Put& put, int x, int end, int panel) {
  for (; x < end; x += M) stem_tile<V, Put, K, S, M>(g, put, x, panel);
}

template <class V, class Put, int K, int S, int... M>
void stem_panels(const Stem& g, const Put& put) {
  static constexpr void (*table[])(const Stem&, const Put&, int, int, int) = {
      nullptr, stem_tiles<V, Put, K, S, M>...};
  for (int panel = 0; panel * kBlock < g.outputs; ++panel)
    split_evenly<sizeof...(M)>(g.out_cols, [&](int size, int x, int end) {
      table[size](g, put, x, end, panel);
    });
}

template <class V, class Put>
void stem_row(const Stem& g, const Put& put) {
  if (g.kernel == 3 && g.stride == 2)
    stem_panels<V, Put, 3, 2, 1, 2, 3, 4, 5, 6>(g, put);
  else
    stem_panels<V, Put, 0, 0, 1, 2, 3, 4, 5, 6>(g, put);
}

template <class V>
void stem_f32(const Stem& g) {
  with_activation(g.rounding.activation, [&](auto activation) {
    stem_row<V>(g, PutFloat<V, decltype(activation)::value>(g));
  });
}

template <class V>
void stem_i8(const Stem& g) {
  with_activation(g.rounding.activation, [&](auto activation) {
    if (g.store == Store::ring)
      stem_row<V>(g, PutInt<V, decltype(activation)::value, Store::ring>(g));
    else if (g.store == Store::map)
      stem_row<V>(g, PutInt<V, decltype(activation)::value, Store::map>(g));
    else
      stem_row<V>(g, PutInt<V, decltype(activation)::value, Store::float32>(g));
  });
}

}  // namespace generic
}  // namespace mobilenet

#endif
