#include "dispatch.h"

#include <array>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define MOBILENET_X86 1
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#define MOBILENET_ARM 1
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace mobilenet {
namespace {

struct Candidate {
  const char* name;
  const Kernels* (*kernels)();
  bool (*usable)();
};

#if MOBILENET_X86
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned word, int i) { return word >> i & 1; }

// Whether the operating system saves these parts of the registers.
bool saved(uint64_t parts) {
  if (!bit(cpuid(1, 0).ecx, 27)) return false;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((static_cast<uint64_t>(high) << 32 | low) & parts) == parts;
}

[[maybe_unused]] bool has_avx2() {
  const unsigned c = cpuid(1, 0).ecx;
  return saved(0x6) && bit(c, 12) && bit(c, 28) && bit(cpuid(7, 0).ebx, 5);  // FMA, AVX, AVX2
}

#if MOBILENET_EMULATE  // in tests: every x86 machine has them
[[maybe_unused]] bool has_avx512() { return has_avx2(); }
[[maybe_unused]] bool has_vnni() { return has_avx2(); }
[[maybe_unused]] bool has_amx() { return has_avx2(); }
#else
[[maybe_unused]] bool has_avx512() {
  const unsigned b = cpuid(7, 0).ebx;  // F, DQ, BW, VL
  return has_avx2() && saved(0xe6) && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);
}

[[maybe_unused]] bool has_vnni() { return has_avx512() && bit(cpuid(7, 0).ecx, 11); }

[[maybe_unused]] bool has_amx() {
  const unsigned d = cpuid(7, 0).edx;  // BF16, TILE, INT8; AVX512_BF16
  if (!has_vnni() || !bit(d, 22) || !bit(d, 24) || !bit(d, 25) || !bit(cpuid(7, 1).eax, 5))
    return false;
  if (!saved(0x60000)) return false;
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif
#endif

#if MOBILENET_ARM
[[maybe_unused]] bool has_neon() { return true; }  // every AArch64 has it

[[maybe_unused]] bool has_dot() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}
#endif

bool always() { return true; }

const Candidate kCandidates[] = {
#if MOBILENET_AMX
    {"amx", amx_kernels, has_amx},
#endif
#if MOBILENET_VNNI
    {"vnni", vnni_kernels, has_vnni},
#endif
#if MOBILENET_AVX512
    {"avx512", avx512_kernels, has_avx512},
#endif
#if MOBILENET_AVX2
    {"avx2", avx2_kernels, has_avx2},
#endif
#if MOBILENET_NEON
    {"neon_dot", neon_dot_kernels, has_dot},
    {"neon", neon_kernels, has_neon},
#endif
#if MOBILENET_WASM
    {"wasm", wasm_kernels, always},
#endif
    {"scalar", scalar_kernels, always},
};
constexpr int kCount = sizeof kCandidates / sizeof kCandidates[0];

// The usable sets with the gaps of each filled from below.
struct Table {
  std::array<Kernels, kCount> kernels{};
  std::array<const char*, kCount + 1> names{};
  int count = 0;

  Table() {
    for (int i = kCount - 1; i >= 0; --i) {
      if (!kCandidates[i].usable()) continue;
      Kernels k = *kCandidates[i].kernels();
      k.name = kCandidates[i].name;
      if (count > 0) {
        const Kernels& lower = kernels[count - 1];
        if (!k.float32) k.float32 = lower.float32;
        if (!k.bfloat16) k.bfloat16 = lower.bfloat16;
        if (!k.int8) k.int8 = lower.int8;
        if (!k.int8_maps) k.int8_maps = lower.int8_maps;
      }
      kernels[count++] = k;
    }
    for (int i = 0; i < count; ++i) names[i] = kernels[count - 1 - i].name;
  }
};

const Table& table() {
  static const Table instance;
  return instance;
}

}  // namespace

const char* const* isas() { return table().names.data(); }

const Kernels* choose_kernels(const char* cap, std::string* error) {
  const Table& t = table();
  if (!cap) cap = std::getenv("MOBILENET_ENGINE_ISA");
  if (!cap || !*cap) return &t.kernels[t.count - 1];
  int allowed = -1;  // candidates from this one on
  std::string known;
  for (int i = 0; i < kCount; ++i) {
    if (std::strcmp(cap, kCandidates[i].name) == 0) allowed = i;
    known += (i ? ", " : "") + std::string(kCandidates[i].name);
  }
  if (allowed < 0) {
    *error = "instruction set '" + std::string(cap) + "': expected one of " + known;
    return nullptr;
  }
  for (int i = t.count - 1; i >= 0; --i)
    for (int j = allowed; j < kCount; ++j)
      if (std::strcmp(t.kernels[i].name, kCandidates[j].name) == 0) return &t.kernels[i];
  return &t.kernels[0];
}

}  // namespace mobilenet
