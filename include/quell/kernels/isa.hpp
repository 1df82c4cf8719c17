// SPDX-License-Identifier: Apache-2.0
#pragma once

// Instruction sets: what this machine has, and the cap that tests lower.

#include <optional>
#include <string>
#include <string_view>

namespace quell::kernels {

/// In ascending order of preference within an architecture. An entry of a family names one of
/// these.
enum class Isa { scalar, avx2, avx512, avx512vnni, avx512bf16, amx, neon, neondot };

std::string_view to_string(Isa isa) noexcept;
std::optional<Isa> parse_isa(std::string_view name) noexcept;
/// All that parse_isa takes, for messages: "scalar, avx2, ...".
std::string isa_names();

/// True if the processor has it and the operating system saves its registers, and the cap allows
/// it. The first question about amx asks Linux for the process's permission to use tiles.
bool has(Isa isa) noexcept;

/// Lowers the choice for weights packed and calls made from now on (scalar: everything off). The
/// environment variable QUELL_ISA sets the first value; neither can raise what the machine has.
void set_isa_cap(Isa cap) noexcept;
void clear_isa_cap() noexcept;

}  // namespace quell::kernels
