// Arrays of a kernel under test beside those of its plain twin.
#ifndef MOBILENET_TESTS_NUMBERS_H
#define MOBILENET_TESTS_NUMBERS_H

#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

#include "../format/format.h"
#include "../format/half.h"
#include "check.h"

namespace mobilenet {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  float real(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  bool coin() { return whole(0, 1); }
  template <class T>
  T one_of(std::initializer_list<T> choices) {
    return choices.begin()[whole(0, static_cast<int>(choices.size()) - 1)];
  }

 private:
  std::mt19937 engine_;
};

// 64-byte aligned memory and not a byte more than asked for: sanitizers see what is read behind.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    void* at = nullptr;
    CHECK(posix_memalign(&at, kAlign, std::max<size_t>(bytes, 1)) == 0, "%zu bytes", bytes);
    data_.reset(static_cast<uint8_t*>(at));
    std::memset(at, 0, bytes);
  }
  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* p) const { free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

// words: the int8 maps of instruction sets that would rather have them in 16 bits. tens: the maps of
// ten bits, which the twin has in 16 bits too.
enum class Type { float32, bfloat16, bytes, words, tens, whole };

inline int bytes_of(Type type) {
  switch (type) {
    case Type::bytes: return 1;
    case Type::bfloat16:
    case Type::words:
    case Type::tens: return 2;
    default: return 4;
  }
}

// What a plain twin, which knows neither bfloat16 nor words, has in their place.
inline Type plain(Type type) {
  return type == Type::bfloat16 ? Type::float32 : type == Type::words ? Type::bytes : type;
}

// One array twice: in the type of the kernel and in that of its twin.
class Numbers {
 public:
  Numbers(Type type, int64_t count, int64_t slack_bytes = 0)
      : type_(type),
        count_(count),
        own_(count * bytes_of(type) + slack_bytes),
        plain_(count * bytes_of(mobilenet::plain(type))) {
    std::memset(own_.data() + count * bytes_of(type), 0xff, slack_bytes);
  }

  Type type() const { return type_; }
  int64_t count() const { return count_; }
  uint8_t* own(int64_t at = 0) { return own_.data() + at * bytes_of(type_); }
  uint8_t* plain(int64_t at = 0) { return plain_.data() + at * bytes_of(mobilenet::plain(type_)); }
  float* floats(int64_t at = 0) { return reinterpret_cast<float*>(own(at)); }

  // A float, or the nearest bfloat16, or a whole number.
  void set(int64_t at, double x) {
    put(type_, own(at), x);
    put(mobilenet::plain(type_), plain(at), get(at));
  }
  double get(int64_t at) const { return take(type_, own_.data() + at * bytes_of(type_)); }

  std::vector<float> magnitudes() const {
    std::vector<float> sizes(count_);
    for (int64_t i = 0; i < count_; ++i) sizes[i] = static_cast<float>(std::abs(get(i)));
    return sizes;
  }

  // What no kernel may let into a result: no number where there is one, else anything.
  void spoil(int64_t at, Random& random) {
    if (type_ == Type::float32 || type_ == Type::bfloat16) {
      std::memset(own(at), 0xff, bytes_of(type_));
      std::memset(plain(at), 0xff, sizeof(float));
    } else {
      set(at, random.whole(0, 255));
    }
  }

 private:
  template <class T>
  static void write(uint8_t* to, T x) {
    std::memcpy(to, &x, sizeof x);
  }
  template <class T>
  static T as(const uint8_t* from) {
    T x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  static void put(Type type, uint8_t* to, double x) {
    switch (type) {
      case Type::float32: return write(to, static_cast<float>(x));
      case Type::bfloat16: return write(to, narrow(static_cast<float>(x)));
      case Type::bytes: return write(to, static_cast<uint8_t>(static_cast<int>(x)));
      case Type::words:
      case Type::tens: return write(to, static_cast<int16_t>(x));
      case Type::whole: return write(to, static_cast<int32_t>(x));
    }
  }
  static double take(Type type, const uint8_t* from) {
    switch (type) {
      case Type::float32: return as<float>(from);
      case Type::bfloat16: return widen(as<Half>(from));
      case Type::bytes: return *from;
      case Type::words:
      case Type::tens: return as<int16_t>(from);
      case Type::whole: break;
    }
    return as<int32_t>(from);
  }

  Type type_;
  int64_t count_;
  Memory own_, plain_;
};

// Channels in blocks: [channels / block][plane elements], pixels of `block` elements one by one.
struct Layout {
  int channels, block;
  int64_t plane;

  int blocks() const { return (channels + block - 1) / block; }
  int64_t count() const { return blocks() * plane; }
  int64_t at(int64_t pixel, int channel) const {
    return channel / block * plane + pixel * block + channel % block;
  }
};

// A kernel's output and its twin's: elements that the kernel must write, may write, and must leave
// alone, the last also in front of and behind all the others.
class Output {
 public:
  Output(Type type, int64_t count, Random& random)
      : tested_(type, count + 2 * kGuard),
        twin_(plain(type), count + 2 * kGuard),
        marks_(count + 2 * kGuard, Mark::nothing) {
    for (int64_t i = 0; i < tested_.count(); ++i) tested_.spoil(i, random);
    before_ = copy();
  }

  uint8_t* tested(int64_t at = 0) { return tested_.own(at + kGuard); }
  uint8_t* twin(int64_t at = 0) { return twin_.own(at + kGuard); }
  double expected(int64_t at) { return twin_.get(at + kGuard); }
  void must(int64_t at) { marks_[at + kGuard] = Mark::must; }
  void may(int64_t at) { marks_[at + kGuard] = Mark::may; }

  // What is there before, where a kernel works in place.
  void put(int64_t at, double x) {
    tested_.set(at + kGuard, x);
    twin_.set(at + kGuard, tested_.get(at + kGuard));
    before_ = copy();
  }

  // tolerance(at, expected): how far element `at` may be from its twin.
  template <class F>
  void compare(const char* what, F&& tolerance) {
    const int each = bytes_of(tested_.type());
    const uint8_t* now = tested_.own();
    for (int64_t i = 0; i < tested_.count(); ++i) {
      const long long at = i - kGuard;
      const double x = tested_.get(i);
      if (marks_[i] == Mark::nothing) {
        CHECK(std::memcmp(now + i * each, before_.data() + i * each, each) == 0,
              "%s: element %lld was written", what, at);
      } else if (marks_[i] == Mark::may) {
        CHECK(tested_.type() != Type::bfloat16 || std::isfinite(x),
              "%s: padding %lld is no number", what, at);
      } else {
        const double expected = twin_.get(i), most = tolerance(at, expected);
        CHECK(std::abs(x - expected) <= most, "%s: element %lld is %.9g, not %.9g (within %.3g)",
              what, at, x, expected, most);
      }
    }
  }

 private:
  static constexpr int64_t kGuard = 256;
  enum class Mark : uint8_t { nothing, may, must };

  std::vector<uint8_t> copy() {
    return std::vector<uint8_t>(tested_.own(), tested_.own(tested_.count()));
  }

  Numbers tested_, twin_;
  std::vector<Mark> marks_;
  std::vector<uint8_t> before_;
};

}  // namespace mobilenet

#endif
