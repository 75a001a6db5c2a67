#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../format/sizes.h"
#include "program.h"

namespace mobilenet {
namespace {

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
int blocks(int channels) { return (channels + kBlock - 1) / kBlock; }

// The stages of one program, and the maps between them.
class Planner {
 public:
  Planner(Program&& program, const Arithmetic& arithmetic, int threads, size_t cache, Plan* plan)
      : program_(std::move(program)),
        arithmetic_(arithmetic),
        threads_(threads),
        cache_(cache),
        plan_(*plan) {}

  void run() {
    map_of_.assign(program_.values.size(), -1);
    deferred_.assign(program_.nodes.size(), 0);
    done_.assign(program_.nodes.size(), 0);
    for (size_t i = 0; i < program_.nodes.size(); ++i) {
      if (!done_[i] && !defer(static_cast<int>(i))) emit(static_cast<int>(i));
    }
    for (const auto& output : program_.outputs) {
      plan_.outputs.push_back({output.name, map_of_[output.value]});
      plan_.maps[map_of_[output.value]].last = static_cast<int>(plan_.stages.size());
    }
    place_maps();
    place_rows();
    place_scratch();
    plan_.owned = std::move(program_.owned);
  }

 private:
  const Node& node(int i) const { return program_.nodes[i]; }
  const Value& value(int v) const { return program_.values[v]; }

  // A stem or pointwise convolution that only a depthwise convolution reads fills its ring; the
  // same block's residual may read it there as well.
  bool defer(int i) {
    const Node& n = node(i);
    if ((n.op != Op::pointwise && n.op != Op::stem) || n.residual >= 0) return false;
    if (n.after != Activation::none) return false;
    const Value& v = value(n.out);
    if (v.output || v.readers.empty()) return false;
    const Node& reader = node(v.readers[0]);
    if (reader.op != Op::depthwise) return false;
    if (v.readers.size() > 1) {
      // behind squeeze-and-excite the rows have left the ring
      if (v.readers.size() > 2 || reader.stride != 1 || reader.squeeze) return false;
      const Node& project = node(v.readers[1]);
      if (project.op != Op::pointwise || project.residual != n.out || project.in[0] != reader.out ||
          !projects(reader) || value(reader.out).readers[0] != v.readers[1])
        return false;
    }
    deferred_[i] = 1;
    return true;
  }

  // Whether the one reader of a depthwise convolution can run band by band behind it.
  bool projects(const Node& depthwise) const {
    const Value& v = value(depthwise.out);
    if (v.output || v.readers.size() != 1) return false;
    const Node& n = node(v.readers[0]);
    if (n.op != Op::pointwise) return false;
    const Value& after = value(n.out);
    bool next_depthwise = after.readers.size() == 1 && !after.output && n.residual < 0 &&
                          node(after.readers[0]).op == Op::depthwise;
    return !next_depthwise;
  }

  void emit(int i) {
    const Node& n = node(i);
    Stage s;
    s.step = n.step;
    switch (n.op) {
      case Op::depthwise: fuse(i, &s); break;
      case Op::pointwise: pointwise(i, &s); break;
      case Op::stem:
        s.kind = StageKind::stem;
        stem(n, &s);
        s.out_height = value(n.out).height;
        s.out_width = value(n.out).width;
        s.outputs = n.out_channels;
        s.out = make_map(n.out);
        break;
      case Op::dense:
        s.kind = StageKind::dense;
        read(n.in[0], &s);
        s.project = n.weights;
        s.rounding = n.rounding;
        s.kernel = n.kernel;
        s.stride = n.stride;
        s.dilation = n.dilation;
        s.pad_top = n.pad_top;
        s.pad_left = n.pad_left;
        s.in_channels = n.in_channels;
        s.outputs = n.out_channels;
        s.after = n.after;
        s.out = make_map(n.out);
        break;
      default:
        s.kind = simple(n.op);
        for (int k = 0; k < n.inputs; ++k) read(n.in[k], &s);
        s.kernel = n.kernel;
        s.stride = n.stride;
        s.rounding = n.rounding;
        s.mean_scale = n.mean_scale;
        s.after = n.after;
        s.out = make_map(n.out);
        break;
    }
    done_[i] = 1;
    plan_.stages.push_back(s);
  }

  static StageKind simple(Op op) {
    switch (op) {
      case Op::pool: return StageKind::pool;
      case Op::add: return StageKind::add;
      case Op::multiply: return StageKind::multiply;
      case Op::concat: return StageKind::concat;
      case Op::resize: return StageKind::resize;
      default: return StageKind::average_pool;
    }
  }

  void stem(const Node& n, Stage* s) {
    s->produce = n.weights;
    s->produced = n.rounding;
    s->stem_kernel = n.kernel;
    s->stem_stride = n.stride;
    s->stem_top = n.pad_top;
    s->stem_left = n.pad_left;
    const Value& out = value(n.out);
    s->stem_columns = std::max((out.width - 1) * n.stride + n.kernel, plan_.width + n.pad_left);
  }

  void pointwise(int i, Stage* s) {
    const Node& n = node(i);
    const Value& v = value(n.out);
    read(n.in[0], s);
    s->project = n.weights;
    s->rounding = n.rounding;
    s->in_channels = n.in_channels;
    s->outputs = n.out_channels;
    s->after = n.after;
    s->kind = StageKind::pointwise;
    int out = n.out;
    if (n.residual >= 0) {
      s->residual = read_map(n.residual);
      s->residual_scale = n.residual_scale;
      s->residual_zero = n.residual_zero;
    } else if (!v.output && v.readers.size() == 1 && node(v.readers[0]).op == Op::pool &&
               v.height * v.width > 1 && n.after == Activation::none) {
      const Node& pool = node(v.readers[0]);
      s->kind = StageKind::pooled;
      s->chunk = std::max(arithmetic_.chunk, arithmetic_.map_block);
      s->mean_scale = pool.mean_scale;
      s->gated = pool.rounding;
      s->pooled_range = v.range;
      done_[v.readers[0]] = 1;
      out = pool.out;
    }
    s->out = make_map(out);
  }

  void fuse(int i, Stage* s) {
    const Node& n = node(i);
    s->kind = StageKind::fused;
    const Value& in = value(n.in[0]);
    const Value& out = value(n.out);
    s->in_height = in.height;
    s->in_width = in.width;
    s->out_height = out.height;
    s->out_width = out.width;
    s->filter = n.weights;
    s->filtered = n.rounding;
    s->kernel = n.kernel;
    s->stride = n.stride;
    s->dilation = n.dilation;
    s->pad_top = n.pad_top;
    s->pad_left = n.pad_left;
    s->expanded = n.in_channels;
    s->squeeze = n.squeeze;
    s->reduce = n.reduce;
    s->excite = n.excite;
    s->squeezed = n.squeezed;
    s->gated = n.gated;
    s->pooled_range = n.pooled_range;
    s->mean_scale = n.mean_scale;
    s->gate_ratio = n.gate_ratio;
    const int reach = (s->out_width - 1) * s->stride + (s->kernel - 1) * s->dilation + 1;
    s->columns = std::max(reach, s->in_width + s->pad_left);

    s->chunk = arithmetic_.chunk;
    const bool projects_here = projects(n);
    const Node* project = projects_here ? &node(out.readers[0]) : nullptr;
    const int producer = in.writer;
    if (producer >= 0 && deferred_[producer]) {
      const Node& p = node(producer);
      done_[producer] = 1;
      if (p.op == Op::stem) {
        s->source = Source::image;
        stem(p, s);
        s->chunk = blocks(s->expanded) * kBlock;  // few, and the image is read once
      } else {
        s->source = Source::expand;
        s->in_channels = p.in_channels;
        s->produce = p.weights;
        s->produced = p.rounding;
        read(p.in[0], s);
      }
    } else {
      s->source = Source::copy;
      read(n.in[0], s);
    }
    if (project) {
      s->projects = true;
      s->project = project->weights;
      s->rounding = project->rounding;
      s->outputs = project->out_channels;
      s->after = project->after;
      if (project->residual >= 0) {
        s->residual_scale = project->residual_scale;
        s->residual_zero = project->residual_zero;
        s->residual_ring = s->source != Source::copy && project->residual == n.in[0];
        if (!s->residual_ring) s->residual = read_map(project->residual);
      }
      done_[out.readers[0]] = 1;
    } else {
      s->outputs = s->expanded;
    }
    schedule(s);
    if (s->projects && (s->squeeze || s->together.by_channels)) {
      s->depthwise_map = make_map(n.out);
      plan_.maps[s->depthwise_map].last = static_cast<int>(plan_.stages.size());
    }
    s->out = make_map(s->projects ? project->out : n.out);
  }

  // Bytes that a band of `rows` output rows walks through.
  size_t working_set(const Stage& s, int rows) const {
    // what expand reads is read again for every panel of its weights
    const size_t read = s.source == Source::expand
                            ? static_cast<size_t>(ring_rows_of(s, rows)) * s.in_width *
                                  padded(s.in_channels) * arithmetic_.map_bytes
                            : 0;
    return read + ring_bytes(s, with_band(s, rows, false)) +
           static_cast<size_t>(blocks(s.expanded)) * kBlock * rows * s.out_width *
               arithmetic_.map_bytes;
  }

  static int ring_rows_of(const Stage& s, int rows) {
    return (rows - 1) * s.stride + (s.kernel - 1) * s.dilation + 1;
  }

  void schedule(Stage* s) const { set_band(s, least_band(*s)); }

  // The rows of the least band: with fewer pixels the weights, read again for each band, would cost
  // more than what they are multiplied with. Rows that are more than the cache holds cost as much.
  int least_band(const Stage& s) const {
    constexpr int kPixels = 98;  // half of a map of 14 x 14
    int band = s.out_height;
    auto half = [&] { return (band + 1) / 2; };
    while (band > 1 && (half() * s.out_width >= kPixels || working_set(s, band) > most()))
      band = half();
    return band;
  }

  // Of a band; a little beyond the cache is cheaper than another band.
  size_t most() const { return cache_ + cache_ / 2; }

  void set_band(Stage* s, int band) const {
    s->alone = with_band(*s, band, false);
    // several threads: rows where there are many, else channels of the whole map
    const bool by_channels = threads_ > 1 && s->out_height < 28 && !s->residual_ring;
    if (by_channels) band = s->out_height;
    else band = std::min(band, std::max(1, (s->out_height + threads_ - 1) / threads_));
    s->together = with_band(*s, band, by_channels);
  }

  static Schedule with_band(const Stage& s, int band, bool by_channels) {
    Schedule schedule;
    schedule.band = band;
    schedule.ring_rows = ring_rows_of(s, band);
    schedule.reuse_ring = band >= s.out_height && !s.residual_ring;
    schedule.by_channels = by_channels;
    return schedule;
  }

  int make_map(int v) {
    const Value& from = value(v);
    Map map;
    map.channels = from.channels;
    map.height = from.height;
    map.width = from.width;
    map.range = from.range;
    map.is_float = from.is_float;
    map.block = map.is_float ? kBlock : plan_.block_of(map.channels);
    map.plane = static_cast<int64_t>(map.pixels()) * map.block;
    const size_t each = map.is_float ? sizeof(float) : arithmetic_.map_bytes;
    // a block more than there is, so that a kernel may read past the last pixel's channels
    map.bytes = aligned(static_cast<size_t>((map.channels + map.block - 1) / map.block) *
                        map.plane * each + kAlign);
    map.first = map.last = static_cast<int>(plan_.stages.size());
    plan_.maps.push_back(map);
    return map_of_[v] = static_cast<int>(plan_.maps.size()) - 1;
  }

  int read_map(int v) {
    Map& map = plan_.maps[map_of_[v]];
    map.last = std::max(map.last, static_cast<int>(plan_.stages.size()));
    return map_of_[v];
  }

  void read(int v, Stage* s) { s->in[s->inputs++] = read_map(v); }

  // The largest first, each at the lowest place that is free as long as it lives.
  void place_maps() {
    std::vector<int> order(plan_.maps.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return plan_.maps[a].bytes > plan_.maps[b].bytes;
    });
    for (int i : order) {
      Map& map = plan_.maps[i];
      map.offset = gap(map.first, map.last, map.bytes);
      maps_end_ = std::max(maps_end_, map.offset + map.bytes);
      placed_.push_back(i);
    }
  }

  // The lowest place for so many bytes that no map uses between two stages.
  size_t gap(int first, int last, size_t bytes) const {
    std::vector<std::pair<size_t, size_t>> taken;
    for (int i : placed_) {
      const Map& map = plan_.maps[i];
      if (map.first <= last && first <= map.last)
        taken.emplace_back(map.offset, map.offset + map.bytes);
    }
    std::sort(taken.begin(), taken.end());
    size_t offset = 0;
    for (const auto& [from, to] : taken) {
      if (offset + bytes <= from) break;
      offset = std::max(offset, to);
    }
    return offset;
  }

  // A stage's ring and depthwise rows, between the maps that live then. What the largest stage needs
  // for the least bands is there for all: the others take higher ones, as long as that does it.
  void place_rows() {
    size_t end = maps_end_;
    for (Stage& s : plan_.stages) end = std::max(end, place_rows(&s));
    for (Stage& s : plan_.stages) {
      if (s.kind != StageKind::fused) continue;
      const Stage least = s;
      int band = s.out_height;
      for (; band > least.alone.band; band = (band + 1) / 2) {
        if (working_set(s, band) > most()) continue;
        set_band(&s, band);
        if (place_rows(&s) <= end) break;
        s = least;
      }
    }
    plan_.bytes = end;
  }

  // Returns where they end.
  size_t place_rows(Stage* s) const {
    size_t ring = 0, depthwise = 0;
    if (s->kind == StageKind::fused) {
      for (const Schedule* schedule : {&s->alone, &s->together}) {
        ring = std::max(ring, ring_bytes(*s, *schedule));
        if (!s->squeeze && s->projects && !schedule->by_channels)
          depthwise = std::max(depthwise, static_cast<size_t>(schedule->band) * s->out_width *
                                              padded(s->expanded) * arithmetic_.map_bytes);
      }
    } else if (s->kind == StageKind::pooled) {  // one chunk of outputs over all pixels
      ring = padded(s->chunk) * plan_.maps[s->in[0]].pixels() * arithmetic_.map_bytes;
    } else if (s->kind == StageKind::dense) {  // one output row's inputs, gathered
      ring = padded(s->in_channels) * plan_.maps[s->out].width * arithmetic_.map_bytes;
    } else {
      return 0;
    }
    ring = room(ring);
    depthwise = room(depthwise);
    const int now = static_cast<int>(s - plan_.stages.data());
    s->ring = gap(now, now, ring + depthwise);
    s->depthwise = s->ring + ring;
    return s->depthwise + depthwise;
  }

  // A line more, for kernels that read past the end of the last pixel.
  static size_t room(size_t bytes) { return aligned(bytes) + kAlign; }

  void place_scratch() {
    size_t table = 0, planes = 0, zeros = 0, rows = 0, stem_rows = 0, squeezed = 0, vector = 0;
    for (const Stage& s : plan_.stages) {
      if (s.kind == StageKind::fused) {
        for (const Schedule* schedule : {&s.alone, &s.together}) {
          table = std::max(table, static_cast<size_t>(schedule->ring_rows) * s.in_width);
          table = std::max(table, static_cast<size_t>(schedule->band) * s.out_width);
          rows = std::max(rows, static_cast<size_t>(schedule->ring_rows));
        }
        zeros = std::max(zeros, static_cast<size_t>(s.columns) * kBlock * sizeof(float));
        if (s.squeeze) squeezed = std::max(squeezed, padded(s.expanded) * sizeof(float));
      }
      if (s.stem_kernel) {
        const size_t row = static_cast<size_t>(s.stem_columns) * sizeof(float);
        planes = std::max(planes, 3 * s.stem_kernel * row);
        zeros = std::max(zeros, row);
        stem_rows = std::max(stem_rows, static_cast<size_t>(3 * s.stem_kernel));
      }
      if (s.kind == StageKind::pool || s.kind == StageKind::pooled)
        vector = std::max(vector, padded(s.chunk) * sizeof(float));
    }
    auto put = [&](size_t bytes) {
      const size_t offset = plan_.bytes;
      plan_.bytes += bytes;
      return offset;
    };
    plan_.sums_stride = room(squeezed);
    plan_.sums = put(threads_ * plan_.sums_stride);
    plan_.squeezed = put(plan_.sums_stride);
    plan_.gates = put(plan_.sums_stride);
    Scratch& at = plan_.scratch;
    at.table = put(room(table * sizeof(int32_t)));
    at.places = put(room(rows * sizeof(int32_t)));
    at.rows = put(room(rows * sizeof(const float*)));
    at.stem_rows = put(room(stem_rows * sizeof(const float*)));
    at.planes = put(room(planes));
    at.zeros = put(room(zeros));
    at.vector = put(room(std::max(vector, squeezed)));
  }

  static size_t ring_bytes(const Stage& s, const Schedule& schedule) {
    const int held = schedule.reuse_ring ? std::min(s.chunk, s.expanded) : s.expanded;
    return static_cast<size_t>(blocks(held)) * kBlock * schedule.ring_rows * s.columns *
           sizeof(float);
  }

  size_t padded(int channels) const {
    const int block = plan_.block_of(channels);
    return static_cast<size_t>((channels + block - 1) / block) * block;
  }

  Program program_;
  const Arithmetic& arithmetic_;
  const int threads_;
  const size_t cache_;
  Plan& plan_;
  std::vector<int> map_of_;
  std::vector<char> deferred_, done_;
  std::vector<int> placed_;  // maps
  size_t maps_end_ = 0;
};

}  // namespace

bool make_plan(const File& file, const Kernels& kernels, int height, int width, int threads,
               size_t cache, Plan* plan, std::string* error) {
  std::vector<Shape> shapes;
  if (!infer_shapes(file, height, width, &shapes, error)) return false;
  plan->precision = static_cast<Precision>(file.header->precision);
  const bool widen = plan->precision == Precision::bfloat16 && !kernels.bfloat16;
  plan->arithmetic = plan->precision == Precision::int8                ? kernels.int8
                     : plan->precision == Precision::bfloat16 && !widen ? kernels.bfloat16
                                                                        : kernels.float32;
  plan->height = height;
  plan->width = width;
  plan->in_range = file.header->in_range;
  Program program = read_program(file, *plan->arithmetic, widen, shapes);
  Planner(std::move(program), *plan->arithmetic, threads, cache, plan).run();
  return true;
}

}  // namespace mobilenet
