// XXH64 after its public specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
#include <cstdint>
#include <cstring>

#include "format.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little-endian and used where they lie"
#endif

namespace mobilenet {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;
constexpr int kLanes = 4;
constexpr size_t kStripe = kLanes * sizeof(uint64_t);

uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// A little-endian number at any address.
template <class T>
uint64_t read(const uint8_t* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

uint64_t mix(uint64_t lane, uint64_t input) {
  return rotate(lane + input * kPrime2, 31) * kPrime1;
}

}  // namespace

uint64_t checksum(const uint8_t* data, size_t bytes) {
  const uint8_t* p = data;
  const uint8_t* end = data + bytes;
  uint64_t sum = kPrime5;
  if (bytes >= kStripe) {
    uint64_t lanes[kLanes] = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    for (; static_cast<size_t>(end - p) >= kStripe; p += kStripe)
      for (int i = 0; i < kLanes; ++i) lanes[i] = mix(lanes[i], read<uint64_t>(p + 8 * i));
    sum = rotate(lanes[0], 1) + rotate(lanes[1], 7) + rotate(lanes[2], 12) + rotate(lanes[3], 18);
    for (uint64_t lane : lanes) sum = (sum ^ mix(0, lane)) * kPrime1 + kPrime4;
  }
  sum += bytes;
  for (; end - p >= 8; p += 8) sum = rotate(sum ^ mix(0, read<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  if (end - p >= 4) {
    sum = rotate(sum ^ read<uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p < end; ++p) sum = rotate(sum ^ *p * kPrime5, 11) * kPrime1;
  sum = (sum ^ sum >> 33) * kPrime2;
  sum = (sum ^ sum >> 29) * kPrime3;
  return sum ^ sum >> 32;
}

uint64_t file_checksum(const uint8_t* file, size_t bytes) {
  FileHeader header;
  std::memcpy(&header, file, sizeof header);
  header.checksum = 0;
  return checksum(reinterpret_cast<const uint8_t*>(&header), sizeof header) ^
         checksum(file + sizeof header, bytes - sizeof header);
}

}  // namespace mobilenet
