#include "layout.h"

#include <algorithm>

#include "format.h"
#include "message.h"

namespace mobilenet {
namespace {

using ull = unsigned long long;

std::string name(const Array& array) {
  const std::string name = std::string(array.filter) + array.part;
  return array.step == Array::kNoStep ? name : "step " + std::to_string(array.step) + ": " + name;
}

}  // namespace

bool Layout::add(const Array& array, uint64_t offset, uint64_t bytes, std::string* error) {
  const char* filter = array.filter;
  const char* part = array.part;
  if (offset % kAlign != 0)
    return fail(error, "%s%s: offset %llu is not a multiple of %zu", filter, part,
                static_cast<ull>(offset), kAlign);
  if (offset < begin_)
    return fail(error, "%s%s: offset %llu lies before the end of the tables (%llu)", filter, part,
                static_cast<ull>(offset), static_cast<ull>(begin_));
  if (offset > end_ || bytes > end_ - offset)
    return fail(error, "%s%s: offset %llu + %llu bytes runs past the end of the file (%llu bytes)",
                filter, part, static_cast<ull>(offset), static_cast<ull>(bytes),
                static_cast<ull>(end_));
  places_.push_back({offset, offset + bytes, array});
  return true;
}

bool Layout::disjoint(std::string* error) {
  std::sort(places_.begin(), places_.end(),
            [](const Place& a, const Place& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < places_.size(); ++i) {
    const Place &before = places_[i - 1], &here = places_[i];
    if (here.begin < before.end)
      return fail(error, "%s (from %llu) overlaps %s (to %llu)", name(here.array).c_str(),
                  static_cast<ull>(here.begin), name(before.array).c_str(),
                  static_cast<ull>(before.end));
  }
  return true;
}

}  // namespace mobilenet
