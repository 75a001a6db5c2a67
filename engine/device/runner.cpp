// Runs a model file on a device that has nothing else, and says how long it took.
//
//   runner MODEL.mbn JOB ANSWERS THREADS REPEAT WARM_UP [CORES]
//
// JOB      "MBJOB1\n\0", then for each picture: uint32 kind, height, width; for kind 0 the bytes of
//          a decoded RGB picture, which is resized and normalised here, for kind 1 the 3 * height *
//          width float32 of a prepared one. Pictures are read one at a time.
// ANSWERS  for each picture: REPEAT times two float64, the seconds of preparing and of running; then
//          the float32 logits
// CORES    such as 4,5: where the process and its threads may run
//
// Prints one line of JSON: the instruction set, and temperatures and clocks before and after.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "mobilenet.h"

namespace {

constexpr char kMagic[8] = {'M', 'B', 'J', 'O', 'B', '1', '\n', '\0'};
constexpr uint32_t kLongest = 1u << 15;  // pixels of a side

int fail(const char* what) {
  std::fprintf(stderr, "runner: %s\n", what);
  return 1;
}

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

// The first line of a file, "" where it cannot be read; without what JSON would not take.
std::string line_of(const std::string& path) {
  File file(std::fopen(path.c_str(), "r"));
  char text[256] = "";
  if (!file || !std::fgets(text, sizeof text, file.get())) return "";
  std::string found;
  for (const char* c = text; *c; ++c)
    if (*c >= ' ' && *c != '"' && *c != '\\' && *c < 127) found += *c;
  return found;
}

// [["name", "value"], ...] of numbered files, as far as there are any.
std::string listed(const std::string& before, const char* name, const char* value) {
  std::string found;
  for (int i = 0; i < 256; ++i) {
    const std::string folder = before + std::to_string(i) + "/";
    const std::string number = line_of(folder + value);
    if (number.empty()) {
      if (i >= 32) break;
      continue;
    }
    const std::string title = name ? line_of(folder + name) : std::to_string(i);
    found += (found.empty() ? "[\"" : ",[\"") + title + "\",\"" + number + "\"]";
  }
  return "[" + found + "]";
}

std::string state() {
  return "{\"temperatures\":" + listed("/sys/class/thermal/thermal_zone", "type", "temp") +
         ",\"clocks\":" +
         listed("/sys/devices/system/cpu/cpu", nullptr, "cpufreq/scaling_cur_freq") +
         ",\"governors\":" +
         listed("/sys/devices/system/cpu/cpu", nullptr, "cpufreq/scaling_governor") + "}";
}

bool pin(const char* cores) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const char* at = cores; *at;) {
    char* end;
    const long core = std::strtol(at, &end, 10);
    if (end == at || core < 0 || core >= CPU_SETSIZE) return false;
    CPU_SET(static_cast<int>(core), &set);
    at = *end == ',' ? end + 1 : end;
    if (end == at && *at) return false;
  }
  return sched_setaffinity(0, sizeof set, &set) == 0;
#else
  return false;
#endif
}

double seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

struct Picture {
  uint32_t kind, height, width;
};

}  // namespace

int main(int count, char** words) {
  if (count < 7) return fail("MODEL.mbn JOB ANSWERS THREADS REPEAT WARM_UP [CORES]");
  const int repeat = std::atoi(words[5]), warm_up = std::atoi(words[6]);
  if (repeat < 1 || warm_up < 0) return fail("REPEAT or WARM_UP: not a count");
  if (count > 7 && !pin(words[7])) return fail("CORES: cannot run there");  // before any thread
  mobilenet_model* model;
  if (mobilenet_load(words[1], &model)) return fail(mobilenet_error());
  mobilenet_options options{};
  options.threads = std::atoi(words[4]);
  mobilenet_engine* engine;
  if (mobilenet_plan(model, &options, &engine)) return fail(mobilenet_error());
  const uint32_t high = static_cast<uint32_t>(mobilenet_height(model));
  const uint32_t wide = static_cast<uint32_t>(mobilenet_width(model));
  std::vector<float> image(size_t{3} * high * wide);
  const mobilenet_output output = mobilenet_output_at(engine, 0);
  std::vector<float> logits(static_cast<size_t>(output.channels) * output.height * output.width);
  float* outputs[] = {logits.data()};
  if (mobilenet_output_count(engine) != 1) return fail("the model has several outputs");

  File job(std::fopen(words[2], "rb"));
  File answers(std::fopen(words[3], "wb"));
  char magic[sizeof kMagic];
  if (!job || std::fread(magic, sizeof magic, 1, job.get()) != 1 ||
      std::memcmp(magic, kMagic, sizeof magic) != 0)
    return fail("JOB: cannot be read");
  if (!answers) return fail("ANSWERS: cannot be written");

  const std::string before = state();
  bool warm = false;
  std::vector<uint8_t> rgb;
  std::vector<double> times(size_t{2} * static_cast<size_t>(repeat));
  Picture picture;
  while (std::fread(&picture, sizeof picture, 1, job.get()) == 1) {
    if (picture.height < 1 || picture.height > kLongest || picture.width < 1 ||
        picture.width > kLongest || picture.kind > 1)
      return fail("JOB: damaged");
    if (picture.kind == 0) {
      rgb.resize(size_t{3} * picture.height * picture.width);
      if (std::fread(rgb.data(), 1, rgb.size(), job.get()) != rgb.size())
        return fail("JOB: cut short");
    } else {
      if (picture.height != high || picture.width != wide)
        return fail("JOB: a prepared picture of another size");
      if (std::fread(image.data(), sizeof(float), image.size(), job.get()) != image.size())
        return fail("JOB: cut short");
    }
    for (int turn = warm ? 0 : -warm_up; turn < repeat; ++turn) {
      const double start = seconds();
      if (picture.kind == 0 &&
          mobilenet_prepare(engine, rgb.data(), static_cast<int>(picture.height),
                            static_cast<int>(picture.width), image.data()))
        return fail(mobilenet_error());
      const double prepared = seconds();
      if (mobilenet_run(engine, image.data(), 1, outputs)) return fail(mobilenet_error());
      if (turn < 0) continue;
      times[2 * static_cast<size_t>(turn)] = prepared - start;
      times[2 * static_cast<size_t>(turn) + 1] = seconds() - prepared;
    }
    warm = true;
    if (std::fwrite(times.data(), sizeof(double), times.size(), answers.get()) != times.size() ||
        std::fwrite(logits.data(), sizeof(float), logits.size(), answers.get()) != logits.size())
      return fail("ANSWERS: cannot be written");
  }
  if (std::fclose(answers.release())) return fail("ANSWERS: cannot be written");
  std::printf("{\"isa\":\"%s\",\"precision\":\"%s\",\"classes\":%d,\"before\":%s,\"after\":%s}\n",
              mobilenet_isa(engine), mobilenet_precision(model), output.channels, before.c_str(),
              state().c_str());
  mobilenet_free_engine(engine);
  mobilenet_free_model(model);
  return 0;
}
