// SPDX-License-Identifier: Apache-2.0
#pragma once

// Recognizing what people have in place of safetensors files: pickled weights (which are programs,
// and are never run), archives, pointer files left by a version control system, web pages.

#include <cstddef>
#include <span>
#include <string_view>

#include "quell/core/result.hpp"

namespace quell::io {

/// True for the endings of pickled weights: .bin, .pt, .pth, .ckpt, .pkl.
bool has_pickled_name(std::string_view file_name) noexcept;
/// The error for them. `file` may be a folder that holds nothing else.
Error pickled_fault(std::string_view file);

/// Error (unsupported or parse) if the first bytes of a file are those of something known that is
/// no safetensors file, with what to do.
Status refuse_other_content(std::span<const std::byte> first, std::string_view file);

}  // namespace quell::io
