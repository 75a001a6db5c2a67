/* Run MobileNets: load a model file, plan it for an input size, run it.
 *
 *   mobilenet_model* model;
 *   mobilenet_engine* engine;
 *   if (mobilenet_load("model.mbn", &model) || mobilenet_plan(model, NULL, &engine))
 *     return puts(mobilenet_error());
 *   mobilenet_run(engine, image, 1, outputs);
 *
 * Every function that can fail returns 0 (MOBILENET_OK) or another status, and then
 * mobilenet_error() says what was wrong in this thread's last failed call. A model is never
 * changed: any number of engines and threads may share it. An engine may be called from several
 * threads; the calls take turns.
 */
#ifndef MOBILENET_H
#define MOBILENET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define MOBILENET_API
#else
#define MOBILENET_API __attribute__((visibility("default")))
#endif

typedef enum mobilenet_status {
  MOBILENET_OK = 0,
  MOBILENET_BAD_FILE = 1,     /* truncated, damaged, of another version, not a model */
  MOBILENET_BAD_ARGUMENT = 2, /* a size, a count or an instruction set that cannot be */
  MOBILENET_NO_MEMORY = 3,
  MOBILENET_IO = 4            /* the file cannot be opened or mapped */
} mobilenet_status;

typedef struct mobilenet_model mobilenet_model;
typedef struct mobilenet_engine mobilenet_engine;

typedef struct mobilenet_options {
  int height, width; /* pixels of the input; 0: the size that the file was made for */
  int threads;       /* 0: one */
  const char* isa;   /* highest instruction set to use, such as "avx2"; NULL: MOBILENET_ENGINE_ISA
                        of the environment, and without that the best of this machine */
} mobilenet_options;

typedef struct mobilenet_output {
  const char* name;             /* "logits", or that of a tap; lives as long as the model */
  int channels, height, width;  /* one image: channels * height * width floats, NCHW */
} mobilenet_output;

/* Map a model file and check all of it. */
MOBILENET_API mobilenet_status mobilenet_load(const char* path, mobilenet_model** model);
/* The same for a file in memory, which must stay until the model is freed (it is copied only where
 * it is not 64-byte aligned). */
MOBILENET_API mobilenet_status mobilenet_load_memory(const void* data, size_t bytes,
                                                     mobilenet_model** model);
/* After its engines. NULL is allowed. */
MOBILENET_API void mobilenet_free_model(mobilenet_model* model);

/* Plan a model for an input size and a number of threads; allocates all that running needs. */
MOBILENET_API mobilenet_status mobilenet_plan(const mobilenet_model* model,
                                              const mobilenet_options* options,
                                              mobilenet_engine** engine);
MOBILENET_API void mobilenet_free_engine(mobilenet_engine* engine);

/* Run `batch` preprocessed images, float32 NCHW one after another, into outputs[i], each
 * batch * channels * height * width floats of output i. Allocates nothing. */
MOBILENET_API mobilenet_status mobilenet_run(mobilenet_engine* engine, const float* images,
                                             int batch, float* const* outputs);

MOBILENET_API int mobilenet_output_count(const mobilenet_engine* engine);
MOBILENET_API mobilenet_output mobilenet_output_at(const mobilenet_engine* engine, int index);
MOBILENET_API size_t mobilenet_arena_bytes(const mobilenet_engine* engine); /* activations */
MOBILENET_API const char* mobilenet_isa(const mobilenet_engine* engine);    /* in use */
MOBILENET_API const char* mobilenet_precision(const mobilenet_model* model);
MOBILENET_API int mobilenet_height(const mobilenet_model* model);
MOBILENET_API int mobilenet_width(const mobilenet_model* model);

/* Where the time of one image goes, on one thread: mean seconds of each part of each step of the
 * file, its multiply-adds and its bytes of weights. Fills at most `capacity` lines of `lines` and
 * gives their number in `count`. */
typedef struct mobilenet_line {
  int step;
  const char* kind; /* "stem", "expand", "depthwise", "squeeze-excite", "project", "pointwise",
                       "last", "classifier", "rest" */
  double seconds, macs, weight_bytes;
} mobilenet_line;
MOBILENET_API mobilenet_status mobilenet_profile(mobilenet_engine* engine, const float* image,
                                                 int runs, mobilenet_line* lines, int capacity,
                                                 int* count);
/* Multiply-adds a second of the engine's kernels on registers alone, measured now; 0: not known. */
MOBILENET_API double mobilenet_peak(const mobilenet_engine* engine);

/* What this machine runs, best first, ended by NULL. */
MOBILENET_API const char* const* mobilenet_isas(void);

/* Labels and the contract (model.json) that the file carries. */
MOBILENET_API int mobilenet_label_count(const mobilenet_model* model);
MOBILENET_API const char* mobilenet_label(const mobilenet_model* model, int index);
MOBILENET_API const char* mobilenet_contract(const mobilenet_model* model);

/* Resize, crop and normalise an RGB picture (height * width * 3 bytes, rows from the top) as the
 * model was trained: `out` is 3 * height * width floats of the engine's input. */
MOBILENET_API mobilenet_status mobilenet_prepare(const mobilenet_engine* engine,
                                                 const uint8_t* rgb, int height, int width,
                                                 float* out);

/* What the last failed call of this thread was about; never NULL. */
MOBILENET_API const char* mobilenet_error(void);

#ifdef __cplusplus
}
#endif
#endif
