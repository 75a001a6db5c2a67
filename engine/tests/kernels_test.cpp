// Every kernel of every usable instruction set against its plain twin (kernels/scalar), on random
// shapes with ragged edges.
//
//   kernels_test [CASES [SEED [ISA]]]     cases of each kernel; only this set and not those below
//
// int8 agrees to the bit. float32 may differ by 1e-5 of the sum of the magnitudes, for sums are
// taken in another order. bfloat16 has float32's twin on the same numbers: products of two
// bfloat16 are exact in float32, so that sums are as near as in float32, and what is stored as
// bfloat16 is rounded once, by at most 2^-8 of its value.
#include <cstdio>
#include <set>
#include <string>

#include "../dispatch/dispatch.h"
#include "numbers.h"

namespace mobilenet {
namespace {

constexpr int64_t kSlack = kAlign;  // bytes that may be read behind a map
constexpr double kSumError = 1e-5, kHalfError = 1.0 / 256;

int up(int x, int unit) { return (x + unit - 1) / unit * unit; }

// One arithmetic of one instruction set.
struct Subject {
  const char* table;
  Precision precision;
  const Arithmetic& tested;
  const Arithmetic& twin;
  Random& random;

  bool int8() const { return precision == Precision::int8; }
  bool half() const { return precision == Precision::bfloat16; }
  // int8 with ten bits in its maps
  bool maps() const { return int8() && twin.map_bytes == bytes_of(Type::tens); }
  // the largest number of a map
  int most() const { return maps() ? kLargestWide : kLargest; }
  Type map() const {
    if (half()) return Type::bfloat16;
    if (!int8()) return Type::float32;
    if (maps()) return Type::tens;
    return tested.map_bytes == bytes_of(Type::bytes) ? Type::bytes : Type::words;
  }
  Type sum() const { return int8() ? Type::whole : Type::float32; }
  Type type(Store store) const { return store == Store::map ? map() : Type::float32; }

  const char* precision_name() const {
    if (maps()) return "int8 with wide maps";
    return int8() ? "int8" : half() ? "bfloat16" : "float32";
  }
  std::string title(const char* kernel) const {
    return std::string(table) + " " + precision_name() + " " + kernel;
  }

  // A block that a map of so many channels can have.
  int block(int channels) const {
    int block = kBlock;
    while (block < tested.map_block && (block < channels || random.coin())) block *= 2;
    return block;
  }
  Layout layout(int channels, int pixels) const {
    const int wide = block(channels);
    return {channels, wide, static_cast<int64_t>(pixels + random.whole(0, 5)) * wide};
  }
  double number() const { return int8() ? random.whole(0, most()) : random.real(-2, 2); }
  double bias() const { return int8() ? random.whole(-20000, 20000) : random.real(-2, 2); }
  float multiplier(int inputs) const {
    return random.real(0.5f, 2) / (std::sqrt(static_cast<float>(inputs)) * 100);
  }

  Rounding rounding(Activation activation, Store store) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const bool at_zero = activation == Activation::relu || activation == Activation::relu6;
    Rounding r;
    r.activation = activation;
    if (!int8() || store == Store::float32) {
      r.low = at_zero ? 0 : -kInfinity;
      r.high = activation == Activation::relu6 ? 6 : kInfinity;
      r.after = 1.f / 6;
    } else {
      const float scale = random.real(0.01f, 0.1f);
      const int largest = store == Store::ring && random.coin() ? kLargestWide : most();
      r.zero = random.whole(0, largest);
      r.low = at_zero ? 0 : static_cast<float>(-r.zero);
      r.high = static_cast<float>(largest - r.zero);
      if (activation == Activation::relu6) r.high = std::min(r.high, std::nearbyint(6 / scale));
      r.after = 1 / (6 * scale);
    }
    return r;
  }

  // Compares, with the twin's sums of magnitudes where numbers are not exact.
  void compare(Output& out, const std::string& what, const float* magnitudes,
               bool is_map = true) const {
    out.compare(what.c_str(), [&](int64_t at, double expected) {
      if (int8()) return 0.0;
      const double sum = kSumError * (magnitudes ? magnitudes[at] : std::abs(expected));
      return half() && is_map ? sum + (std::abs(expected) + sum) * kHalfError : sum;
    });
  }
};

// A map of random numbers; what no channel fills may be anything that is a number.
Numbers random_map(const Subject& s, const Layout& layout, int pixels) {
  Numbers map(s.map(), layout.count(), kSlack);
  for (int64_t i = 0; i < map.count(); ++i) map.spoil(i, s.random);
  for (int pixel = 0; pixel < pixels; ++pixel)
    for (int c = 0; c < layout.blocks() * layout.block; ++c)
      if (c < layout.channels || !(s.precision == Precision::float32))
        map.set(layout.at(pixel, c), s.number());
  return map;
}

// Panels of a matrix [outputs][inputs] in the type of the network, and of float32 for the twin.
struct Matrix {
  int64_t panel, plain_panel;
  Numbers own, plain;
  std::vector<int32_t> sums;  // of the weights of an output

  Matrix(const Subject& s, int outputs, int inputs)
      : panel(static_cast<int64_t>(up(inputs, s.int8() ? 64 : s.half() ? 32 : 1)) * kBlock),
        plain_panel(s.half() ? static_cast<int64_t>(inputs) * kBlock : panel),
        own(s.int8() ? Type::bytes : s.map(), up(outputs, kBlock) / kBlock * panel),
        plain(s.int8() ? Type::bytes : Type::float32, up(outputs, kBlock) / kBlock * plain_panel),
        sums(up(outputs, kBlock)) {
    const int group = s.int8() ? 4 : s.half() ? 2 : 1;
    for (int n = 0; n < outputs; ++n)
      for (int k = 0; k < inputs; ++k) {
        const int64_t lane = n % kBlock;
        const int64_t at =
            n / kBlock * panel + k / group * group * kBlock + lane * group + k % group;
        const int whole = s.random.whole(-127, 127);
        own.set(at, s.int8() ? whole & 255 : s.random.real(-1, 1));
        sums[n] += whole;
        plain.set(s.int8() ? at : n / kBlock * plain_panel + k * kBlock + lane, own.get(at));
      }
  }
};

// Places of pixels in a block of a ring: not all of them, in any order.
struct Places {
  std::vector<int32_t> at;
  int slots;

  Places(Random& random, int pixels) : slots(pixels + random.whole(0, 9)) {
    for (int i = 0; i < slots; ++i) at.push_back(i * kBlock);
    for (int i = slots - 1; i > 0 && slots % 2; --i) std::swap(at[i], at[random.whole(0, i)]);
    at.resize(pixels);
  }
};

void pointwise(const Subject& s) {
  Random& random = s.random;
  const bool small = random.whole(0, 4) == 0;
  const int inputs = random.whole(1, random.coin() ? 40 : 200);
  const int outputs = random.whole(1, small ? 40 : 200);
  const int pixels = random.whole(0, 5) == 0 ? 1 : random.whole(1, small ? 12 : 70);
  const int skipped = random.whole(0, 2);  // panels in front of these outputs
  const auto store = random.one_of({Store::map, Store::ring, Store::float32});
  auto activation = random.one_of({Activation::none, Activation::relu, Activation::relu6,
                                   Activation::hard_swish, Activation::hard_sigmoid});
  const bool add = store != Store::ring && random.coin();
  if (add) activation = Activation::none;
  const std::string what =
      s.title("pointwise") + ": " + std::to_string(inputs) + " to " + std::to_string(outputs) +
      " channels, " + std::to_string(pixels) + " pixels, store " +
      std::to_string(static_cast<int>(store)) + ", activation " +
      std::to_string(static_cast<int>(activation));

  const bool vector = pixels == 1 && random.coin();  // channels that lie one after another
  const int before = vector ? 0 : random.whole(0, 3);  // pixels in front of these
  Layout in_layout = s.layout(inputs, before + pixels);
  if (vector) in_layout.plane = in_layout.block;
  Numbers in = random_map(s, in_layout, before + pixels);
  const int all = skipped * kBlock + outputs;
  Matrix matrix(s, all, inputs);
  Numbers bias(s.sum(), up(all, kBlock)), twin_bias(s.sum(), up(all, kBlock));
  Numbers multiplier(Type::float32, up(all, kBlock));
  for (int n = 0; n < all; ++n) {
    bias.set(n, s.bias());
    // int8 kernels may see q - shift; the planner's bias allows for it
    twin_bias.set(n, bias.get(n) - (s.int8() ? s.tested.shift * matrix.sums[n] : 0));
    multiplier.set(n, s.multiplier(inputs));
  }

  Pointwise g{};
  g.in = in.own(before * in_layout.block);
  g.in_plane = in_layout.plane;
  g.in_block = in_layout.block;
  g.inputs = inputs;
  g.weights = matrix.own.own(skipped * matrix.panel);
  g.panel = matrix.panel * bytes_of(matrix.own.type());
  g.bias = bias.own(skipped * kBlock);
  g.multiplier = s.int8() ? multiplier.floats(skipped * kBlock) : nullptr;
  g.outputs = outputs;
  g.pixels = pixels;
  g.store = store;
  g.rounding = s.rounding(activation, store);

  const Places places(random, pixels), from(random, pixels);
  const bool scattered = store == Store::ring && random.whole(0, 3);
  Layout layout = s.layout(outputs, pixels);
  if (store != Store::map) layout.block = kBlock;
  if (store != Store::map) layout.plane = static_cast<int64_t>(places.slots) * kBlock;
  Output out(s.type(store), layout.count(), random);
  auto element = [&](int pixel, int n) {
    return scattered ? n / kBlock * layout.plane + places.at[pixel] + n % kBlock
                     : layout.at(pixel, n);
  };
  for (int pixel = 0; pixel < pixels; ++pixel)
    for (int n = 0; n < up(outputs, layout.block); ++n)
      n < outputs ? out.must(element(pixel, n)) : out.may(element(pixel, n));
  g.out = out.tested();
  g.out_plane = layout.plane;
  g.out_block = layout.block;
  g.out_at = scattered ? places.at.data() : nullptr;

  const bool of_ring = random.coin();
  Layout added = s.layout(outputs, pixels);
  if (store == Store::map && !of_ring) added.block = layout.block;
  added.plane = static_cast<int64_t>(pixels + 3) * added.block;
  if (of_ring) added = {outputs, kBlock, static_cast<int64_t>(from.slots) * kBlock};
  Numbers residual(of_ring ? Type::float32 : s.map(), added.count(), kSlack);
  for (int64_t i = 0; i < residual.count(); ++i)
    residual.set(i, s.int8() && of_ring ? random.whole(-s.most(), s.most()) : s.number());
  if (add) {
    g.residual = residual.own();
    g.residual_plane = added.plane;
    g.residual_block = added.block;
    g.residual_at = of_ring ? from.at.data() : nullptr;
    g.residual_scale = random.real(0.1f, 2);
    g.residual_zero = random.whole(0, s.most());
  }

  // the sums take the residual's place
  const bool in_place = add && !of_ring && store == Store::map && random.coin();
  if (in_place) {
    const int bytes = bytes_of(residual.type());
    for (int pixel = 0; pixel < pixels; ++pixel)
      for (int n = 0; n < up(outputs, layout.block); ++n)
        std::memcpy(static_cast<uint8_t*>(g.out) + layout.at(pixel, n) * bytes,
                    static_cast<const uint8_t*>(residual.own()) + added.at(pixel, n) * bytes,
                    bytes);
    g.residual = g.out;
    g.residual_plane = g.out_plane;
  }

  Pointwise twin = g;
  twin.in = in.plain(before * in_layout.block);
  twin.weights = matrix.plain.own(skipped * matrix.plain_panel);
  twin.panel = matrix.plain_panel * bytes_of(matrix.plain.type());
  twin.bias = twin_bias.own(skipped * kBlock);
  twin.out = out.twin();
  if (add) twin.residual = residual.plain();
  if (in_place) twin.residual_plane = added.plane;
  s.twin.pointwise(twin);

  std::vector<float> magnitudes;
  if (!s.int8()) {
    const auto in_size = in.magnitudes(), matrix_size = matrix.plain.magnitudes();
    const auto bias_size = bias.magnitudes(), residual_size = residual.magnitudes();
    magnitudes.resize(layout.count());
    twin.in = in_size.data() + before * in_layout.block;
    twin.weights = matrix_size.data() + skipped * matrix.plain_panel;
    twin.bias = bias_size.data() + skipped * kBlock;
    if (add) twin.residual = residual_size.data();
    twin.out = magnitudes.data();
    twin.rounding = s.rounding(Activation::none, store);
    s.twin.pointwise(twin);
  }
  s.tested.pointwise(g);
  s.compare(out, what, magnitudes.data(), store == Store::map);
}

void depthwise(const Subject& s) {
  Random& random = s.random;
  Depthwise g{};
  g.kernel = random.one_of({1, 3, 3, 5, 5, 7});
  g.stride = random.one_of({1, 1, 2, 2, 3});
  g.dilation = random.one_of({1, 1, 1, 2, 3});
  g.out_rows = random.whole(1, 4);
  g.out_cols = random.whole(1, 30);
  g.channels = random.coin() ? kBlock : random.whole(1, kBlock);
  const std::string what = s.title("depthwise") + ": kernel " + std::to_string(g.kernel) +
                           ", stride " + std::to_string(g.stride) + ", dilation " +
                           std::to_string(g.dilation) + ", " + std::to_string(g.out_rows) + " x " +
                           std::to_string(g.out_cols) + ", " + std::to_string(g.channels) +
                           " channels";

  const int columns = (g.out_cols - 1) * g.stride + (g.kernel - 1) * g.dilation + 1;
  const int count = (g.out_rows - 1) * g.stride + (g.kernel - 1) * g.dilation + 1;
  // ten bits where their sums are exact
  const bool wide = g.kernel <= 5 && random.coin();
  const int most = wide ? kLargestWide : kLargest;
  const int most_weight = wide ? kLargestWideWeight : kLargestWeight;
  std::vector<Numbers> ring;
  std::vector<const float*> rows;
  for (int i = 0; i < count; ++i) {
    ring.emplace_back(Type::float32, columns * kBlock);
    for (int at = 0; at < columns * kBlock; ++at)
      ring[i].set(at, s.int8() ? random.whole(-most, most) : random.real(-2, 2));
    rows.push_back(ring[random.whole(0, 3) ? i : 0].floats());
  }
  const int taps = g.kernel * g.kernel;
  Numbers weights(Type::float32, taps * kBlock), bias(s.sum(), kBlock);
  Numbers multiplier(Type::float32, kBlock);
  for (int c = 0; c < g.channels; ++c) {
    for (int tap = 0; tap < taps; ++tap)
      weights.set(tap * kBlock + c,
                  s.int8() ? random.whole(-most_weight, most_weight) : random.real(-1, 1));
    bias.set(c, s.bias());
    multiplier.set(c, s.multiplier(taps));
  }
  g.rows = rows.data();
  g.weights = weights.floats();
  g.bias = bias.own();
  g.multiplier = s.int8() ? multiplier.floats() : nullptr;
  g.rounding = s.rounding(random.one_of({Activation::none, Activation::relu, Activation::relu6,
                                         Activation::hard_swish}),
                          Store::map);

  g.out_block = s.block(kBlock);
  const int lane = random.whole(0, g.out_block / kBlock - 1) * kBlock;
  g.out_row = static_cast<int64_t>(g.out_cols + random.whole(0, 3)) * g.out_block;
  if (g.channels < kBlock || random.coin()) g.padding = g.out_block - lane - kBlock;
  Output out(s.map(), g.out_rows * g.out_row, random), sums(s.sum(), kBlock, random);
  for (int row = 0; row < g.out_rows; ++row)
    for (int col = 0; col < g.out_cols; ++col)
      for (int c = 0; c < kBlock + g.padding; ++c) {
        const int64_t at = row * g.out_row + static_cast<int64_t>(col) * g.out_block + lane + c;
        c < g.channels ? out.must(at) : out.may(at);
      }
  for (int c = 0; c < kBlock; ++c) {
    sums.put(c, s.int8() ? random.whole(0, 1000) : random.real(0, 10));
    c < g.channels ? sums.must(c) : sums.may(c);
  }
  const bool add = random.coin();

  Depthwise twin = g;
  std::vector<float> magnitudes(g.out_rows * g.out_row), sum_size(kBlock);
  if (!s.int8()) {
    std::vector<std::vector<float>> sizes;
    std::vector<const float*> size_rows;
    for (auto& row : ring) sizes.push_back(row.magnitudes());
    for (const float* row : rows)
      for (int i = 0; i < count; ++i)
        if (row == ring[i].floats()) size_rows.push_back(sizes[i].data());
    const auto weight_size = weights.magnitudes(), bias_size = bias.magnitudes();
    for (int c = 0; c < kBlock; ++c) sum_size[c] = static_cast<float>(sums.expected(c));
    twin.rows = size_rows.data();
    twin.weights = weight_size.data();
    twin.bias = bias_size.data();
    twin.rounding = s.rounding(Activation::none, Store::map);
    twin.out = magnitudes.data() + lane;
    twin.sums = sum_size.data();
    s.twin.depthwise(twin);
    twin = g;
  }
  twin.out = out.twin(lane);
  twin.sums = add ? sums.twin() : nullptr;
  s.twin.depthwise(twin);
  g.out = out.tested(lane);
  g.sums = add ? sums.tested() : nullptr;
  s.tested.depthwise(g);
  s.compare(out, what, magnitudes.data());
  s.compare(sums, what + ", sums", sum_size.data(), false);
}

void stem(const Subject& s) {
  Random& random = s.random;
  Stem g{};
  g.kernel = random.one_of({1, 3, 3, 3, 5});
  g.stride = random.one_of({1, 2, 2, 3});
  g.out_cols = random.whole(1, 60);
  g.outputs = random.whole(1, 50);
  g.store = random.one_of({Store::map, Store::ring, Store::float32});
  const std::string what = s.title("stem") + ": kernel " + std::to_string(g.kernel) + ", stride " +
                           std::to_string(g.stride) + ", " + std::to_string(g.out_cols) +
                           " columns, " + std::to_string(g.outputs) + " channels, store " +
                           std::to_string(static_cast<int>(g.store));
  const int columns = (g.out_cols - 1) * g.stride + g.kernel, taps = 3 * g.kernel * g.kernel;
  const bool wide = g.kernel <= 3 && random.coin();
  const int most = wide ? kLargestWide : kLargest;
  const int most_weight = wide ? kLargestWideWeight : kLargestWeight;
  std::vector<Numbers> planes;
  std::vector<const float*> rows;
  for (int i = 0; i < 3 * g.kernel; ++i) {
    planes.emplace_back(Type::float32, columns);
    for (int at = 0; at < columns; ++at)
      planes[i].set(at, s.int8() ? random.whole(-most, most) : random.real(-2, 2));
  }
  for (Numbers& plane : planes) rows.push_back(plane.floats());
  const int padded = up(g.outputs, kBlock);
  Numbers weights(Type::float32, padded * taps), bias(s.sum(), padded);
  Numbers multiplier(Type::float32, padded);
  for (int n = 0; n < g.outputs; ++n) {
    for (int tap = 0; tap < taps; ++tap)
      weights.set((n / kBlock * taps + tap) * kBlock + n % kBlock,
                  s.int8() ? random.whole(-most_weight, most_weight) : random.real(-1, 1));
    bias.set(n, s.bias());
    multiplier.set(n, s.multiplier(taps));
  }
  g.rows = rows.data();
  g.weights = weights.floats();
  g.bias = bias.own();
  g.multiplier = s.int8() ? multiplier.floats() : nullptr;
  g.rounding = s.rounding(random.one_of({Activation::none, Activation::relu, Activation::relu6,
                                         Activation::hard_swish}),
                          g.store);
  Layout layout = s.layout(g.outputs, g.out_cols);
  if (g.store != Store::map) layout.block = kBlock;
  Output out(s.type(g.store), layout.count(), random);
  for (int x = 0; x < g.out_cols; ++x)
    for (int n = 0; n < up(g.outputs, layout.block); ++n)
      n < g.outputs ? out.must(layout.at(x, n)) : out.may(layout.at(x, n));
  g.out_plane = layout.plane;
  g.out_block = layout.block;

  Stem twin = g;
  std::vector<float> magnitudes(layout.count());
  if (!s.int8()) {
    std::vector<std::vector<float>> sizes;
    std::vector<const float*> size_rows;
    for (Numbers& plane : planes) sizes.push_back(plane.magnitudes());
    for (const auto& size : sizes) size_rows.push_back(size.data());
    const auto weight_size = weights.magnitudes(), bias_size = bias.magnitudes();
    twin.rows = size_rows.data();
    twin.weights = weight_size.data();
    twin.bias = bias_size.data();
    twin.rounding = s.rounding(Activation::none, g.store);
    twin.out = magnitudes.data();
    s.twin.stem(twin);
    twin = g;
  }
  twin.out = out.twin();
  s.twin.stem(twin);
  g.out = out.tested();
  s.tested.stem(g);
  s.compare(out, what, magnitudes.data(), g.store == Store::map);
}

void read(const Subject& s) {
  Read g{};
  g.count = s.random.whole(1, 100);
  g.inverse = s.random.real(20, 100);
  const int zero = s.random.whole(0, 255);
  g.low = static_cast<float>(-zero);
  g.high = static_cast<float>(255 - zero);
  Numbers in(Type::float32, g.count);
  Output out(Type::float32, g.count, s.random);
  for (int i = 0; i < g.count; ++i) {
    in.set(i, s.random.real(-3, 3));
    out.must(i);
  }
  g.in = in.floats();
  Read twin = g;
  twin.out = reinterpret_cast<float*>(out.twin());
  s.twin.read(twin);
  g.out = reinterpret_cast<float*>(out.tested());
  s.tested.read(g);
  out.compare(s.title("read").c_str(), [](int64_t, double) { return 0.0; });
}

// One block of 16 channels of a map: what copy, gate and sum take.
struct Lanes {
  int pixels, block, lane;

  explicit Lanes(const Subject& s)
      : pixels(s.random.whole(1, 70)),
        block(s.block(kBlock)),
        lane(s.random.whole(0, block / kBlock - 1) * kBlock) {}
  int64_t count() const { return static_cast<int64_t>(pixels) * block; }
  int64_t at(int pixel, int c) const { return static_cast<int64_t>(pixel) * block + lane + c; }
};

void copy(const Subject& s) {
  const Lanes lanes(s);
  Numbers in(s.map(), lanes.count(), kSlack);
  for (int64_t i = 0; i < in.count(); ++i) in.set(i, s.number());
  Output out(Type::float32, lanes.pixels * kBlock, s.random);
  for (int i = 0; i < lanes.pixels * kBlock; ++i) out.must(i);
  Copy g{in.own(lanes.lane), lanes.block, lanes.pixels, s.random.whole(0, s.most()),
         reinterpret_cast<float*>(out.tested())};
  Copy twin = g;
  twin.in = in.plain(lanes.lane);
  twin.out = reinterpret_cast<float*>(out.twin());
  s.twin.copy(twin);
  s.tested.copy(g);
  out.compare(s.title("copy").c_str(), [](int64_t, double) { return 0.0; });
}

void gate(const Subject& s) {
  const Lanes lanes(s);
  Output map(s.map(), lanes.count(), s.random);
  for (int pixel = 0; pixel < lanes.pixels; ++pixel)
    for (int c = 0; c < kBlock; ++c) {
      map.put(lanes.at(pixel, c), s.number());
      map.must(lanes.at(pixel, c));
    }
  Numbers gates(Type::float32, kBlock);
  for (int c = 0; c < kBlock; ++c) gates.set(c, s.random.real(0, 2));
  Gate g{map.tested(lanes.lane),
         lanes.block,
         lanes.pixels,
         gates.floats(),
         s.rounding(Activation::none, Store::map),
         s.random.whole(0, s.most())};
  Gate twin = g;
  twin.map = map.twin(lanes.lane);
  s.twin.gate(twin);
  s.tested.gate(g);
  s.compare(map, s.title("gate"), nullptr);
}

void sum(const Subject& s) {
  const Lanes lanes(s);
  Numbers map(s.map(), lanes.count(), kSlack);
  Output sums(s.sum(), kBlock, s.random);
  std::vector<float> magnitudes(kBlock, 10.f);
  for (int64_t i = 0; i < map.count(); ++i) {
    map.set(i, s.number());
    const int64_t c = i % lanes.block - lanes.lane;
    if (c >= 0 && c < kBlock) magnitudes[c] += static_cast<float>(std::abs(map.get(i)));
  }
  for (int c = 0; c < kBlock; ++c) {
    sums.put(c, s.int8() ? s.random.whole(0, 1000) : s.random.real(0, 10));
    sums.must(c);
  }
  Sum g{map.own(lanes.lane), lanes.block, lanes.pixels, sums.tested()};
  Sum twin = g;
  twin.map = map.plain(lanes.lane);
  twin.sums = sums.twin();
  s.twin.sum(twin);
  s.tested.sum(g);
  s.compare(sums, s.title("sum"), magnitudes.data(), false);
}

void mean(const Subject& s) {
  Mean g{};
  g.count = s.random.whole(1, 12) * kBlock;
  g.offset = s.random.whole(0, 5000);
  g.scale = s.random.real(0.01f, 0.1f);
  g.rounding = s.rounding(Activation::none, Store::map);
  Numbers sums(s.sum(), g.count);
  Output out(s.map(), g.count, s.random);
  for (int c = 0; c < g.count; ++c) {
    sums.set(c, s.int8() ? s.random.whole(0, 12000) : s.random.real(-50, 50));
    out.must(c);
  }
  g.sums = sums.own();
  Mean twin = g;
  twin.out = out.twin();
  s.twin.mean(twin);
  g.out = out.tested();
  s.tested.mean(g);
  s.compare(out, s.title("mean"), nullptr);
}

void test(const Subject& s, int cases) {
  if (s.tested.enter) s.tested.enter();
  for (int i = 0; i < cases; ++i) {
    for (int more = 0; more < 4; ++more) pointwise(s);
    for (int more = 0; more < 2; ++more) depthwise(s);
    stem(s);
    read(s);
    copy(s);
    gate(s);
    sum(s);
    mean(s);
  }
  if (s.tested.leave) s.tested.leave();
  std::printf("%s %s: %d cases\n", s.table, s.precision_name(), cases);
}

}  // namespace
}  // namespace mobilenet

int main(int argc, char** argv) {
  using namespace mobilenet;
  const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
  const int seed = argc > 2 ? std::atoi(argv[2]) : 1;
  const Kernels& plain = *scalar_kernels();
  std::set<const Arithmetic*> tested;
  for (const char* const* isa = isas(); *isa; ++isa) {
    std::string error;
    const Kernels* kernels = choose_kernels(*isa, &error);
    CHECK(kernels, "%s", error.c_str());
    auto each = [&](Precision precision, const Arithmetic* arithmetic, const Arithmetic* twin) {
      // a set that lacks a precision has that of a lower one, which is tested under its own name
      const char* const* lower = isa + 1;
      bool own = arithmetic && arithmetic != twin;
      for (; own && *lower; ++lower) {
        const Kernels* other = choose_kernels(*lower, &error);
        own = arithmetic != other->float32 && arithmetic != other->bfloat16 &&
              arithmetic != other->int8 && arithmetic != other->int8_maps;
      }
      if (!own || (argc > 3 && std::string(argv[3]) != *isa)) return;
      Random random(static_cast<uint32_t>(seed));
      test({*isa, precision, *arithmetic, *twin, random}, cases);
    };
    each(Precision::float32, kernels->float32, plain.float32);
    each(Precision::bfloat16, kernels->bfloat16, plain.float32);
    each(Precision::int8, kernels->int8, plain.int8);
    each(Precision::int8, kernels->int8_maps, plain.int8_maps);
  }
  return 0;
}
