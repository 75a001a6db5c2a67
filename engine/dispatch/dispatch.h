// Which instruction set to use: the best that this machine has, that was compiled in and allowed.
#ifndef MOBILENET_DISPATCH_H
#define MOBILENET_DISPATCH_H

#include <string>

#include "../kernels/kernels.h"

namespace mobilenet {

// Names of the usable sets, best first, ended by a null pointer.
const char* const* isas();

// The kernels of the best usable set at or below `cap` (null: MOBILENET_ENGINE_ISA of the
// environment, and without it no cap). Where a set lacks a precision, that of the next lower set is
// in the table. Null with a message where the cap is no known name.
const Kernels* choose_kernels(const char* cap, std::string* error);

}  // namespace mobilenet

#endif
