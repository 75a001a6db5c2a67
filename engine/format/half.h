// bfloat16: the upper half of a float32.
#ifndef MOBILENET_HALF_H
#define MOBILENET_HALF_H

#include <cstdint>
#include <cstring>

namespace mobilenet {

struct Half {
  uint16_t bits;
};

inline float widen(Half h) {
  const uint32_t bits = static_cast<uint32_t>(h.bits) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline Half narrow(float x) {  // to the nearest, half to even
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits += 0x7fff + (bits >> 16 & 1);
  return {static_cast<uint16_t>(bits >> 16)};
}

}  // namespace mobilenet

#endif
