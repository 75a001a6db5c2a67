#include "arena.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mobilenet {

#if defined(__linux__)

namespace {
constexpr size_t kHuge = 2u << 20;
}

Arena::Arena(size_t bytes) : bytes_((bytes + kHuge - 1) / kHuge * kHuge) {
  void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  madvise(at, bytes_, MADV_HUGEPAGE);  // fewer misses of the address cache; refusal does no harm
  data_ = static_cast<uint8_t*>(at);
}

Arena::~Arena() {
  if (data_) munmap(data_, bytes_);
}

#else

Arena::Arena(size_t bytes) : bytes_((bytes + 4095) / 4096 * 4096) {
  data_ = static_cast<uint8_t*>(std::aligned_alloc(4096, bytes_));
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0, bytes_);
}

Arena::~Arena() { std::free(data_); }

#endif

}  // namespace mobilenet
