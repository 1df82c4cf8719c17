// SPDX-License-Identifier: Apache-2.0
#pragma once

// Errors of this module: every one starts with the file and repeats file and tensor for machines.

#include <cstdint>
#include <string>
#include <string_view>

#include "quell/core/result.hpp"
#include "quell/io/printable.hpp"

namespace quell::io {

// Paths are shown whole: a user has to be able to open what is named.
inline constexpr std::size_t kPathLength = 4096;

/// "FILE: MESSAGE".
inline Error file_fault(ErrorCode code, std::string_view file, std::string_view message) {
  Error error{code, printable(file, kPathLength) + ": "};
  error.message += message;
  error.file = std::string(file);
  return error;
}

/// "FILE: tensor NAME MESSAGE".
inline Error tensor_fault(ErrorCode code, std::string_view file, std::string_view tensor,
                          std::string_view message) {
  Error error = file_fault(code, file, "tensor " + printable(tensor) + " ");
  error.message += message;
  error.tensor = std::string(tensor);
  return error;
}

}  // namespace quell::io
