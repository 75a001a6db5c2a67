// The places of a file that are taken: every array is aligned, inside the file, behind the tables,
// and alone where it is.
#ifndef MOBILENET_LAYOUT_H
#define MOBILENET_LAYOUT_H

#include <cstdint>
#include <string>
#include <vector>

namespace mobilenet {

// An array by its name: {7, "expand", " weights"}, or {kNoStep, "text", ""}.
struct Array {
  static constexpr uint32_t kNoStep = 0xffffffffu;
  uint32_t step;
  const char* filter;
  const char* part;
};

class Layout {
 public:
  Layout(uint64_t begin, uint64_t end) : begin_(begin), end_(end) {}

  bool add(const Array& array, uint64_t offset, uint64_t bytes, std::string* error);
  bool disjoint(std::string* error);  // of all that was added

 private:
  struct Place {
    uint64_t begin, end;
    Array array;
  };
  uint64_t begin_, end_;
  std::vector<Place> places_;
};

}  // namespace mobilenet

#endif
