// The depth-first loop (see plan.h for its picture).
#include <algorithm>
#include <cstring>

#include "walk.h"

namespace mobilenet {

void Walk::fused(const Stage& s) {
  if (s.squeeze)
    std::memset(sums(thread), 0, static_cast<size_t>(blocks(s.expanded)) * kBlock * sizeof(float));
  const bool by_channels = threads > 1 && s.together.by_channels;
  if (by_channels)
    channels(s);
  else
    rows(s, share(s.out_height, thread), share(s.out_height, thread + 1));
  const int depthwise = s.projects ? s.depthwise_map : s.out;
  if (s.squeeze) {
    wait();
    squeeze(s, depthwise);
    charge(Part::squeeze);
  }
  if (!s.projects || (!s.squeeze && !by_channels)) return;
  wait();
  Pointwise g = project_arguments(s);
  g.in = at(depthwise);
  g.in_plane = map(depthwise).plane;
  g.in_block = map(depthwise).block;
  g.pixels = map(s.out).pixels();
  project(s, g);
  charge(Part::project);
}

// Output rows [from, to), band by band; rows of the ring that the next band needs stay in it.
void Walk::rows(const Stage& s, int from, int to) {
  if (from >= to) return;
  start(s);
  const int high = schedule_of(s).band;
  for (int row = from; row < to; row += high) band(s, row, std::min(high, to - row), row);
}

// Makes ready for the first band, of this stage and of what feeds it.
void Walk::start(const Stage& s) {
  done(s) = 0;
  clear_sides(s, schedule_of(s));
  if (s.feeder >= 0) start(plan.stages[s.feeder]);
}

// Output rows from `row` on, which become rows of the map, or of the strip, from `out_row` on.
void Walk::band(const Stage& s, int row, int count, int out_row) {
  const Schedule& schedule = schedule_of(s);
  float* ring = own<float>(s.ring);
  const bool into_map = s.squeeze || !s.projects;
  const int target = s.projects ? s.depthwise_map : s.out;
  const int first = row * s.stride - s.pad_top;
  const int reach = (count - 1) * s.stride + (s.kernel - 1) * s.dilation + 1;
  const int end = std::min(s.in_height, first + reach);
  const int begin = std::max({done(s), first, 0});
  done(s) = std::max(done(s), end);
  if (s.feeder >= 0) feed(s, begin, end);
  if (s.source == Source::expand) pixels_in_ring(s, schedule, begin, end, s.in_width);

  const int64_t start = static_cast<int64_t>(out_row) * s.out_width;
  uint8_t* out = own<uint8_t>(s.depthwise);
  int block = plan.block_of(s.expanded);
  int64_t plane = static_cast<int64_t>(count) * s.out_width * block;
  if (into_map) {
    out = place(target, 0, start);
    block = map(target).block;
    plane = map(target).plane;
  }
  for (int channel = 0; channel < s.expanded; channel += s.chunk) {
    const int channels = std::min(s.chunk, s.expanded - channel);
    float* here = schedule.reuse_ring ? ring : ring + channel / kBlock * ring_plane(s, schedule);
    if (begin < end) produce(s, schedule, channel, channels, begin, end, here);
    charge(Part::produce);
    filter(s, schedule, channel, channels, row, count, here, out, plane, block);
    charge(Part::depthwise);
  }
  if (into_map) return;
  Pointwise g = project_arguments(s);
  g.in = out;
  g.in_plane = plane;
  g.in_block = block;
  g.pixels = count * s.out_width;
  g.out = static_cast<uint8_t*>(g.out) + start * g.out_block * each(s.out);
  if (s.residual >= 0) g.residual = place(s.residual, 0, static_cast<int64_t>(row) * s.out_width);
  if (s.residual_ring) {
    pixels_in_ring(s, schedule, row, row + count, s.out_width);
    g.residual = ring;
    g.residual_plane = ring_plane(s, schedule);
    g.residual_at = own<int32_t>(plan.scratch.table);
  }
  plan.arithmetic->pointwise(g);
  charge(Part::project);
}

// The rows [from, to) of what a stage reads, into the strip that takes the place of that map.
void Walk::feed(const Stage& s, int from, int to) {
  const Stage& feeder = plan.stages[s.feeder];
  const int high = schedule_of(feeder).band, reader = stage_;
  stage_ = s.feeder;
  for (int row = from; row < to; row += high)
    band(feeder, row, std::min(high, to - row), row - from);
  stage_ = reader;
}

// This thread's share of the channels, over the whole map.
void Walk::channels(const Stage& s) {
  const Schedule& schedule = s.together;
  clear_sides(s, schedule);
  const int target = s.projects ? s.depthwise_map : s.out;
  const int reach = (s.out_height - 1) * s.stride + (s.kernel - 1) * s.dilation + 1;
  const int end = std::min(s.in_height, reach - s.pad_top);
  if (s.source == Source::expand) pixels_in_ring(s, schedule, 0, end, s.in_width);
  const int chunks = (s.expanded + s.chunk - 1) / s.chunk;
  for (int i = share(chunks, thread); i < share(chunks, thread + 1); ++i) {
    const int channel = i * s.chunk;
    const int count = std::min(s.chunk, s.expanded - channel);
    float* ring = own<float>(s.ring);
    produce(s, schedule, channel, count, 0, end, ring);
    charge(Part::produce);
    filter(s, schedule, channel, count, 0, s.out_height, ring, at(target), map(target).plane,
           map(target).block);
    charge(Part::depthwise);
  }
}

// The ring's padding columns, left and right of the rows.
void Walk::clear_sides(const Stage& s, const Schedule& schedule) {
  float* ring = own<float>(s.ring);
  const int held = schedule.reuse_ring ? std::min(s.chunk, s.expanded) : s.expanded;
  const int right = s.columns - s.pad_left - s.in_width;
  for (int row = 0; row < blocks(held) * schedule.ring_rows; ++row) {
    float* at = ring + static_cast<int64_t>(row) * s.columns * kBlock;
    std::memset(at, 0, s.pad_left * kBlock * sizeof(float));
    std::memset(at + static_cast<int64_t>(s.pad_left + s.in_width) * kBlock, 0,
                right * kBlock * sizeof(float));
  }
}

// Fills the table with the places of the pixels of rows [from, to) in a block of the ring.
int Walk::pixels_in_ring(const Stage& s, const Schedule& schedule, int from, int to, int width) {
  int32_t* table = own<int32_t>(plan.scratch.table);
  int count = 0;
  for (int y = from; y < to; ++y) {
    const int row = (y % schedule.ring_rows * s.columns + s.pad_left) * kBlock;
    for (int x = 0; x < width; ++x) table[count++] = row + x * kBlock;
  }
  return count;
}

// Fills the ring's rows [from, to) of `count` channels from `channel`; `ring` is where those lie.
void Walk::produce(const Stage& s, const Schedule& schedule, int channel, int count, int from,
                   int to, float* ring) {
  const int64_t plane = ring_plane(s, schedule);
  const int above = s.feeder >= 0 ? from : 0;  // rows that lie above a strip
  auto row_at = [&](int row) {
    return (static_cast<int64_t>(row % schedule.ring_rows) * s.columns + s.pad_left) * kBlock;
  };
  if (s.source == Source::expand) {
    Pointwise g{};
    g.in = place(s.in[0], 0, static_cast<int64_t>(from - above) * s.in_width);
    g.in_plane = map(s.in[0]).plane;
    g.in_block = map(s.in[0]).block;
    g.inputs = s.in_channels;
    from_output(s.produce, channel, &g);
    g.outputs = count;
    g.pixels = (to - from) * s.in_width;
    g.out = ring;
    g.out_plane = plane;
    g.out_block = kBlock;
    g.out_at = own<int32_t>(plan.scratch.table);
    g.store = Store::ring;
    g.rounding = s.produced;
    plan.arithmetic->pointwise(g);
  } else if (s.source == Source::image) {
    for (int row = from; row < to; ++row)
      stem_row(s, row, ring + row_at(row), plane, kBlock, Store::ring);
  } else {
    for (int c = 0; c < count; c += kBlock)
      for (int row = from; row < to; ++row) {
        Copy g{};
        g.in = place(s.in[0], channel + c, static_cast<int64_t>(row - above) * s.in_width);
        g.in_block = map(s.in[0]).block;
        g.pixels = s.in_width;
        g.zero = map(s.in[0]).range.zero;
        g.out = ring + c / kBlock * plane + row_at(row);
        plan.arithmetic->copy(g);
      }
  }
}

// Where the rows that output rows read lie in a block of the ring, -1 for a row of padding.
int Walk::locate_rows(const Stage& s, const Schedule& schedule, int out_row, int out_rows) {
  int32_t* places = own<int32_t>(plan.scratch.places);
  const int count = (out_rows - 1) * s.stride + (s.kernel - 1) * s.dilation + 1;
  const int first = out_row * s.stride - s.pad_top;
  for (int i = 0; i < count; ++i) {
    const int y = first + i;
    places[i] = y < 0 || y >= s.in_height ? -1 : y % schedule.ring_rows * s.columns * kBlock;
  }
  return count;
}

// The depthwise convolution of `count` channels; `out` is the place of channel 0's first pixel.
void Walk::filter(const Stage& s, const Schedule& schedule, int channel, int count, int out_row,
                  int out_rows, const float* ring, uint8_t* out, int64_t plane, int block) {
  const int n = locate_rows(s, schedule, out_row, out_rows);
  const int32_t* places = own<int32_t>(plan.scratch.places);
  const float** rows = own<const float*>(plan.scratch.rows);
  const float* zeros = own<float>(plan.scratch.zeros);
  for (int c = channel; c < channel + count; c += kBlock) {
    const float* base = ring + (c - channel) / kBlock * ring_plane(s, schedule);
    for (int i = 0; i < n; ++i) rows[i] = places[i] < 0 ? zeros : base + places[i];
    Depthwise g{};
    g.rows = rows;
    g.out_rows = out_rows;
    g.out_cols = s.out_width;
    g.kernel = s.kernel;
    g.stride = s.stride;
    g.dilation = s.dilation;
    g.channels = std::min(kBlock, s.expanded - c);
    if (c + kBlock >= s.expanded) g.padding = block - c % block - kBlock;
    g.weights = static_cast<const float*>(s.filter.matrix) + c * s.kernel * s.kernel;
    g.bias = static_cast<const uint8_t*>(s.filter.bias) + static_cast<size_t>(c) * 4;
    g.multiplier = s.filter.multiplier ? s.filter.multiplier + c : nullptr;
    g.out = out + (c / block * plane + c % block) * plan.arithmetic->map_bytes;
    g.out_block = block;
    g.out_row = static_cast<int64_t>(s.out_width) * block;
    g.rounding = s.filtered;
    if (s.squeeze) g.sums = sums(thread) + c;
    plan.arithmetic->depthwise(g);
  }
}

// A convolution of a map of one pixel, whose channels lie one after another: outputs [from, to).
void Walk::vector(const Weights& w, const void* in, int inputs, int from, int to, void* out,
                  Store store, const Rounding& rounding) {
  if (from >= to) return;
  Pointwise g{};
  g.in = in;
  g.in_block = plan.arithmetic->map_block;
  g.in_plane = g.in_block;
  g.inputs = inputs;
  from_output(w, from, &g);
  g.outputs = to - from;
  g.pixels = 1;
  g.out = out;
  g.out_block = store == Store::map ? plan.arithmetic->map_block : kBlock;
  g.out_plane = g.out_block;
  g.store = store;
  g.rounding = rounding;
  plan.arithmetic->pointwise(g);
}

// Squeeze-and-excite: means of the depthwise map to gates, which multiply it in place. Each thread
// takes a share of the outputs; all means are computed by each, which is cheaper than to wait.
void Walk::squeeze(const Stage& s, int depthwise) {
  const int count = blocks(s.expanded) * kBlock;
  const bool int8 = plan.precision == Precision::int8;
  const Map& m = map(depthwise);
  for (int t = 1; t < threads; ++t) {
    // added up once, by the thread that owns these channels
    const int from = share(count / kBlock, thread) * kBlock;
    const int to = share(count / kBlock, thread + 1) * kBlock;
    for (int c = from; c < to; ++c) {
      if (int8)
        reinterpret_cast<int32_t*>(sums(0))[c] += reinterpret_cast<int32_t*>(sums(t))[c];
      else
        sums(0)[c] += sums(t)[c];
    }
  }
  wait();
  uint8_t* means = own<uint8_t>(plan.scratch.vector);
  Rounding rounding;
  if (int8) {
    rounding.zero = s.pooled_range.zero;
    rounding.low = static_cast<float>(-rounding.zero);
    rounding.high = static_cast<float>(plan.map_largest - rounding.zero);
  }
  mean(sums(0), count, m.pixels(), s.filtered.zero, s.mean_scale, rounding, means);

  const int unit = std::max(plan.arithmetic->map_block, kBlock);
  auto from = [&](int channels, int t) {
    return std::min(channels, share((channels + unit - 1) / unit, t) * unit);
  };
  uint8_t* squeezed = common<uint8_t>(plan.squeezed);
  int first = from(s.squeeze, thread);
  vector(s.reduce, means, s.expanded, first, from(s.squeeze, thread + 1),
         squeezed + static_cast<size_t>(first) * plan.arithmetic->map_bytes, Store::map,
         s.squeezed);
  wait();
  Rounding gate;
  gate.activation = Activation::hard_sigmoid;
  gate.high = 1;
  gate.after = 1.f / 6;
  first = from(s.expanded, thread);
  const int last = from(s.expanded, thread + 1);
  float* gates = common<float>(plan.gates);
  vector(s.excite, squeezed, s.squeeze, first, last, gates + first, Store::float32, gate);
  for (int c = first; c < last; c += kBlock) {
    if (int8)
      for (int lane = 0; lane < kBlock; ++lane) gates[c + lane] *= s.gate_ratio;
    Gate g{};
    g.map = place(depthwise, c, 0);
    g.block = m.block;
    g.pixels = m.pixels();
    g.gates = gates + c;
    g.rounding = s.gated;
    g.zero = s.filtered.zero;
    plan.arithmetic->gate(g);
  }
}

Pointwise Walk::project_arguments(const Stage& s) const {
  Pointwise g{};
  g.inputs = s.expanded;
  from_output(s.project, 0, &g);
  g.outputs = s.outputs;
  g.out = at(s.out);
  g.out_plane = map(s.out).plane;
  g.out_block = map(s.out).block;
  g.store = store(s.out);
  g.rounding = s.rounding;
  if (s.residual >= 0) {
    g.residual = at(s.residual);
    g.residual_plane = map(s.residual).plane;
    g.residual_block = map(s.residual).block;
  }
  g.residual_scale = s.residual_scale;
  g.residual_zero = s.residual_zero;
  return g;
}

// This thread's share of a pointwise convolution of a whole map: of the outputs where their panels
// can be shared evenly, else of the pixels.
void Walk::project(const Stage& s, Pointwise g) {
  const int unit = std::max({g.out_block, g.residual_block, kBlock});
  const int panels = (g.outputs + unit - 1) / unit;
  const int map_bytes = plan.arithmetic->map_bytes;
  if (threads > 1 && (panels % threads == 0 || panels >= 4 * threads || g.pixels < threads)) {
    const int from = share(panels, thread), to = share(panels, thread + 1);
    from_output(s.project, from * unit, &g);
    g.outputs = std::min(g.outputs, to * unit) - from * unit;
    g.out = static_cast<uint8_t*>(g.out) + from * unit / g.out_block * g.out_plane * each(s.out);
    if (g.residual)
      g.residual = static_cast<const uint8_t*>(g.residual) +
                   from * unit / g.residual_block * g.residual_plane * map_bytes;
  } else if (threads > 1) {
    const int64_t from = share(g.pixels, thread), to = share(g.pixels, thread + 1);
    g.in = static_cast<const uint8_t*>(g.in) + from * g.in_block * map_bytes;
    g.out = static_cast<uint8_t*>(g.out) + from * g.out_block * each(s.out);
    if (g.residual)
      g.residual = static_cast<const uint8_t*>(g.residual) + from * g.residual_block * map_bytes;
    g.pixels = static_cast<int>(to - from);
  }
  if (g.outputs > 0 && g.pixels > 0) plan.arithmetic->pointwise(g);
}

}  // namespace mobilenet
