// One thread's way through the stages of a plan, alone or together with others.
#ifndef MOBILENET_WALK_H
#define MOBILENET_WALK_H

#include "../plan/plan.h"
#include "../pool/pool.h"
#include "engine.h"

namespace mobilenet {

class Walk {
 public:
  // `shared` is the arena of the maps, `arena` this thread's; no barrier for one thread; `seconds`
  // is null, or [stages][kParts] to which the time of every part is added.
  Walk(const Plan& plan, uint8_t* shared, uint8_t* arena, int thread, int threads,
       Barrier* barrier, const float* image, double* seconds)
      : plan(plan),
        shared(shared),
        arena(arena),
        thread(thread),
        threads(threads),
        barrier(barrier),
        image(image),
        seconds(seconds) {}

  void run();

 private:
  // fused.cpp
  void fused(const Stage& s);
  void rows(const Stage& s, int from, int to);
  void start(const Stage& s);
  void band(const Stage& s, int row, int count, int out_row);
  void feed(const Stage& s, int from, int to);
  void channels(const Stage& s);
  void clear_sides(const Stage& s, const Schedule& schedule);
  int pixels_in_ring(const Stage& s, const Schedule& schedule, int from, int to, int width);
  void produce(const Stage& s, const Schedule& schedule, int channel, int count, int from, int to,
               float* ring);
  int locate_rows(const Stage& s, const Schedule& schedule, int out_row, int out_rows);
  void filter(const Stage& s, const Schedule& schedule, int channel, int count, int out_row,
              int out_rows, const float* ring, uint8_t* out, int64_t plane, int block);
  void squeeze(const Stage& s, int depthwise);
  void vector(const Weights& w, const void* in, int inputs, int from, int to, void* out,
              Store store, const Rounding& rounding);
  Pointwise project_arguments(const Stage& s) const;
  void project(const Stage& s, Pointwise g);

  // simple.cpp
  void pointwise(const Stage& s);
  void pooled(const Stage& s);
  void stem(const Stage& s);
  void stem_row(const Stage& s, int row, void* out, int64_t plane, int block, Store store);
  void dense(const Stage& s);
  void padding(uint8_t* to, int32_t zero) const;
  void pool(const Stage& s);
  void mean(const void* sums, int count, int pixels, int32_t zero, float scale,
            const Rounding& rounding, int out, int channel) const;
  void mean(const void* sums, int count, int pixels, int32_t zero, float scale,
            const Rounding& rounding, void* out) const;
  void elementwise(const Stage& s);
  void sigmoid(const Stage& s);

  const Schedule& schedule_of(const Stage& s) const { return threads > 1 ? s.together : s.alone; }
  int32_t& done(const Stage& s) const {
    return own<int32_t>(plan.scratch.done)[&s - plan.stages.data()];
  }
  int64_t ring_plane(const Stage& s, const Schedule& schedule) const {
    return static_cast<int64_t>(schedule.ring_rows) * s.columns * kBlock;
  }
  template <class T>
  T* own(size_t offset) const {
    return reinterpret_cast<T*>(arena + offset);
  }
  template <class T>
  T* common(size_t offset) const {
    return reinterpret_cast<T*>(shared + offset);
  }
  const Map& map(int i) const { return plan.maps[i]; }
  uint8_t* at(int i) const {
    return (plan.maps[i].strip ? arena : shared) + plan.maps[i].offset;
  }
  int each(int i) const {
    return plan.maps[i].is_float ? static_cast<int>(sizeof(float)) : plan.arithmetic->map_bytes;
  }
  // Address of a channel, a multiple of 16, of a pixel.
  uint8_t* place(int i, int channel, int64_t pixel) const {
    const Map& m = plan.maps[i];
    return at(i) + (channel / m.block * m.plane + pixel * m.block + channel % m.block) * each(i);
  }
  Store store(int i) const {
    return plan.maps[i].is_float ? Store::float32 : Store::map;
  }
  void wait() const {
    if (barrier) barrier->wait();
  }
  int share(int count, int t) const {
    return static_cast<int>(static_cast<int64_t>(count) * t / threads);
  }
  void charge(Part part);

  float* sums(int t) const { return common<float>(plan.sums + t * plan.sums_stride); }

  const Plan& plan;
  uint8_t* const shared;
  uint8_t* const arena;
  const int thread, threads;
  Barrier* const barrier;
  const float* const image;
  double* const seconds;
  int stage_ = 0;
  int planes_end_ = 0;  // the image row behind the last one that the planes hold
  double since_ = 0;
};

inline int blocks(int channels) { return (channels + kBlock - 1) / kBlock; }

// The weights and numbers of the outputs from `channel` on; biases are four bytes in every
// precision.
inline void from_output(const Weights& w, int channel, Pointwise* g) {
  g->weights = static_cast<const uint8_t*>(w.matrix) + channel / kBlock * w.panel;
  g->panel = w.panel;
  g->bias = static_cast<const uint8_t*>(w.bias) + static_cast<size_t>(channel) * 4;
  g->multiplier = w.multiplier ? w.multiplier + channel : nullptr;
}

}  // namespace mobilenet

#endif
