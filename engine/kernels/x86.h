// The intrinsics of x86. The tests build with them emulated, to run every kernel on any machine.
#ifndef MOBILENET_X86_H
#define MOBILENET_X86_H

#if MOBILENET_EMULATE
#include "emulate.h"
namespace mobilenet { constexpr bool kEmulated = true; }
#else
namespace mobilenet { constexpr bool kEmulated = false; }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // gcc 12 takes what its own headers leave undefined for our mistake
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#endif
