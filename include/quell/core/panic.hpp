// SPDX-License-Identifier: Apache-2.0
#pragma once

// Broken contracts. A panic is a bug in the calling code, never bad input: bad input is a Result.
// The handler is the one replaceable function of the library; the default writes one line and aborts
// and is the only code here that does either. A host that likes exceptions installs one that throws.

#include <cstdio>
#include <cstdlib>

namespace quell {

/// Called with a sentence about the broken contract. Must not return.
using PanicHandler = void (*)(const char* message);

namespace detail {
[[noreturn]] inline void abort_with_message(const char* message) {
  std::fprintf(stderr, "quell: broken contract: %s\n", message);
  std::abort();
}
inline PanicHandler panic_handler = &abort_with_message;
}  // namespace detail

/// Replaces the handler; meant to be called once, before other threads use the library.
inline void set_panic_handler(PanicHandler handler) noexcept {
  detail::panic_handler = handler != nullptr ? handler : &detail::abort_with_message;
}

[[noreturn]] inline void panic(const char* message) {
  detail::panic_handler(message);
  std::abort();  // a handler that returns would leave the caller with nothing to do
}

}  // namespace quell

// Contract checks, on in builds with QUELL_CHECKED (the debug preset, the tests).
#if defined(QUELL_CHECKED)
#define QUELL_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::quell::panic(__FILE__ ": " #condition))
#else
#define QUELL_ASSERT(condition) static_cast<void>(0)
#endif
