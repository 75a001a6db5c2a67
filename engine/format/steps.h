// The part of parse() that checks steps: what they read, their dimensions, arrays and numbers.
#ifndef MOBILENET_STEPS_H
#define MOBILENET_STEPS_H

#include <string>

#include "format.h"
#include "layout.h"

namespace mobilenet {

// `file`: the header is checked, the tables lie in the file, outputs are values that there are.
bool check_steps(const File& file, Layout* layout, std::string* error);

bool check_range(const char* what, const Affine& range, bool wide, std::string* error);

}  // namespace mobilenet

#endif
