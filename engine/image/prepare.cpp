// The antialiased resize is Pillow's: for each output pixel the filter, stretched by the scale, is
// sampled at the input pixels that it covers; the samples are normalised, rounded to 22 bits, and
// the weighted sums rounded to 8 bits, along one axis, then along the other. Only what the crop
// keeps is computed:
//
//   rgb (h x w) --along rows--> kept columns of the rows that are needed --along columns--> kept
#include "prepare.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace mobilenet {
namespace {

constexpr int kBits = 22;
constexpr int kColours = 3;
constexpr int64_t kMaxPixels = 89478485;  // of a resized picture; preprocess.MAX_PIXELS

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;
template <class T>
Array<T> allocate(size_t count) {
  return Array<T>(static_cast<T*>(std::malloc(std::max<size_t>(count * sizeof(T), 1))));
}

struct Filter {
  double support;
  double (*at)(double x);
};

double bilinear(double x) {
  x = std::fabs(x);
  return x < 1 ? 1 - x : 0;
}

double bicubic(double x) {
  constexpr double a = -0.5;  // Keys' cubic
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// One axis: `size` input pixels, of which the span from `begin` to `end` becomes `resized` output
// pixels; `count` of these are kept, from `first` on, and written behind `padding` black ones.
struct Axis {
  int size;
  float begin, end;
  int resized, first, count, padding;

  int first_input = 0, last_input = 0;  // what the kept pixels are made of, the last excluded
  int most = 0;                         // inputs of one output, at most
  Array<int> starts, counts;            // [count]
  Array<int32_t> weights;               // [count][most]
};

int64_t centre(int64_t length, int64_t size) {
  if (length < size) return -((size - length) / 2);
  const int64_t half = (length - size) / 2;
  return half + ((length - size) % 2 && half % 2);  // round half to even
}

// The axis of a resize to `resized` pixels whose central `out` are kept.
Axis cropped(int size, int64_t resized, int out, bool partly) {
  const int64_t left = centre(resized, out);
  const int64_t first = std::max<int64_t>(left, 0);
  const int64_t past = std::min<int64_t>(left + out, resized);
  Axis axis{};
  axis.size = size;
  axis.count = static_cast<int>(past - first);
  axis.padding = static_cast<int>(first - left);
  if (partly) {  // a picture of which all resized would be too large
    const double scale = size / static_cast<double>(resized);
    axis.begin = static_cast<float>(static_cast<double>(first) * scale);
    axis.end = static_cast<float>(static_cast<double>(past) * scale);
    axis.resized = axis.count;
  } else {
    axis.end = static_cast<float>(size);
    axis.resized = static_cast<int>(resized);
    axis.first = static_cast<int>(first);
  }
  return axis;
}

bool weigh(const Filter& filter, Axis* axis) {
  const double scale = static_cast<double>(axis->end - axis->begin) / axis->resized;
  const double stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch;
  const double per_pixel = 1.0 / stretch;
  axis->most = static_cast<int>(std::ceil(support)) * 2 + 1;
  const auto count = static_cast<size_t>(axis->count), most = static_cast<size_t>(axis->most);
  axis->starts = allocate<int>(count);
  axis->counts = allocate<int>(count);
  axis->weights = allocate<int32_t>(count * most);
  const Array<double> exact = allocate<double>(most);
  if (!axis->starts || !axis->counts || !axis->weights || !exact) return false;
  axis->first_input = axis->size;
  for (int i = 0; i < axis->count; i++) {
    const double middle = axis->begin + (axis->first + i + 0.5) * scale;
    const int start = std::max(static_cast<int>(middle - support + 0.5), 0);
    const int inputs = std::min(static_cast<int>(middle + support + 0.5), axis->size) - start;
    double sum = 0;
    for (int k = 0; k < inputs; k++) {
      exact[k] = filter.at((k + start - middle + 0.5) * per_pixel);
      sum += exact[k];
    }
    int32_t* weights = &axis->weights[static_cast<size_t>(i) * most];
    for (int k = 0; k < inputs; k++) {
      const double weight = (sum != 0 ? exact[k] / sum : exact[k]) * (1 << kBits);
      weights[k] = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    axis->starts[i] = start;
    axis->counts[i] = inputs;
    axis->first_input = std::min(axis->first_input, start);
    axis->last_input = std::max(axis->last_input, start + inputs);
  }
  return true;
}

uint8_t rounded(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255));
}

constexpr int32_t kHalf = 1 << (kBits - 1);

// The kept columns of one row, whose first pixel is input pixel `offset`.
void along_row(const uint8_t* row, int offset, const Axis& columns, uint8_t* out) {
  for (int x = 0; x < columns.count; x++, out += kColours) {
    const int32_t* weights = &columns.weights[static_cast<size_t>(x) * columns.most];
    const uint8_t* pixel = row + static_cast<size_t>(columns.starts[x] - offset) * kColours;
    int32_t red = kHalf, green = kHalf, blue = kHalf;
    for (int k = 0; k < columns.counts[x]; k++, pixel += kColours) {
      red += pixel[0] * weights[k];
      green += pixel[1] * weights[k];
      blue += pixel[2] * weights[k];
    }
    out[0] = rounded(red);
    out[1] = rounded(green);
    out[2] = rounded(blue);
  }
}

// Kept row `y` of rows of `line` numbers that lie `stride` apart, the first being input row
// `offset`.
void across_rows(const uint8_t* from, size_t stride, int offset, const Axis& rows, int y,
                 size_t line, int32_t* sums, uint8_t* out) {
  const int32_t* weights = &rows.weights[static_cast<size_t>(y) * rows.most];
  from += static_cast<size_t>(rows.starts[y] - offset) * stride;
  std::fill_n(sums, line, kHalf);
  for (int k = 0; k < rows.counts[y]; k++, from += stride)
    for (size_t i = 0; i < line; i++) sums[i] += from[i] * weights[k];
  for (size_t i = 0; i < line; i++) out[i] = rounded(sums[i]);
}

}  // namespace

bool prepare(const uint8_t* rgb, int h, int w, int resize, int filter, int out_h, int out_w,
             const float mean[3], const float std[3], float* out) {
  int64_t wide = out_w, high = out_h;
  if (resize > 0) {
    wide = high = resize;
    // the quotients as Python's, in double
    if (w <= h)
      high = static_cast<int64_t>(static_cast<double>(int64_t{resize} * h) / w);
    else
      wide = static_cast<int64_t>(static_cast<double>(int64_t{resize} * w) / h);
  }
  const bool partly = resize > 0 && static_cast<double>(wide) * static_cast<double>(high) >
                                        static_cast<double>(kMaxPixels);
  Axis columns = cropped(w, wide, out_w, partly);
  Axis rows = cropped(h, high, out_h, partly);
  const Filter chosen = filter ? Filter{2, bicubic} : Filter{1, bilinear};
  if (!weigh(chosen, &columns) || !weigh(chosen, &rows)) return false;

  // Pillow, from version 13 on, starts along the columns where the height shrinks by far the most
  const int64_t lower = int64_t{h} - rows.resized, narrower = int64_t{w} - columns.resized;
  const bool rows_first = lower <= 0 || lower <= 2 * narrower;

  const size_t line = static_cast<size_t>(columns.count) * kColours;
  const size_t source = static_cast<size_t>(w) * kColours;
  const size_t inputs = static_cast<size_t>(rows.last_input - rows.first_input);
  const size_t span = static_cast<size_t>(columns.last_input - columns.first_input) * kColours;
  const Array<uint8_t> between = allocate<uint8_t>(rows_first ? inputs * line : span);
  const Array<int32_t> sums = allocate<int32_t>(std::max(line, span));
  const Array<uint8_t> kept = allocate<uint8_t>(line);
  if (!between || !sums || !kept) return false;
  if (rows_first)
    for (size_t y = 0; y < inputs; y++)
      along_row(rgb + (y + static_cast<size_t>(rows.first_input)) * source, 0, columns,
                &between[y * line]);

  float values[kColours][256];
  for (int c = 0; c < kColours; c++)
    for (int v = 0; v < 256; v++)
      values[c][v] = (static_cast<float>(v) / 255.0f - mean[c]) / std[c];

  const size_t plane = static_cast<size_t>(out_h) * out_w;
  if (columns.count < out_w || rows.count < out_h)
    for (int c = 0; c < kColours; c++) std::fill_n(out + c * plane, plane, values[c][0]);
  for (int y = 0; y < rows.count; y++) {
    if (rows_first) {
      across_rows(between.get(), line, rows.first_input, rows, y, line, sums.get(), kept.get());
    } else {
      across_rows(rgb + static_cast<size_t>(columns.first_input) * kColours, source, 0, rows, y,
                  span, sums.get(), between.get());
      along_row(between.get(), columns.first_input, columns, kept.get());
    }
    float* to = out + static_cast<size_t>(y + rows.padding) * out_w + columns.padding;
    for (int x = 0; x < columns.count; x++)
      for (int c = 0; c < kColours; c++)
        to[c * plane + x] = values[c][kept[static_cast<size_t>(x) * kColours + c]];
  }
  return true;
}

}  // namespace mobilenet
