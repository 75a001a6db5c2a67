// Memory that is zero until it is written, and costs nothing until it is touched.
#ifndef MOBILENET_ARENA_H
#define MOBILENET_ARENA_H

#include <cstddef>
#include <cstdint>
#include <utility>

namespace mobilenet {

class Arena {
 public:
  Arena() = default;
  explicit Arena(size_t bytes);  // throws std::bad_alloc
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Arena();

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mobilenet

#endif
