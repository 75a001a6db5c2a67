// Predict with the model in this folder, by OpenVINO: predict FOLDER picture.ppm ...
//
// Written for this model: the resize, the crop and the normalisation are those of its model.json, by
// the arithmetic of Pillow's antialiased resize, to the bit. Pictures are binary PPM (convert
// picture.jpg -auto-orient picture.ppm); prints five labels of each with their scores.
//
//   c++ -std=c++17 -O2 predict.cpp -I OPENVINO/include -L OPENVINO/lib -lopenvino -o predict
//
// (pip's openvino: the folder of the package, its libs, and -l:libopenvino.so.VERSION)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

namespace {

const std::string kFile = @FILE@;
const std::string kInput = @INPUT@;
constexpr int kSize = @SIZE@;               // pixels of the network's square input
constexpr int kShorter = @SHORTER@;            // the shorter side before the crop; 0: none
constexpr double kFraction = @FRACTION@;       // of each side that is cut out before; 1: all
constexpr bool kBicubic = @BICUBIC@;       // else bilinear
constexpr float kMean[] = {@MEAN@};
constexpr float kStd[] = {@STD@};
const std::vector<std::string> kLabels = {
@LABELS@
};

struct Picture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int largest = 0;
  Picture picture;
  file >> magic >> picture.width >> picture.height >> largest;
  file.get();
  if (magic != "P6" || largest != 255 || picture.width < 1 || picture.height < 1)
    throw std::runtime_error(path + ": not a binary PPM of 8 bits");
  picture.rgb.resize(size_t{3} * picture.width * picture.height);
  file.read(reinterpret_cast<char*>(picture.rgb.data()),
            static_cast<std::streamsize>(picture.rgb.size()));
  if (!file) throw std::runtime_error(path + ": cut short");
  return picture;
}

double weight_at(double x) {
  x = std::fabs(x);
  if (!kBicubic) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// One axis: `lines` lines of `from` pixels become lines of `to`. A pixel of a line is `step` numbers
// behind the one before it, a line `line` numbers behind the one before.
struct Axis {
  int from, to, lines;
  size_t step, line, out_step, out_line;
};

std::vector<uint8_t> along(const std::vector<uint8_t>& in, const Axis& axis) {
  constexpr int kBits = 22;
  const double scale = static_cast<double>(axis.from) / axis.to, stretch = std::max(scale, 1.0);
  const double support = (kBicubic ? 2 : 1) * stretch;
  std::vector<uint8_t> out(size_t{3} * axis.lines * axis.to);
  std::vector<double> exact;
  for (int i = 0; i < axis.to; ++i) {
    const double middle = (i + 0.5) * scale;
    const int start = std::max(static_cast<int>(middle - support + 0.5), 0);
    const int end = std::min(static_cast<int>(middle + support + 0.5), axis.from);
    exact.clear();
    for (int k = start; k < end; ++k) exact.push_back(weight_at((k - middle + 0.5) / stretch));
    const double sum = std::accumulate(exact.begin(), exact.end(), 0.0);
    for (int y = 0; y < axis.lines; ++y)
      for (int c = 0; c < 3; ++c) {
        int32_t total = 1 << (kBits - 1);
        for (int k = start; k < end; ++k) {
          const double w = exact[k - start] / sum * (1 << kBits);
          total += in[y * axis.line + k * axis.step + c] *
                   static_cast<int32_t>(w < 0 ? w - 0.5 : w + 0.5);
        }
        out[y * axis.out_line + i * axis.out_step + c] =
            static_cast<uint8_t>(std::clamp(total >> kBits, 0, 255));
      }
  }
  return out;
}

Picture resize(const Picture& from, int width, int height) {
  Picture now = from;
  auto rows = [&] {
    const size_t line = size_t{3} * now.width, out = size_t{3} * width;
    now = {width, now.height,
           along(now.rgb, {now.width, width, now.height, 3, line, 3, out})};
  };
  auto columns = [&] {
    const size_t line = size_t{3} * now.width;
    now = {now.width, height, along(now.rgb, {now.height, height, now.width, line, 3, line, 3})};
  };
  // Pillow, from version 13 on, starts along the columns where the height shrinks by far the most
  const int64_t lower = from.height - height, narrower = from.width - width;
  if (lower <= 0 || lower <= 2 * narrower) {
    rows();
    columns();
  } else {
    columns();
    rows();
  }
  return now;
}

Picture cut(const Picture& from, int left, int top, int width, int height) {  // black outside
  Picture found{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
  for (int y = std::max(0, -top); y < height && y + top < from.height; ++y)
    for (int x = std::max(0, -left); x < width && x + left < from.width; ++x)
      std::copy_n(&from.rgb[3 * (size_t(y + top) * from.width + x + left)], 3,
                  &found.rgb[3 * (size_t(y) * width + x)]);
  return found;
}

int centre(int length) {
  if (length < kSize) return -((kSize - length) / 2);
  const int half = (length - kSize) / 2;
  return half + ((length - kSize) % 2 && half % 2);  // round half to even
}

std::vector<float> prepare(const Picture& picture) {
  Picture found = picture;
  if (kShorter == 0) {
    const int left = static_cast<int>((picture.width - picture.width * kFraction) / 2);
    const int top = static_cast<int>((picture.height - picture.height * kFraction) / 2);
    found = cut(picture, left, top, picture.width - 2 * left, picture.height - 2 * top);
    found = resize(found, kSize, kSize);
  } else {
    const bool tall = picture.width <= picture.height;
    const int64_t longer = tall ? picture.height : picture.width;
    const int64_t shorter = tall ? picture.width : picture.height;
    const int other = static_cast<int>(static_cast<double>(kShorter * longer) /
                                       static_cast<double>(shorter));
    found = tall ? resize(picture, kShorter, other) : resize(picture, other, kShorter);
    found = cut(found, centre(found.width), centre(found.height), kSize, kSize);
  }
  std::vector<float> image(size_t{3} * kSize * kSize);
  for (int i = 0; i < kSize * kSize; ++i)
    for (int c = 0; c < 3; ++c)
      image[size_t(c) * kSize * kSize + i] = (found.rgb[3 * i + c] / 255.0f - kMean[c]) / kStd[c];
  return image;
}

}  // namespace

int main(int count, char** words) try {
  if (count < 3) return std::cerr << "usage: predict FOLDER picture.ppm ...\n", 2;
  ov::Core core;
  auto model = core.read_model(words[1] + ("/" + kFile));
  model->reshape({{kInput, ov::PartialShape{1, 3, kSize, kSize}}});
  // else bfloat16 on machines that have it
  auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
  auto request = compiled.create_infer_request();
  for (int i = 2; i < count; ++i) {
    std::vector<float> image = prepare(read_ppm(words[i]));
    request.set_tensor(kInput, ov::Tensor(ov::element::f32, {1, 3, kSize, kSize}, image.data()));
    request.infer();
    const float* logits = request.get_output_tensor().data<float>();
    std::vector<size_t> order(kLabels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double sum = 0;
    for (size_t k : order) sum += std::exp(double{logits[k]} - logits[order[0]]);
    for (size_t k = 0; k < std::min<size_t>(5, order.size()); ++k)
      std::printf("%7.3f %%  %s\n",
                  100 * std::exp(double{logits[order[k]]} - logits[order[0]]) / sum,
                  kLabels[order[k]].c_str());
  }
  return 0;
} catch (const std::exception& error) {
  return std::cerr << error.what() << '\n', 1;
}
