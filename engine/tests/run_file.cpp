// Runs a model file on images through the C API alone, for machines that have nothing else.
//
//   run_file MODEL.mbn INPUT OUTPUT [ISA [THREADS]]
//
// INPUT holds preprocessed images, float32 NCHW of the model's size, one after another; OUTPUT
// receives every output in turn, the whole batch of it. Prints the instruction set in use.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "mobilenet.h"

namespace {

int fail(const char* what) {
  std::fprintf(stderr, "run_file: %s\n", what);
  return 1;
}

std::vector<float> read(const char* path) {
  std::vector<float> numbers;
  std::FILE* file = std::fopen(path, "rb");
  if (!file) return numbers;
  float part[4096];
  while (const size_t count = std::fread(part, sizeof *part, sizeof part / sizeof *part, file))
    numbers.insert(numbers.end(), part, part + count);
  std::fclose(file);
  return numbers;
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return fail("MODEL.mbn INPUT OUTPUT [ISA [THREADS]]");
  mobilenet_model* model;
  if (mobilenet_load(words[1], &model)) return fail(mobilenet_error());
  mobilenet_options options{};
  if (count > 4) options.isa = words[4];
  if (count > 5) options.threads = std::atoi(words[5]);
  mobilenet_engine* engine;
  if (mobilenet_plan(model, &options, &engine)) return fail(mobilenet_error());

  const std::vector<float> images = read(words[2]);
  const size_t each = size_t{3} * mobilenet_height(model) * mobilenet_width(model);
  if (images.empty() || images.size() % each) return fail("the input holds no whole images");
  const size_t batch = images.size() / each;
  std::vector<std::vector<float>> results;
  std::vector<float*> outputs;
  for (int i = 0; i < mobilenet_output_count(engine); ++i) {
    const mobilenet_output output = mobilenet_output_at(engine, i);
    results.emplace_back(batch * output.channels * output.height * output.width);
    outputs.push_back(results.back().data());
  }
  if (mobilenet_run(engine, images.data(), static_cast<int>(batch), outputs.data()))
    return fail(mobilenet_error());

  std::FILE* file = std::fopen(words[3], "wb");
  if (!file) return fail("the output cannot be written");
  for (const auto& result : results) std::fwrite(result.data(), sizeof(float), result.size(), file);
  if (std::fclose(file)) return fail("the output cannot be written");
  std::puts(mobilenet_isa(engine));
  mobilenet_free_engine(engine);
  mobilenet_free_model(model);
  return 0;
}
