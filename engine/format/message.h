// Failures with a text.
#ifndef MOBILENET_MESSAGE_H
#define MOBILENET_MESSAGE_H

#include <cstdarg>
#include <cstdio>
#include <string>

namespace mobilenet {

// Writes the text and returns false.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
inline bool fail(std::string* error, const char* format, ...) {
  char text[512];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  *error = text;
  return false;
}

}  // namespace mobilenet

#endif
