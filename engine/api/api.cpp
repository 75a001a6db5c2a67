// The C API: owns files in memory, turns every failure into a status and a text.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "../dispatch/dispatch.h"
#include "../format/format.h"
#include "../image/prepare.h"
#include "../run/engine.h"
#include "mobilenet.h"

#if defined(_WIN32)
#include <vector>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

using mobilenet::kAlign;

namespace {

// The bytes of a file: mapped, copied to an aligned place, or the caller's own.
class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() {
    if (copy_) ::operator delete(copy_, std::align_val_t{kAlign});
#if !defined(_WIN32)
    if (mapped_) munmap(mapped_, size);
#endif
  }

  const uint8_t* data = nullptr;
  size_t size = 0;

  void borrow(const void* from, size_t bytes) {
    data = static_cast<const uint8_t*>(from);
    size = bytes;
  }

  uint8_t* allocate(size_t bytes) {
    copy_ = ::operator new(bytes, std::align_val_t{kAlign});
    borrow(copy_, bytes);
    return static_cast<uint8_t*>(copy_);
  }

  // Returns 0, or errno. An empty file stays empty bytes, which parsing refuses.
  int map(const char* path);

 private:
  void* copy_ = nullptr;
  void* mapped_ = nullptr;
};

#if defined(_WIN32)
int Bytes::map(const char* path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "rb"), std::fclose);
  if (!file) return errno;
  std::vector<uint8_t> read;
  uint8_t part[1 << 16];
  while (size_t count = std::fread(part, 1, sizeof part, file.get()))
    read.insert(read.end(), part, part + count);
  if (std::ferror(file.get())) return EIO;
  if (!read.empty()) std::memcpy(allocate(read.size()), read.data(), read.size());
  return 0;
}
#else
int Bytes::map(const char* path) {
  // else a pipe would keep open() waiting
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return errno;
  struct stat status;
  int failure = 0;
  if (fstat(file, &status) != 0) {
    failure = errno;
  } else if (!S_ISREG(status.st_mode)) {
    failure = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  } else if (status.st_size > 0) {
    const size_t bytes = static_cast<size_t>(status.st_size);
    void* found = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (found == MAP_FAILED) {
      failure = errno;
    } else {
      mapped_ = found;
      borrow(found, bytes);
    }
  }
  close(file);
  return failure;
}
#endif

thread_local char last_error[1024] = "no error";

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
mobilenet_status
fail(mobilenet_status status, const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return status;
}

// Runs `work`, which returns a status; nothing is thrown across the API.
template <class Work>
mobilenet_status guarded(const char* name, Work work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return fail(MOBILENET_NO_MEMORY, "%s: out of memory", name);
  } catch (const std::exception& error) {  // a thread that cannot be started
    return fail(MOBILENET_NO_MEMORY, "%s: %s", name, error.what());
  }
}

}  // namespace

struct mobilenet_model {
  Bytes bytes;
  mobilenet::File file;
};

struct mobilenet_engine {
  const mobilenet::File* file;
  std::unique_ptr<mobilenet::Engine> engine;
  std::mutex turn;
};

namespace {

mobilenet_status check(std::unique_ptr<mobilenet_model> model, const char* name,
                       mobilenet_model** result) {
  std::string error;
  if (!mobilenet::parse(model->bytes.data, model->bytes.size, &model->file, &error))
    return fail(MOBILENET_BAD_FILE, "%s%s%s", name, *name ? ": " : "", error.c_str());
  *result = model.release();
  return MOBILENET_OK;
}

const char* text(const mobilenet::File& file, uint64_t offset) {
  return reinterpret_cast<const char*>(file.bytes + offset);
}

}  // namespace

mobilenet_status mobilenet_load(const char* path, mobilenet_model** result) {
  if (!path || !result) return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_load: a null pointer");
  *result = nullptr;
  return guarded("mobilenet_load", [&] {
    auto model = std::make_unique<mobilenet_model>();
    if (int failure = model->bytes.map(path))
      return fail(failure == ENOMEM ? MOBILENET_NO_MEMORY : MOBILENET_IO,
                  "%s: cannot be opened: %s", path, std::strerror(failure));
    return check(std::move(model), path, result);
  });
}

mobilenet_status mobilenet_load_memory(const void* data, size_t bytes, mobilenet_model** result) {
  if (!data || !result)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_load_memory: a null pointer");
  *result = nullptr;
  return guarded("mobilenet_load_memory", [&] {
    auto model = std::make_unique<mobilenet_model>();
    if (reinterpret_cast<uintptr_t>(data) % kAlign == 0 || bytes == 0)
      model->bytes.borrow(data, bytes);
    else
      std::memcpy(model->bytes.allocate(bytes), data, bytes);
    return check(std::move(model), "", result);
  });
}

void mobilenet_free_model(mobilenet_model* model) { delete model; }

mobilenet_status mobilenet_plan(const mobilenet_model* model, const mobilenet_options* options,
                                mobilenet_engine** result) {
  if (!model || !result) return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_plan: a null pointer");
  *result = nullptr;
  const mobilenet_options given = options ? *options : mobilenet_options{};
  if (given.height < 0 || given.width < 0 || given.threads < 0)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_plan: height %d, width %d, threads %d: negative",
                given.height, given.width, given.threads);
  return guarded("mobilenet_plan", [&] {
    mobilenet::EngineOptions wanted;
    wanted.height = given.height;
    wanted.width = given.width;
    wanted.threads = given.threads ? given.threads : 1;
    wanted.isa = given.isa;
    auto engine = std::make_unique<mobilenet_engine>();
    std::string error;
    engine->file = &model->file;
    engine->engine = mobilenet::Engine::plan(model->file, wanted, &error);
    if (!engine->engine) return fail(MOBILENET_BAD_ARGUMENT, "%s", error.c_str());
    *result = engine.release();
    return MOBILENET_OK;
  });
}

void mobilenet_free_engine(mobilenet_engine* engine) { delete engine; }

mobilenet_status mobilenet_run(mobilenet_engine* engine, const float* images, int batch,
                               float* const* outputs) {
  if (!engine || !images || !outputs)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_run: a null pointer");
  if (batch < 1) return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_run: batch %d: at least 1", batch);
  return guarded("mobilenet_run", [&] {
    std::lock_guard<std::mutex> mine(engine->turn);
    engine->engine->run(images, batch, outputs);
    return MOBILENET_OK;
  });
}

mobilenet_status mobilenet_profile(mobilenet_engine* engine, const float* image, int runs,
                                   mobilenet_line* lines, int capacity, int* count) {
  if (!engine || !image || !lines || !count)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_profile: a null pointer");
  if (runs < 1) return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_profile: runs %d: at least 1", runs);
  return guarded("mobilenet_profile", [&] {
    std::lock_guard<std::mutex> mine(engine->turn);
    *count = 0;
    for (const auto& part : engine->engine->profile(image, runs))
      if (*count < capacity)
        lines[(*count)++] = {part.step, part.kind, part.seconds, part.macs, part.weight_bytes};
    return MOBILENET_OK;
  });
}

double mobilenet_peak(const mobilenet_engine* engine) { return engine->engine->peak(); }

int mobilenet_output_count(const mobilenet_engine* engine) {
  return static_cast<int>(engine->engine->outputs().size());
}

mobilenet_output mobilenet_output_at(const mobilenet_engine* engine, int index) {
  const auto& outputs = engine->engine->outputs();
  if (index < 0 || static_cast<size_t>(index) >= outputs.size()) return {};
  const auto& output = outputs[static_cast<size_t>(index)];
  return {output.name, output.channels, output.height, output.width};
}

size_t mobilenet_arena_bytes(const mobilenet_engine* engine) {
  return engine->engine->arena_bytes();
}

const char* mobilenet_isa(const mobilenet_engine* engine) { return engine->engine->isa(); }

const char* mobilenet_precision(const mobilenet_model* model) {
  switch (static_cast<mobilenet::Precision>(model->file.header->precision)) {
    case mobilenet::Precision::float32: return "float32";
    case mobilenet::Precision::bfloat16: return "bfloat16";
    case mobilenet::Precision::int8: return "int8";
  }
  return "";  // no file that was parsed
}

int mobilenet_height(const mobilenet_model* model) {
  return static_cast<int>(model->file.header->height);
}

int mobilenet_width(const mobilenet_model* model) {
  return static_cast<int>(model->file.header->width);
}

const char* const* mobilenet_isas(void) { return mobilenet::isas(); }

int mobilenet_label_count(const mobilenet_model* model) {
  return static_cast<int>(model->file.header->label_count);
}

const char* mobilenet_label(const mobilenet_model* model, int index) {
  const auto& header = *model->file.header;
  if (index < 0 || static_cast<uint32_t>(index) >= header.label_count) return nullptr;
  const char* label = text(model->file, header.text + header.labels);
  while (index--) label += std::strlen(label) + 1;
  return label;
}

const char* mobilenet_contract(const mobilenet_model* model) {
  const uint64_t contract = model->file.header->contract;
  return contract ? text(model->file, contract) : "";
}

mobilenet_status mobilenet_prepare(const mobilenet_engine* engine, const uint8_t* rgb, int height,
                                   int width, float* out) {
  if (!engine || !rgb || !out)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_prepare: a null pointer");
  if (height < 1 || width < 1 || height > mobilenet::kMaxPictureSide ||
      width > mobilenet::kMaxPictureSide)
    return fail(MOBILENET_BAD_ARGUMENT, "mobilenet_prepare: height %d, width %d: expected 1 to %d",
                height, width, mobilenet::kMaxPictureSide);
  const auto& header = *engine->file->header;
  if (header.resize == mobilenet::kNone)
    return fail(MOBILENET_BAD_ARGUMENT,
                "mobilenet_prepare: the model's pictures are cropped before they are resized, "
                "which this function does not do");
  if (!mobilenet::prepare(rgb, height, width, static_cast<int>(header.resize),
                          static_cast<int>(header.filter), engine->engine->height(),
                          engine->engine->width(), header.mean, header.std, out))
    return fail(MOBILENET_NO_MEMORY, "mobilenet_prepare: out of memory");
  return MOBILENET_OK;
}

const char* mobilenet_error(void) { return last_error; }
