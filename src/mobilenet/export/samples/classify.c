/* Name what is on a picture: classify model.mbn picture.ppm
 *
 * With the static library and its header installed in DIR (see CMakeLists.txt), and a binary PPM,
 * which `convert picture.jpg picture.ppm` or `djpeg` makes:
 *
 *   cc -std=c99 -O2 -I DIR/include classify.c -L DIR/lib -lmobilenet -lstdc++ -lm -lpthread
 *
 * (-lc++ in place of -lstdc++ where that is the C++ library, as on macOS.)
 */
#include <math.h>
#include <mobilenet.h>
#include <stdio.h>
#include <stdlib.h>

/* One number of a PPM header, behind white space and comments; 0 where there is none. */
static int number(FILE *file) {
  int c = getc(file), value = 0;
  while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = getc(file);
    c = getc(file);
  }
  for (; c >= '0' && c <= '9' && value < 100000; c = getc(file)) value = 10 * value + c - '0';
  return value; /* the one character behind it has been read */
}

static unsigned char *read_ppm(const char *path, int *width, int *height) {
  FILE *file = fopen(path, "rb");
  unsigned char *rgb = NULL;
  if (file && getc(file) == 'P' && getc(file) == '6' && (*width = number(file)) > 0 &&
      (*height = number(file)) > 0 && number(file) == 255) {
    const size_t bytes = (size_t)*width * (size_t)*height * 3;
    rgb = malloc(bytes);
    if (rgb && fread(rgb, 1, bytes, file) != bytes) {
      free(rgb);
      rgb = NULL;
    }
  }
  if (file) fclose(file);
  return rgb;
}

int main(int argc, char **argv) {
  mobilenet_model *model = NULL;
  mobilenet_engine *engine = NULL;
  int width, height, i, best, shown;
  if (argc != 3) return fprintf(stderr, "usage: classify model.mbn picture.ppm\n"), 2;
  unsigned char *rgb = read_ppm(argv[2], &width, &height);
  if (!rgb) return fprintf(stderr, "%s: not a binary PPM of 8 bits\n", argv[2]), 1;

  if (mobilenet_load(argv[1], &model) || mobilenet_plan(model, NULL, &engine))
    return fprintf(stderr, "%s\n", mobilenet_error()), 1;
  const mobilenet_output logits = mobilenet_output_at(engine, 0);
  const int classes = logits.channels;
  float *image = malloc(sizeof(float) * 3 * mobilenet_height(model) * mobilenet_width(model));
  float *scores = malloc(sizeof(float) * classes);
  if (!image || !scores) return fprintf(stderr, "out of memory\n"), 1;
  if (mobilenet_prepare(engine, rgb, height, width, image) ||
      mobilenet_run(engine, image, 1, &scores))
    return fprintf(stderr, "%s\n", mobilenet_error()), 1;

  float most = scores[0], sum = 0; /* softmax; the largest first, so that nothing overflows */
  for (i = 1; i < classes; i++) most = fmaxf(most, scores[i]);
  for (i = 0; i < classes; i++) sum += scores[i] = expf(scores[i] - most);
  for (shown = 0; shown < 5 && shown < classes; shown++) {
    for (i = 1, best = 0; i < classes; i++)
      if (scores[i] > scores[best]) best = i;
    printf("%6.2f %%  %s\n", 100 * scores[best] / sum, mobilenet_label(model, best));
    scores[best] = -1;
  }
  free(scores), free(image), free(rgb);
  mobilenet_free_engine(engine);
  mobilenet_free_model(model);
  return 0;
}
