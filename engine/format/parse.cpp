#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "format.h"
#include "message.h"
#include "steps.h"

namespace mobilenet {
namespace {

using ull = unsigned long long;

constexpr uint32_t kUnsupportedResize = kNone;  // pictures are prepared by another rule

bool check_header(const uint8_t* bytes, size_t size, std::string* error) {
  const auto& header = *reinterpret_cast<const FileHeader*>(bytes);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    return fail(error, "not a model file of the engine: it does not begin with MBNET");
  if (header.version != kVersion)
    return fail(error, "version %u: this engine reads version %u; export the model again",
                header.version, kVersion);
  if (header.file_bytes != size)
    return fail(error, "%llu bytes, but %llu were written: truncated or damaged",
                static_cast<ull>(size), static_cast<ull>(header.file_bytes));
  const uint64_t sum = file_checksum(bytes, size);
  if (sum != header.checksum)
    return fail(error, "checksum %016llx: expected %016llx; the file is damaged",
                static_cast<ull>(sum), static_cast<ull>(header.checksum));
  if (header.precision > static_cast<uint32_t>(Precision::int8))
    return fail(error, "precision %u: expected 0 to 2", header.precision);
  if (header.step_count < 1 || header.step_count > kMaxSteps)
    return fail(error, "%u steps: expected 1 to %u", header.step_count, kMaxSteps);
  if (header.output_count < 1 || header.output_count > kMaxSteps)
    return fail(error, "%u outputs: expected 1 to %u", header.output_count, kMaxSteps);
  if (header.height < 1 || header.height > kMaxSide || header.width < 1 || header.width > kMaxSide)
    return fail(error, "made for %u x %u pixels: expected 1 to %u each way", header.height,
                header.width, kMaxSide);
  const bool int8 = header.precision == static_cast<uint32_t>(Precision::int8);
  if (header.wide > (int8 ? kWideMaps : 0))
    return fail(error, "wide %u: expected %s", header.wide, int8 ? "0 to 2" : "0");
  if (int8 && !check_range("input range", header.in_range, header.wide != 0, error)) return false;
  for (uint32_t zero : header.reserved)
    if (zero != 0) return fail(error, "reserved fields of the header are used");
  return true;
}

bool check_preprocessing(const FileHeader& header, std::string* error) {
  for (float mean : header.mean)
    if (!std::isfinite(mean)) return fail(error, "mean %g: expected a finite number", mean);
  for (float std : header.std)
    if (!std::isfinite(std) || std <= 0)
      return fail(error, "std %g: expected a finite number above 0", std);
  if (header.resize > kMaxSide && header.resize != kUnsupportedResize)
    return fail(error, "resize to %u pixels: expected at most %u", header.resize, kMaxSide);
  if (header.filter > 1)
    return fail(error, "filter %u: expected 0 (bilinear) or 1 (bicubic)", header.filter);
  return true;
}

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(const uint8_t* p, const uint8_t* end) {
  while (p < end) {
    const uint8_t lead = *p++;
    if (lead < 0x80) continue;
    const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || end - p < more) return false;
    const uint8_t least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (*p < least || *p > most) return false;
    for (int i = 1; i < more; ++i)
      if (p[i] < 0x80 || p[i] > 0xbf) return false;
    p += more;
  }
  return true;
}

bool check_text(const File& file, const char* what, uint64_t offset, uint64_t bytes,
                Layout* layout, std::string* error) {
  if (bytes == 0) return fail(error, "%s: 0 bytes", what);
  if (!layout->add({Array::kNoStep, what, ""}, offset, bytes, error)) return false;
  const uint8_t* begin = file.bytes + offset;
  if (begin[bytes - 1] != 0) return fail(error, "%s: does not end with a NUL", what);
  return is_utf8(begin, begin + bytes) || fail(error, "%s: not UTF-8", what);
}

bool check_labels(const File& file, std::string* error) {
  const FileHeader& header = *file.header;
  if (header.label_count == 0) return true;
  if (header.label_count > kMaxChannels)
    return fail(error, "%u labels: expected at most %u", header.label_count, kMaxChannels);
  const char* label = reinterpret_cast<const char*>(file.bytes + header.text);
  const char* end = label + header.text_bytes;
  if (header.labels >= header.text_bytes)
    return fail(error, "labels: offset %u of a text of %llu bytes", header.labels,
                static_cast<ull>(header.text_bytes));
  label += header.labels;
  for (uint32_t i = 0; i < header.label_count; ++i) {
    if (label >= end)
      return fail(error, "%u labels, but the text holds only %u", header.label_count, i);
    label += std::strlen(label) + 1;
  }
  return true;
}

bool check_outputs(const File& file, std::string* error) {
  const FileHeader& header = *file.header;
  std::vector<std::string> names;
  for (uint32_t i = 0; i < header.output_count; ++i) {
    const OutputRecord& output = file.outputs[i];
    if (output.value < 1 || output.value > header.step_count)
      return fail(error, "output %u: value %u: expected 1 to %u", i, output.value,
                  header.step_count);
    if (output.name >= header.text_bytes)
      return fail(error, "output %u: name at %u of a text of %llu bytes", i, output.name,
                  static_cast<ull>(header.text_bytes));
    // names may begin within one another: bounded, or a small file could hold gigabytes of them
    constexpr size_t longest = 255;
    const char* name = file.name(i);
    const size_t left = header.text_bytes - output.name;
    const auto* end = static_cast<const char*>(std::memchr(name, 0, std::min(left, longest + 1)));
    if (!end || end == name)
      return fail(error, "output %u: a name of 1 to %zu bytes is expected", i, longest);
    names.emplace_back(name, end);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  return twice == names.end() || fail(error, "two outputs are named %.80s", twice->c_str());
}

}  // namespace

bool parse(const uint8_t* bytes, size_t size, File* file, std::string* error) {
  if (size < sizeof(FileHeader))
    return fail(error, "%llu bytes are too few for a model file", static_cast<ull>(size));
  if (reinterpret_cast<uintptr_t>(bytes) % kAlign != 0)
    return fail(error, "the file's bytes are not %zu-byte aligned in memory", kAlign);
  if (!check_header(bytes, size, error)) return false;
  File found;
  found.bytes = bytes;
  found.header = reinterpret_cast<const FileHeader*>(bytes);
  const FileHeader& header = *found.header;
  const uint64_t outputs = sizeof header + uint64_t{header.step_count} * sizeof(StepRecord);
  const uint64_t tables = outputs + uint64_t{header.output_count} * sizeof(OutputRecord);
  if (tables > size)
    return fail(error, "%u steps and %u outputs run past the end of the file (%llu bytes)",
                header.step_count, header.output_count, static_cast<ull>(size));
  found.steps = reinterpret_cast<const StepRecord*>(bytes + sizeof header);
  found.outputs = reinterpret_cast<const OutputRecord*>(bytes + outputs);

  Layout layout(tables, size);
  if (!check_preprocessing(header, error)) return false;
  if (!check_text(found, "text", header.text, header.text_bytes, &layout, error)) return false;
  if ((header.contract || header.contract_bytes) &&
      !check_text(found, "contract", header.contract, header.contract_bytes, &layout, error))
    return false;
  if (!check_labels(found, error) || !check_outputs(found, error) ||
      !check_steps(found, &layout, error) || !layout.disjoint(error))
    return false;
  *file = found;
  return true;
}

}  // namespace mobilenet
