// The plain twin of every kernel, written for reading: what the others are tested against, and what
// runs on machines that have none of their instruction sets.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../kernels.h"

namespace mobilenet {
namespace scalar {
namespace {

float activate(const Rounding& rounding, float x) {
  const float gate = std::min(std::max(x + 3.f, 0.f), 6.f);
  if (rounding.activation == Activation::hard_swish) return x * (1.f / 6.f) * gate;
  if (rounding.activation == Activation::hard_sigmoid) return gate * (1.f / 6.f);
  return std::min(std::max(x, rounding.low), rounding.high);
}

// int8: a scaled sum, before it is rounded (integer/reference.py).
float bounded(const Rounding& rounding, float y, float added) {
  if (rounding.activation == Activation::hard_swish)
    y = y * std::min(std::max(y + 3.f, 0.f), 6.f) * rounding.after;
  else if (rounding.activation == Activation::hard_sigmoid)
    y = std::min(std::max(y + 3.f, 0.f), 6.f) * rounding.after;
  return std::min(std::max(y + added, rounding.low), rounding.high);
}

int64_t place(int64_t pixel, int channel, int64_t plane, int block) {
  return channel / block * plane + pixel * block + channel % block;
}

// T: an int8 map's type, uint8_t or int16_t.
template <class T>
void put(Store store, const Rounding& rounding, float y, void* out, int64_t at) {
  if (store == Store::float32)
    static_cast<float*>(out)[at] = y;
  else if (store == Store::ring)
    static_cast<float*>(out)[at] = std::nearbyintf(y);
  else
    static_cast<T*>(out)[at] =
        static_cast<T>(static_cast<int32_t>(std::nearbyintf(y)) + rounding.zero);
}

int64_t out_place(const Pointwise& g, int pixel, int n) {
  if (g.out_at) return n / kBlock * g.out_plane + g.out_at[pixel] + n % kBlock;
  return place(pixel, n, g.out_plane, g.out_block);
}

void pointwise_f32(const Pointwise& g) {
  const float* in = static_cast<const float*>(g.in);
  for (int n = 0; n < g.outputs; ++n) {
    const float* w = reinterpret_cast<const float*>(static_cast<const char*>(g.weights) +
                                                    n / kBlock * g.panel) + n % kBlock;
    for (int pixel = 0; pixel < g.pixels; ++pixel) {
      float sum = static_cast<const float*>(g.bias)[n];
      for (int k = 0; k < g.inputs; ++k)
        sum += in[place(pixel, k, g.in_plane, g.in_block)] * w[static_cast<int64_t>(k) * kBlock];
      sum = activate(g.rounding, sum);
      if (g.residual) {
        int64_t from = g.residual_at
                           ? n / kBlock * g.residual_plane + g.residual_at[pixel] + n % kBlock
                           : place(pixel, n, g.residual_plane, g.residual_block);
        sum += static_cast<const float*>(g.residual)[from];
      }
      static_cast<float*>(g.out)[out_place(g, pixel, n)] = sum;
    }
  }
}

template <class T>
void pointwise_i8(const Pointwise& g) {
  const T* in = static_cast<const T*>(g.in);
  for (int n = 0; n < g.outputs; ++n) {
    const int8_t* w = static_cast<const int8_t*>(g.weights) + n / kBlock * g.panel;
    for (int pixel = 0; pixel < g.pixels; ++pixel) {
      int32_t sum = static_cast<const int32_t*>(g.bias)[n];
      for (int k = 0; k < g.inputs; ++k)
        sum += in[place(pixel, k, g.in_plane, g.in_block)] *
               w[static_cast<int64_t>(k / 4) * 4 * kBlock + n % kBlock * 4 + k % 4];
      float added = 0;
      if (g.residual && g.residual_at)
        added = static_cast<const float*>(g.residual)[n / kBlock * g.residual_plane +
                                                      g.residual_at[pixel] + n % kBlock];
      else if (g.residual)
        added = static_cast<float>(static_cast<const T*>(
                    g.residual)[place(pixel, n, g.residual_plane, g.residual_block)] -
                                   g.residual_zero);
      float y = static_cast<float>(sum) * g.multiplier[n];
      y = bounded(g.rounding, y, added * g.residual_scale);
      put<T>(g.store, g.rounding, y, g.out, out_place(g, pixel, n));
    }
  }
}

// Sum of one output of a depthwise convolution, without its bias.
float depthwise_sum(const Depthwise& g, int row, int col, int lane) {
  float sum = 0;
  for (int ky = 0; ky < g.kernel; ++ky)
    for (int kx = 0; kx < g.kernel; ++kx)
      sum += g.rows[row * g.stride + ky * g.dilation]
                   [(static_cast<int64_t>(col) * g.stride + kx * g.dilation) * kBlock + lane] *
             g.weights[(ky * g.kernel + kx) * kBlock + lane];
  return sum;
}

void depthwise_f32(const Depthwise& g) {
  for (int row = 0; row < g.out_rows; ++row)
    for (int col = 0; col < g.out_cols; ++col)
      for (int lane = 0; lane < g.channels; ++lane) {
        float x = depthwise_sum(g, row, col, lane) + static_cast<const float*>(g.bias)[lane];
        x = activate(g.rounding, x);
        if (g.sums) static_cast<float*>(g.sums)[lane] += x;
        static_cast<float*>(g.out)[row * g.out_row + static_cast<int64_t>(col) * g.out_block +
                                   lane] = x;
      }
}

template <class T>
void depthwise_i8(const Depthwise& g) {
  for (int row = 0; row < g.out_rows; ++row)
    for (int col = 0; col < g.out_cols; ++col)
      for (int lane = 0; lane < g.channels; ++lane) {
        int32_t sum = static_cast<int32_t>(depthwise_sum(g, row, col, lane)) +
                      static_cast<const int32_t*>(g.bias)[lane];
        float y = bounded(g.rounding, static_cast<float>(sum) * g.multiplier[lane], 0);
        int64_t at = row * g.out_row + static_cast<int64_t>(col) * g.out_block + lane;
        put<T>(Store::map, g.rounding, y, g.out, at);
        if (g.sums) static_cast<int32_t*>(g.sums)[lane] += static_cast<T*>(g.out)[at];
      }
}

// Sum of one output of the stem, without its bias.
float stem_sum(const Stem& g, int col, int n) {
  const int taps = 3 * g.kernel * g.kernel;
  const float* w = g.weights + static_cast<int64_t>(n / kBlock) * taps * kBlock + n % kBlock;
  float sum = 0;
  for (int row = 0; row < 3 * g.kernel; ++row)
    for (int kx = 0; kx < g.kernel; ++kx, w += kBlock)
      sum += g.rows[row][static_cast<int64_t>(col) * g.stride + kx] * *w;
  return sum;
}

void stem_f32(const Stem& g) {
  for (int n = 0; n < g.outputs; ++n)
    for (int col = 0; col < g.out_cols; ++col)
      static_cast<float*>(g.out)[place(col, n, g.out_plane, g.out_block)] = activate(
          g.rounding, stem_sum(g, col, n) + static_cast<const float*>(g.bias)[n]);
}

template <class T>
void stem_i8(const Stem& g) {
  for (int n = 0; n < g.outputs; ++n)
    for (int col = 0; col < g.out_cols; ++col) {
      int32_t sum = static_cast<int32_t>(stem_sum(g, col, n)) +
                    static_cast<const int32_t*>(g.bias)[n];
      float y = bounded(g.rounding, static_cast<float>(sum) * g.multiplier[n], 0);
      put<T>(g.store, g.rounding, y, g.out, place(col, n, g.out_plane, g.out_block));
    }
}

void read_f32(const Read& g) { std::copy(g.in, g.in + g.count, g.out); }

void read_i8(const Read& g) {
  for (int i = 0; i < g.count; ++i)
    g.out[i] = std::nearbyintf(std::min(std::max(g.in[i] * g.inverse, g.low), g.high));
}

void copy_f32(const Copy& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    std::memcpy(g.out + static_cast<int64_t>(pixel) * kBlock,
                static_cast<const float*>(g.in) + static_cast<int64_t>(pixel) * g.in_block,
                kBlock * sizeof(float));
}

template <class T>
void copy_i8(const Copy& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; ++lane)
      g.out[static_cast<int64_t>(pixel) * kBlock + lane] = static_cast<float>(
          static_cast<const T*>(g.in)[static_cast<int64_t>(pixel) * g.in_block + lane] -
          g.zero);
}

void gate_f32(const Gate& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; ++lane)
      static_cast<float*>(g.map)[static_cast<int64_t>(pixel) * g.block + lane] *= g.gates[lane];
}

template <class T>
void gate_i8(const Gate& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; ++lane) {
      T* at = static_cast<T*>(g.map) + static_cast<int64_t>(pixel) * g.block + lane;
      float x = static_cast<float>(*at - g.zero) * g.gates[lane];
      put<T>(Store::map, g.rounding, std::min(std::max(x, g.rounding.low), g.rounding.high), at, 0);
    }
}

void sum_f32(const Sum& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; ++lane)
      static_cast<float*>(g.sums)[lane] +=
          static_cast<const float*>(g.map)[static_cast<int64_t>(pixel) * g.block + lane];
}

template <class T>
void sum_i8(const Sum& g) {
  for (int pixel = 0; pixel < g.pixels; ++pixel)
    for (int lane = 0; lane < kBlock; ++lane)
      static_cast<int32_t*>(g.sums)[lane] +=
          static_cast<const T*>(g.map)[static_cast<int64_t>(pixel) * g.block + lane];
}

void mean_f32(const Mean& g) {
  for (int c = 0; c < g.count; ++c)
    static_cast<float*>(g.out)[c] = static_cast<const float*>(g.sums)[c] * g.scale;
}

template <class T>
void mean_i8(const Mean& g) {
  for (int c = 0; c < g.count; ++c) {
    float y = static_cast<float>(static_cast<const int32_t*>(g.sums)[c] - g.offset) * g.scale;
    put<T>(Store::map, g.rounding, std::min(std::max(y, g.rounding.low), g.rounding.high), g.out, c);
  }
}

const Arithmetic kFloat32 = {
    sizeof(float), kBlock,   kBlock,   0,        pointwise_f32, depthwise_f32, stem_f32,
    read_f32,      copy_f32, gate_f32, sum_f32,  mean_f32,      nullptr,       nullptr,
};
template <class T>
constexpr Arithmetic kInt8 = {
    sizeof(T),  kBlock,     kBlock,    0,         pointwise_i8<T>, depthwise_i8<T>, stem_i8<T>,
    read_i8,    copy_i8<T>, gate_i8<T>, sum_i8<T>, mean_i8<T>,      nullptr,         nullptr,
};
const Kernels kKernels = {"scalar", &kFloat32, nullptr, &kInt8<uint8_t>, &kInt8<int16_t>};

}  // namespace
}  // namespace scalar

const Kernels* scalar_kernels() { return &scalar::kKernels; }

}  // namespace mobilenet
