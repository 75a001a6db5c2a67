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
    if (in_place(*s)) plan_.maps[s->out].over = s->in[0];
    if (s->source == Source::copy) feed_from(n.in[0], s);
    if (s->source == Source::expand) feed_from(node(producer).in[0], s);
  }

  // Whether a residual's sum may take its input's place: nobody else reads that, and rows are
  // written behind those that are still to be expanded. Threads that share the rows read their
  // neighbours'.
  bool in_place(const Stage& s) const {
    if (s.source != Source::expand || s.residual < 0 || s.residual != s.in[0]) return false;
    if (threads_ > 1 && !s.squeeze && !s.together.by_channels) return false;
    if (plan_.maps[s.out].is_float) return false;  // of another type
    for (size_t v = 0; v < map_of_.size(); ++v)
      if (map_of_[v] == s.in[0])
        return program_.values[v].readers.size() == 2 && !program_.values[v].output;
    return false;
  }

  // Lets the stage that writes `v` compute its rows as this one needs them, where no other reads
  // them, both have many, and it takes less memory than the whole map and either one's own rows.
  void feed_from(int v, Stage* s) {
    constexpr int kHeight = 28;  // smaller maps are better whole
    if (s->residual >= 0 || s->out_height < kHeight) return;
    if (value(v).output || value(v).readers.size() != 1) return;
    const int writer = plan_.maps[s->in[0]].first;
    Stage& f = plan_.stages[writer];
    if (f.kind != StageKind::fused || f.squeeze || f.after != Activation::none) return;
    Map& map = plan_.maps[f.out];
    const Map whole = map;
    const size_t apart = std::max(live(f), live(*s));
    s->feeder = writer;
    f.feeds = map.strip = true;
    map.over = -1;
    follow(*s);
    if (live(*s) >= apart) {
      s->feeder = -1;
      f.feeds = false;
      schedule(&f);
      map = whole;
      return;
    }
    // what it reads must be there when this stage has its turn
    for (int i = writer; i >= 0; i = plan_.stages[i].feeder)
      for (int m : {plan_.stages[i].in[0], plan_.stages[i].residual})
        if (m >= 0) plan_.maps[m].last = static_cast<int>(plan_.stages.size());
  }

  // Bytes of the maps and rows that are there while a stage and what feeds it run.
  size_t live(const Stage& s) const {
    size_t bytes = ring_room(s) + depthwise_room(s);
    if (plan_.maps[s.out].over < 0) bytes += plan_.maps[s.out].bytes;
    if (s.residual >= 0 && s.residual != s.in[0]) bytes += plan_.maps[s.residual].bytes;
    if (s.feeder >= 0) return bytes + live(plan_.stages[s.feeder]);
    return s.in[0] >= 0 ? bytes + plan_.maps[s.in[0]].bytes : bytes;
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

  // Gives what feeds a stage its bands, the least or, with higher ones of the stage itself, what one
  // of those reads; and the strip between them room.
  void follow(const Stage& s) {
    if (s.feeder < 0) return;
    Stage& f = plan_.stages[s.feeder];
    const int rows = std::max(s.alone.band, s.together.band);
    int band = s.alone.band > least_band(s) ? std::min(rows * s.stride, f.out_height) : 1;
    while (band > 1 && working_set(f, band) > most()) band = (band + 1) / 2;
    set_band(&f, std::max(band, least_band(f)));
    f.alone.reuse_ring = f.together.reuse_ring = false;  // it may run in pieces all the same
    Map& strip = plan_.maps[f.out];
    strip.plane = static_cast<int64_t>(std::min(ring_rows_of(s, rows), f.out_height)) *
                  strip.width * strip.block;
    strip.bytes = map_bytes(strip);
    follow(f);
  }

  // The rows of the least band: with fewer pixels the weights, read again for each band, would cost
  // more than what they are multiplied with. Rows that are more than the cache holds cost as much.
  int least_band(const Stage& s) const {
    constexpr int kPixels = 98;  // half of a map of 14 x 14; the mean of what is read and written
    int band = s.out_height;
    auto half = [&] { return (band + 1) / 2; };
    auto pixels = [&](int rows) { return rows * (s.stride * s.in_width + s.out_width) / 2; };
    while (band > 1 && (pixels(half()) >= kPixels || working_set(s, band) > most())) band = half();
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
    map.bytes = map_bytes(map);
    map.first = map.last = static_cast<int>(plan_.stages.size());
    plan_.maps.push_back(map);
    return map_of_[v] = static_cast<int>(plan_.maps.size()) - 1;
  }

  size_t map_bytes(const Map& map) const {
    const size_t each = map.is_float ? sizeof(float) : arithmetic_.map_bytes;
    // a block more than there is, so that a kernel may read past the last pixel's channels
    return aligned(static_cast<size_t>((map.channels + map.block - 1) / map.block) * map.plane *
                       each + kAlign);
  }

  int read_map(int v) {
    Map& map = plan_.maps[map_of_[v]];
    map.last = std::max(map.last, static_cast<int>(plan_.stages.size()));
    return map_of_[v];
  }

  void read(int v, Stage* s) { s->in[s->inputs++] = read_map(v); }

  // The largest first, each at the lowest place that is free as long as it lives.
  void place_maps() {
    auto& maps = plan_.maps;
    for (int i = static_cast<int>(maps.size()) - 1; i >= 0; --i)
      if (maps[i].over >= 0)
        maps[maps[i].over].last = std::max(maps[maps[i].over].last, maps[i].last);
    std::vector<int> order;
    for (size_t i = 0; i < maps.size(); ++i)
      if (maps[i].over < 0 && !maps[i].strip) order.push_back(static_cast<int>(i));
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return maps[a].bytes > maps[b].bytes; });
    for (int i : order) {
      Map& map = maps[i];
      map.offset = gap(map.first, map.last, map.bytes);
      maps_end_ = std::max(maps_end_, map.offset + map.bytes);
      placed_.push_back(i);
    }
    for (Map& map : maps)
      if (map.over >= 0) map.offset = maps[map.over].offset;
  }

  using Places = std::vector<std::pair<size_t, size_t>>;

  // The lowest place for so many bytes that no map uses between two stages, nor who is named.
  size_t gap(int first, int last, size_t bytes, Places taken = {}) const {
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

  // A stage's ring and depthwise rows, and those of what feeds it, lie between the maps that live
  // then. What the largest stage needs for the least bands is there for all: the others take higher
  // ones, as long as that does it.
  void place_rows() {
    size_t end = maps_end_;
    for (Stage& s : plan_.stages) end = std::max(end, place_rows(&s));
    for (Stage& s : plan_.stages) {
      if (s.kind != StageKind::fused || s.feeds) continue;
      const int least = s.alone.band;
      for (int band = s.out_height;; band = (band + 1) / 2) {
        if (band > least && working_set(s, band) > most()) continue;
        set_band(&s, std::max(band, least));
        if (place_rows(&s) <= end || band <= least) break;
      }
    }
    plan_.bytes = end;
  }

  // Returns where the last of them ends.
  size_t place_rows(Stage* s) {
    if (s->feeds) return 0;  // placed with its reader
    follow(*s);
    const int now = static_cast<int>(s - plan_.stages.data());
    Places taken;
    size_t end = 0;
    auto put = [&](size_t bytes) {
      const size_t offset = gap(now, now, bytes, taken);
      if (bytes) taken.emplace_back(offset, offset + bytes);
      end = std::max(end, offset + bytes);
      return offset;
    };
    for (Stage* f = s;; f = &plan_.stages[f->feeder]) {
      f->ring = put(ring_room(*f));
      f->depthwise = put(depthwise_room(*f));
      if (f != s) plan_.maps[f->out].offset = put(plan_.maps[f->out].bytes);
      if (f->feeder < 0) return end;
    }
  }

  size_t ring_room(const Stage& s) const {
    switch (s.kind) {
      case StageKind::fused:
        return room(std::max(ring_bytes(s, s.alone), ring_bytes(s, s.together)));
      case StageKind::pooled:  // one chunk of outputs over all pixels
        return room(padded(s.chunk) * plan_.maps[s.in[0]].pixels() * arithmetic_.map_bytes);
      case StageKind::dense:  // one output row's inputs, gathered
        return room(padded(s.in_channels) * plan_.maps[s.out].width * arithmetic_.map_bytes);
      default: return 0;
    }
  }

  size_t depthwise_room(const Stage& s) const {
    size_t rows = 0;
    if (s.kind == StageKind::fused && s.projects && !s.squeeze)
      for (const Schedule* schedule : {&s.alone, &s.together})
        if (!schedule->by_channels)
          rows = std::max(rows, static_cast<size_t>(schedule->band) * s.out_width);
    return rows ? room(rows * padded(s.expanded) * arithmetic_.map_bytes) : 0;
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
    at.done = put(room(plan_.stages.size() * sizeof(int32_t)));
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
  const bool maps = file.header->wide == kWideMaps;
  plan->arithmetic = plan->precision == Precision::int8 ? maps ? kernels.int8_maps : kernels.int8
                     : plan->precision == Precision::bfloat16 && !widen ? kernels.bfloat16
                                                                        : kernels.float32;
  plan->height = height;
  plan->width = width;
  plan->in_range = file.header->in_range;
  if (file.header->wide) plan->in_largest = kLargestWide;
  if (maps) plan->map_largest = kLargestWide;
  Program program = read_program(file, *plan->arithmetic, widen, shapes);
  Planner(std::move(program), *plan->arithmetic, threads, cache, plan).run();
  return true;
}

}  // namespace mobilenet
