// How the stem's sums are stored: float32, or by the int8 rounding into a map or the ring.
#ifndef MOBILENET_GENERIC_STORE_H
#define MOBILENET_GENERIC_STORE_H

#include "activation.h"

namespace mobilenet {
namespace generic {

// The bounds and the rounding of int8; `at` is an element.
template <class V, Store S>
MOBILENET_INLINE void store_bounded(typename V::Float y, const Rounding& rounding, void* out,
                                    int64_t at) {
  y = V::min(V::max(y, V::splat(rounding.low)), V::splat(rounding.high));
  if constexpr (S == Store::float32) {
    V::store(static_cast<float*>(out) + at, y);
  } else if constexpr (S == Store::ring) {
    V::store(static_cast<float*>(out) + at, V::round(y));
  } else {
    V::store_stored(static_cast<typename V::Stored*>(out) + at,
                    V::add_int(V::to_int(y), V::splat_int(rounding.zero)));
  }
}

// The int8 rounding of sums as floats, with what is added before it.
template <class V, Activation A, Store S>
MOBILENET_INLINE void store_rounded(typename V::Float sum, typename V::Float multiplier,
                                    const Rounding& rounding, typename V::Float added, void* out,
                                    int64_t at) {
  auto y = V::mul(sum, multiplier);
  y = activate_scaled<A, V>(y, V::splat(rounding.after));
  store_bounded<V, S>(V::add(y, added), rounding, out, at);
}

// Stores one vector of outputs from n on at an element of the output.
template <class V, Activation A>
struct PutFloat {
  using Float = typename V::Float;
  const float* bias;
  void* out;
  Float low, high;

  MOBILENET_INLINE explicit PutFloat(const Stem& g)
      : bias(static_cast<const float*>(g.bias)),
        out(g.out),
        low(V::splat(g.rounding.low)),
        high(V::splat(g.rounding.high)) {}
  MOBILENET_INLINE Float start(int n) const { return V::load(bias + n); }
  MOBILENET_INLINE void operator()(int64_t at, int, Float sum) const {
    V::store(static_cast<float*>(out) + at, activate<A, V>(sum, low, high));
  }
};

template <class V, Activation A, Store S>
struct PutInt {
  using Float = typename V::Float;
  const int32_t* bias;
  const float* multiplier;
  void* out;
  Rounding rounding;

  MOBILENET_INLINE explicit PutInt(const Stem& g)
      : bias(static_cast<const int32_t*>(g.bias)),
        multiplier(g.multiplier),
        out(g.out),
        rounding(g.rounding) {}
  MOBILENET_INLINE Float start(int) const { return V::zero(); }
  MOBILENET_INLINE void operator()(int64_t at, int n, Float sum) const {
    auto whole = V::add_int(V::to_int(sum), V::load_int(bias + n));
    store_rounded<V, A, S>(V::to_float(whole), V::load(multiplier + n), rounding, V::zero(), out,
                           at);
  }
};

}  // namespace generic
}  // namespace mobilenet

#endif
