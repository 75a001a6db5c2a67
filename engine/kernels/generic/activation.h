// The nonlinearities on vectors, and the int8 rounding, once for all instruction sets.
#ifndef MOBILENET_GENERIC_ACTIVATION_H
#define MOBILENET_GENERIC_ACTIVATION_H

#include "../kernels.h"

#define MOBILENET_INLINE inline __attribute__((always_inline))
#define MOBILENET_INLINE_LAMBDA __attribute__((always_inline))

namespace mobilenet {
namespace generic {

// float32: hard_swish and hard_sigmoid as they are, the others by their bounds.
template <Activation A, class V>
MOBILENET_INLINE typename V::Float activate(typename V::Float x, typename V::Float low,
                                            typename V::Float high) {
  if constexpr (A == Activation::hard_swish || A == Activation::hard_sigmoid) {
    auto gate = V::min(V::max(V::add(x, V::splat(3.f)), V::zero()), V::splat(6.f));
    if constexpr (A == Activation::hard_sigmoid) return V::mul(gate, V::splat(1.f / 6.f));
    return V::mul(V::mul(x, V::splat(1.f / 6.f)), gate);
  } else {
    return V::min(V::max(x, low), high);  // sigmoid is taken by the loop behind the kernels
  }
}

// int8: the activation of a scaled sum, before bounds and rounding (integer/reference.py).
template <Activation A, class V>
MOBILENET_INLINE typename V::Float activate_scaled(typename V::Float y, typename V::Float after) {
  if constexpr (A == Activation::hard_swish || A == Activation::hard_sigmoid) {
    auto gate = V::min(V::max(V::add(y, V::splat(3.f)), V::zero()), V::splat(6.f));
    if constexpr (A == Activation::hard_swish) gate = V::mul(y, gate);
    return V::mul(gate, after);
  } else {
    return y;
  }
}

template <Activation A>
struct Constant {
  static constexpr Activation value = A;
};

// Calls f with the activation as a compile-time constant; where it is only bounds, with none.
template <class F>
MOBILENET_INLINE void with_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::hard_swish: return f(Constant<Activation::hard_swish>());
    case Activation::hard_sigmoid: return f(Constant<Activation::hard_sigmoid>());
    default: return f(Constant<Activation::none>());
  }
}

// The same for depthwise convolutions, which never have hard_sigmoid.
template <class F>
MOBILENET_INLINE void with_body_activation(Activation activation, F&& f) {
  if (activation == Activation::hard_swish) return f(Constant<Activation::hard_swish>());
  f(Constant<Activation::none>());
}

// Runs tiles of one size of a 1x1 convolution: the pixels from `pixel` to `end`.
using Tiles = void (*)(const Pointwise&, int pixel, int end, int panel);

// `count` in as few pieces of at most `Most` as there can be, of sizes as equal as can be: a last
// tile of one pixel would cost nearly as much as a whole one. At most two sizes, so two calls
// f(size, from, to).
template <int Most, class F>
MOBILENET_INLINE void split_evenly(int count, F&& f) {
  if (count <= 0) return;
  const int tiles = (count + Most - 1) / Most;
  const int size = (count + tiles - 1) / tiles;
  const int smaller = size * tiles - count;  // so many of one less
  const int turn = (tiles - smaller) * size;
  f(size, 0, turn);
  if (smaller) f(size - 1, turn, count);
}

}  // namespace generic
}  // namespace mobilenet

#endif
