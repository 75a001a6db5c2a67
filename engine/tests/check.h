// What the engine's tests are made of: CHECK tells which line did not hold, and ends the program.
#ifndef MOBILENET_CHECK_H
#define MOBILENET_CHECK_H

#include <cstdio>
#include <cstdlib>

#define CHECK(condition, ...)                                             \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                  \
      std::fputc('\n', stderr);                                           \
      std::exit(1);                                                       \
    }                                                                     \
  } while (0)

#endif
