// AVX-512, VNNI, AVX512-BF16 and AMX on machines that have only AVX2: SIMDe, and by hand what it
// lacks. Written after Intel's descriptions of the instructions, one number at a time.
#ifndef MOBILENET_TESTS_EMULATE_H
#define MOBILENET_TESTS_EMULATE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulate {

template <class T, int N>
struct Lanes {
  T at[N];
  Lanes() = default;
  template <class V>
  explicit Lanes(const V& from) {
    static_assert(sizeof(V) == sizeof at, "a register");
    std::memcpy(at, &from, sizeof at);
  }
  template <class V>
  V as() const {
    static_assert(sizeof(V) == sizeof at, "a register");
    V to;
    std::memcpy(&to, at, sizeof at);
    return to;
  }
};

inline uint32_t bits(float x) {
  uint32_t b;
  std::memcpy(&b, &x, sizeof b);
  return b;
}

inline float from_bits(uint32_t b) {
  float x;
  std::memcpy(&x, &b, sizeof x);
  return x;
}

inline float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? 0 * x : x; }
inline float widen(uint16_t half) { return flush(from_bits(static_cast<uint32_t>(half) << 16)); }

inline uint16_t narrow(float x) {
  x = flush(x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits(x) >> 16 | 0x40);
  const uint32_t b = bits(x);
  return static_cast<uint16_t>((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

// ------------------------------------------------------------------------------------ conversions

inline simde__m512 cvtepi32_ps(simde__m512i x) {
  const emulate::Lanes<int32_t, 16> from(x);
  emulate::Lanes<float, 16> to;
  for (int i = 0; i < 16; ++i) to.at[i] = static_cast<float>(from.at[i]);
  return to.as<simde__m512>();
}

inline simde__m512i cvtps_epi32(simde__m512 x) {
  const emulate::Lanes<float, 16> from(x);
  emulate::Lanes<int32_t, 16> to;
  for (int i = 0; i < 16; ++i) {
    const float whole = std::nearbyint(from.at[i]);
    const bool fits = whole >= -0x1p31f && whole < 0x1p31f;
    to.at[i] = fits ? static_cast<int32_t>(whole) : INT32_MIN;
  }
  return to.as<simde__m512i>();
}

inline simde__m512i cvtepu8_epi32(simde__m128i x) {
  const emulate::Lanes<uint8_t, 16> from(x);
  emulate::Lanes<int32_t, 16> to;
  for (int i = 0; i < 16; ++i) to.at[i] = from.at[i];
  return to.as<simde__m512i>();
}

inline simde__m512i cvtepu16_epi32(simde__m256i x) {
  const emulate::Lanes<uint16_t, 16> from(x);
  emulate::Lanes<int32_t, 16> to;
  for (int i = 0; i < 16; ++i) to.at[i] = from.at[i];
  return to.as<simde__m512i>();
}

inline simde__m128i cvtepi32_epi8(simde__m512i x) {
  const emulate::Lanes<int32_t, 16> from(x);
  emulate::Lanes<uint8_t, 16> to;
  for (int i = 0; i < 16; ++i) to.at[i] = static_cast<uint8_t>(from.at[i]);
  return to.as<simde__m128i>();
}

inline simde__m256i cvtneps_pbh(simde__m512 x) {
  const emulate::Lanes<float, 16> from(x);
  emulate::Lanes<uint16_t, 16> to;
  for (int i = 0; i < 16; ++i) to.at[i] = emulate::narrow(from.at[i]);
  return to.as<simde__m256i>();
}

// -------------------------------------------------------------------------------------------- AMX

struct TileConfig {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];  // of a row
  uint8_t rows[16];
};

struct Tile {
  uint8_t at[16][64];
};

inline thread_local TileConfig tile_config{};
inline thread_local Tile tiles[8];

// What the machine would meet with an exception.
inline void demand(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "emulated tile instruction: %s\n", what);
  std::abort();
}

inline void configured(int tile) {
  demand(tile >= 0 && tile < 8 && tile_config.palette == 1 && tile_config.rows[tile] > 0,
         "a tile that is not configured");
}

inline void multiply_shapes(int sum, int a, int b) {
  configured(sum);
  configured(a);
  configured(b);
  demand(sum != a && sum != b && a != b, "one tile twice");
  demand(tile_config.rows[sum] == tile_config.rows[a] &&
             tile_config.bytes[sum] == tile_config.bytes[b] &&
             tile_config.bytes[a] == 4 * tile_config.rows[b],
         "shapes that do not fit");
}

// Stores clear what lies behind the tile's rows and columns, as every write of a tile does.
inline void clear_outside(int tile) {
  for (int row = 0; row < 16; ++row)
    for (int i = 0; i < 64; ++i)
      if (row >= tile_config.rows[tile] || i >= tile_config.bytes[tile]) tiles[tile].at[row][i] = 0;
}

inline void tile_loadconfig(const void* from) {
  std::memcpy(&tile_config, from, sizeof tile_config);
  const auto& config = tile_config;
  demand(config.palette == 1 && config.start == 0, "palette");
  for (int i = 0; i < 16; ++i)
    demand(i < 8 ? config.rows[i] <= 16 && config.bytes[i] <= 64 &&
                                (config.rows[i] == 0) == (config.bytes[i] == 0)
                          : config.rows[i] == 0 && config.bytes[i] == 0,
                    "a tile's shape");
  std::memset(tiles, 0, sizeof tiles);
}

inline void tile_release() {
  std::memset(&tile_config, 0, sizeof tile_config);
  std::memset(tiles, 0, sizeof tiles);
}

inline void tile_zero(int tile) {
  configured(tile);
  std::memset(&tiles[tile], 0, sizeof tiles[tile]);
}

inline void tile_loadd(int tile, const void* from, int64_t stride) {
  configured(tile);
  for (int row = 0; row < tile_config.rows[tile]; ++row)
    std::memcpy(tiles[tile].at[row], static_cast<const uint8_t*>(from) + row * stride,
                tile_config.bytes[tile]);
  clear_outside(tile);
}

inline void tile_stored(int tile, void* to, int64_t stride) {
  configured(tile);
  for (int row = 0; row < tile_config.rows[tile]; ++row)
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, tiles[tile].at[row],
                tile_config.bytes[tile]);
}

inline void tile_dpbusd(int sum, int a, int b) {
  multiply_shapes(sum, a, b);
  const auto& config = tile_config;
  for (int m = 0; m < config.rows[sum]; ++m)
    for (int n = 0; n < config.bytes[sum] / 4; ++n) {
      uint32_t total;
      std::memcpy(&total, &tiles[sum].at[m][4 * n], sizeof total);
      for (int k = 0; k < config.bytes[a]; ++k)
        total += static_cast<uint32_t>(
            tiles[a].at[m][k] *
            static_cast<int8_t>(tiles[b].at[k / 4][4 * n + k % 4]));
      std::memcpy(&tiles[sum].at[m][4 * n], &total, sizeof total);
    }
  clear_outside(sum);
}

// Even and odd inputs are summed apart, each product fused, in float32 without denormals, to the
// nearest; then both are added, and that to the sum.
inline void tile_dpbf16ps(int sum, int a, int b) {
  multiply_shapes(sum, a, b);
  const auto& config = tile_config;
  auto half = [](const uint8_t* from) {
    uint16_t x;
    std::memcpy(&x, from, sizeof x);
    return widen(x);
  };
  for (int m = 0; m < config.rows[sum]; ++m)
    for (int n = 0; n < config.bytes[sum] / 4; ++n) {
      float parts[2] = {0, 0}, total;
      for (int k = 0; k < config.bytes[a] / 2; ++k)
        parts[k % 2] = flush(
            std::fma(half(&tiles[a].at[m][2 * k]),
                     half(&tiles[b].at[k / 2][4 * n + 2 * (k % 2)]), parts[k % 2]));
      std::memcpy(&total, &tiles[sum].at[m][4 * n], sizeof total);
      total = flush(flush(total) + flush(parts[0] + parts[1]));
      std::memcpy(&tiles[sum].at[m][4 * n], &total, sizeof total);
    }
  clear_outside(sum);
}

}  // namespace emulate

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulate::cvtepi32_ps
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulate::cvtps_epi32
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emulate::cvtepu8_epi32
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emulate::cvtepu16_epi32
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emulate::cvtepi32_epi8
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh emulate::cvtneps_pbh
#undef _tile_loadconfig
#define _tile_loadconfig emulate::tile_loadconfig
#undef _tile_release
#define _tile_release emulate::tile_release
#undef _tile_zero
#define _tile_zero emulate::tile_zero
#undef _tile_loadd
#define _tile_loadd emulate::tile_loadd
#undef _tile_stored
#define _tile_stored emulate::tile_stored
#undef _tile_dpbusd
#define _tile_dpbusd emulate::tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulate::tile_dpbf16ps

#endif
