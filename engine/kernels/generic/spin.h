// Multiply-adds on registers alone: the most that a core can do, to compare the kernels with.
#ifndef MOBILENET_GENERIC_SPIN_H
#define MOBILENET_GENERIC_SPIN_H

#include "activation.h"

namespace mobilenet {
namespace generic {

constexpr int kChains = 12;  // sums that do not wait for one another

template <class V>
double spin_f32(int rounds) {
  typename V::Float sums[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) sums[j] = V::splat(1.f);
  const auto a = V::splat(0.999f), b = V::splat(0.001f);
  for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) V::accumulate(sums[j], a, b);
  auto total = sums[0];
#pragma GCC unroll 16
  for (int j = 1; j < kChains; ++j) total = V::add(total, sums[j]);
  float seen[V::width];
  V::store(seen, total);
  // the sums are used, so that the loop is not taken for useless
  return seen[0] != 0 ? static_cast<double>(rounds) * kChains * V::width : 0;
}

// D::outputs outputs of four inputs each take D::registers registers.
template <class D>
double spin_i8(int rounds) {
  typename D::Sum sums[kChains];
#pragma GCC unroll 16
  for (int j = 0; j < kChains; ++j) sums[j] = D::nothing();
  alignas(64) typename D::V::Stored ones[64] = {1, 1, 1, 1};
  alignas(64) int8_t bytes[64] = {1, 1, 1, 1};
  const auto in = D::splat(ones);
  const auto weights = D::weights(bytes, 0);
  for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kChains; ++j) sums[j] = D::dot(sums[j], in, weights);
  auto total = sums[0];
#pragma GCC unroll 16
  for (int j = 1; j < kChains; ++j) total = D::V::add_int(total, sums[j]);
  int32_t seen[D::V::width];
  D::V::store_int(seen, total);
  return seen[0] ? static_cast<double>(rounds) * kChains * D::outputs * 4 / D::registers : 0;
}

}  // namespace generic
}  // namespace mobilenet

#endif
