// SPDX-License-Identifier: Apache-2.0

// Detection asks does the processor have the instructions (CPUID), does the operating system save
// their registers (XCR0), and may this process use them (tiles on Linux). The answer is computed
// once; the cap is an atomic beside it, first set from QUELL_ISA, so that one machine can test all
// lower choices.

#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "kernels/detect.hpp"
#include "kernels/target.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/isa.hpp"

#if QUELL_X86
#include <cpuid.h>
#endif
#if QUELL_NEON && defined(__linux__)
#include <sys/auxv.h>
#endif
#if QUELL_X86 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace quell::kernels {
namespace {

struct Name {
  Isa isa;
  std::string_view text;
};
constexpr Name kNames[] = {{Isa::scalar, "scalar"},
                           {Isa::avx2, "avx2"},
                           {Isa::avx512, "avx512"},
                           {Isa::avx512vnni, "avx512vnni"},
                           {Isa::avx512bf16, "avx512bf16"},
                           {Isa::amx, "amx"},
                           {Isa::neon, "neon"},
                           {Isa::neondot, "neondot"}};

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

struct Machine {
  Registers leaf0, leaf1, leaf7, leaf7_1;
  bool saves_ymm = false;    // XCR0 bits 1 and 2: XMM and YMM state
  bool saves_zmm = false;    // and bits 5 to 7: mask registers, upper halves, upper sixteen
  bool saves_tiles = false;  // bits 17 and 18: AMX
  bool neon = false, dot_products = false, int8_matrices = false;
};

#if QUELL_X86
Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

Machine detect() {
  Machine machine;
  machine.leaf0 = cpuid(0, 0);
  machine.leaf1 = cpuid(1, 0);
  machine.leaf7 = cpuid(7, 0);
  if (machine.leaf7.a >= 1) machine.leaf7_1 = cpuid(7, 1);
  const bool os_uses_xsave = (machine.leaf1.c >> 27 & 1) != 0;
  if (os_uses_xsave) {
    unsigned low = 0, high = 0;
    // The instruction is written out because its intrinsic wants a target flag.
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    machine.saves_ymm = (low & 0x6) == 0x6;
    machine.saves_zmm = (low & 0xe6) == 0xe6;
    machine.saves_tiles = (low & 0x60000) == 0x60000;
  }
  return machine;
}
#else
Machine detect() {
  Machine machine;
#if QUELL_NEON
  machine.neon = true;  // the architecture's floor
#if defined(__linux__)
  // Bits of the kernel's interface, HWCAP_ASIMDDP and HWCAP2_I8MM; old headers have no names.
  machine.dot_products = (getauxval(AT_HWCAP) >> 20 & 1) != 0;
  machine.int8_matrices = (getauxval(AT_HWCAP2) >> 13 & 1) != 0;
#endif
#endif
  return machine;
}
#endif

/// Linux gives the 8 KB of tiles to processes that ask. A process without tiles is not slowed when
/// its threads are switched, so the question waits until an entry for tiles is a choice. It is
/// refused where a thread's signal stack is too small to hold them.
bool tiles_permitted() noexcept {
#if QUELL_X86 && defined(__linux__)
  constexpr long kGetPermission = 0x1022, kAskPermission = 0x1023, kTiles = 18;
  static const bool permitted = [] {
    std::uint64_t features = 0;
    syscall(SYS_arch_prctl, kAskPermission, kTiles);
    // The answer is checked: kernels before 5.16 know no such question.
    return syscall(SYS_arch_prctl, kGetPermission, &features) == 0 && (features >> kTiles & 1) != 0;
  }();
  return permitted;
#else
  return false;
#endif
}

const Machine& machine() {
  static const Machine found = detect();
  return found;
}

constexpr bool bit(unsigned word, unsigned index) {
  return (word >> index & 1) != 0;
}

bool machine_has(Isa isa) noexcept {
  const Machine& m = machine();
  // AVX, FMA, F16C, AVX2; F, DQ, BW, VL.
  const bool avx2 = m.saves_ymm && bit(m.leaf1.c, 28) && bit(m.leaf1.c, 12) && bit(m.leaf1.c, 29) &&
                    bit(m.leaf7.b, 5);
  const bool avx512 = avx2 && m.saves_zmm && bit(m.leaf7.b, 16) && bit(m.leaf7.b, 17) &&
                      bit(m.leaf7.b, 30) && bit(m.leaf7.b, 31);
  const bool vnni = avx512 && bit(m.leaf7.c, 11);
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512vnni:
      return vnni;
    case Isa::avx512bf16:
      return vnni && bit(m.leaf7_1.a, 5);
    case Isa::amx:  // tiles, and their products of int8 and of bfloat16
      return vnni && m.saves_tiles && bit(m.leaf7.d, 24) && bit(m.leaf7.d, 25) &&
             bit(m.leaf7.d, 22) && tiles_permitted();
    case Isa::neon:
      return m.neon;
    case Isa::neondot:
      return m.dot_products;
  }
  return false;
}

constexpr Isa kNoCap = Isa::neondot;  // the highest enumerator

Isa cap_from_environment() noexcept {
  const char* text = std::getenv("QUELL_ISA");
  // A word that is no instruction set cannot lower anything; the program that reads the variable on
  // behalf of a user checks it with parse_isa.
  return text != nullptr ? parse_isa(text).value_or(kNoCap) : kNoCap;
}

std::atomic<Isa>& cap() noexcept {
  static std::atomic<Isa> value{cap_from_environment()};
  return value;
}

}  // namespace

bool bf16_vectors_pay() noexcept {
  const Registers& vendor = machine().leaf0;
  return bf16_vectors_pay(vendor.b, vendor.d, vendor.c);
}

std::string_view to_string(Isa isa) noexcept {
  for (const Name& name : kNames) {
    if (name.isa == isa) return name.text;
  }
  return "unknown";
}

std::optional<Isa> parse_isa(std::string_view name) noexcept {
  for (const Name& known : kNames) {
    if (known.text == name) return known.isa;
  }
  return std::nullopt;
}

std::string isa_names() {
  std::string list;
  for (const Name& name : kNames) list.append(list.empty() ? "" : ", ").append(name.text);
  return list;
}

bool has(Isa isa) noexcept {
  return static_cast<int>(isa) <= static_cast<int>(cap().load(std::memory_order_relaxed)) &&
         machine_has(isa);
}

void set_isa_cap(Isa value) noexcept {
  cap().store(value, std::memory_order_relaxed);
}
void clear_isa_cap() noexcept {
  cap().store(cap_from_environment(), std::memory_order_relaxed);
}

std::vector<std::string_view> cpu_features() {
  const Machine& m = machine();
  struct Feature {
    std::string_view name;
    bool present;
  };
  const Feature features[] = {
      {"avx", m.saves_ymm && bit(m.leaf1.c, 28)},
      {"fma", m.saves_ymm && bit(m.leaf1.c, 12)},
      {"f16c", m.saves_ymm && bit(m.leaf1.c, 29)},
      {"avx2", m.saves_ymm && bit(m.leaf7.b, 5)},
      {"avx_vnni", m.saves_ymm && bit(m.leaf7_1.a, 4)},
      {"avx512f", m.saves_zmm && bit(m.leaf7.b, 16)},
      {"avx512dq", m.saves_zmm && bit(m.leaf7.b, 17)},
      {"avx512bw", m.saves_zmm && bit(m.leaf7.b, 30)},
      {"avx512vl", m.saves_zmm && bit(m.leaf7.b, 31)},
      {"avx512_vnni", m.saves_zmm && bit(m.leaf7.c, 11)},
      {"avx512_bf16", m.saves_zmm && bit(m.leaf7_1.a, 5)},
      {"avx512_fp16", m.saves_zmm && bit(m.leaf7.d, 23)},
      {"amx_tile", m.saves_tiles && bit(m.leaf7.d, 24)},
      {"amx_int8", m.saves_tiles && bit(m.leaf7.d, 25)},
      {"amx_bf16", m.saves_tiles && bit(m.leaf7.d, 22)},
      {"neon", m.neon},
      {"asimddp", m.dot_products},
      {"i8mm", m.int8_matrices},
  };
  std::vector<std::string_view> names;
  for (const Feature& feature : features) {
    if (feature.present) names.push_back(feature.name);
  }
  return names;
}

}  // namespace quell::kernels
