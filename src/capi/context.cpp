// SPDX-License-Identifier: Apache-2.0

// Contexts: the caller's memory and threads, checked where they are taken over.

#include <cstdlib>
#include <iterator>
#include <optional>

#include "capi/handles.hpp"
#include "quell/version.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace quell::capi {
namespace {

// On large pages where it fills some, as core/tensor.hpp does and for its reasons.
void* allocate_from_system(void*, std::size_t bytes, std::size_t alignment) {
  const bool large = bytes >= AlignedBytes::kLargePage;
  const std::size_t least = large ? AlignedBytes::kLargePage : sizeof(void*);
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, least), bytes) != 0) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (large) {
    const std::size_t whole = bytes / AlignedBytes::kLargePage * AlignedBytes::kLargePage;
    static_cast<void>(madvise(memory, whole, MADV_HUGEPAGE));
  }
#endif
  return memory;
}
void release_to_system(void*, void* memory, std::size_t) {
  std::free(memory);
}

}  // namespace

Allocator::Allocator() noexcept
    : from_{sizeof(quell_allocator), nullptr, allocate_from_system, release_to_system} {}

void* Allocator::take(std::size_t bytes, std::size_t alignment) const noexcept {
  void* memory = from_.allocate(from_.state, bytes, alignment);
  if (reinterpret_cast<std::uintptr_t>(memory) % alignment == 0) return memory;
  from_.release(from_.state, memory, bytes);
  return nullptr;
}

void HostExecutor::part(void* work, std::size_t begin, std::size_t end, unsigned slot) {
  if (work == nullptr) return;
  auto& job = *static_cast<Work*>(work);
  if (slot >= job.width) {
    job.fault = Fault::slot;
  } else if (begin > end || end > job.n || (begin != end && begin % job.grain != 0)) {
    job.fault = Fault::range;
  } else if (begin != end) {
    job.covered += end - begin;
#if defined(__cpp_exceptions)
    try {
      job.fn(begin, end, slot);
    } catch (...) {
      job.fault = Fault::memory;
    }
#else
    job.fn(begin, end, slot);
#endif
  }
}

void HostExecutor::run(std::size_t n, std::size_t grain, RangeFunction fn) {
  if (n == 0) return;
  if (!has_host_) return fn(0, n, 0);
  Work work{fn, n, grain, host_.width};
  host_.run(host_.state, n, grain, &HostExecutor::part, &work);
  if (work.fault != Fault::none) {
    fault_ = work.fault;
  } else if (work.covered != n) {
    fault_ = Fault::covered;
  }
}

Status HostExecutor::check() const {
  switch (fault_) {
    case Fault::none:
      return ok();
    case Fault::memory:
      return Error{ErrorCode::resource, "out of memory on a thread of the executor"};
    case Fault::slot:
      return usage("the executor passed a slot that is not below its width, " +
                   std::to_string(host_.width));
    case Fault::range:
      return usage("the executor passed a range outside of the work, or not at a grain");
    case Fault::covered:
      return usage("the executor did not cover the work exactly once");
  }
  return ok();
}

namespace {

/// Options, whose two structures may be absent, to a context on the stack.
Status take_over(const quell_context_options* options, Allocator& memory,
                 std::optional<quell_executor>& host) {
  if (options == nullptr) return ok();
  QUELL_TRY(known, read_struct("quell_context_options", options));
  if (known.allocator != nullptr) {
    QUELL_TRY(allocator, read_struct("quell_allocator", known.allocator));
    if (allocator.allocate == nullptr || allocator.release == nullptr) {
      return usage("quell_allocator: a function is null");
    }
    memory = Allocator(allocator);
  }
  if (known.executor != nullptr) {
    QUELL_TRY(executor, read_struct("quell_executor", known.executor));
    if (executor.run == nullptr || executor.width == 0) {
      return usage("quell_executor: run is null, or width 0");
    }
    host = executor;
  }
  return ok();
}

}  // namespace
}  // namespace quell::capi

using quell::capi::Allocator;

extern "C" {

quell_status quell_context_create(const quell_context_options* options, quell_context** context) {
  if (context == nullptr) return QUELL_USAGE;
  *context = nullptr;
  Allocator memory;
  std::optional<quell_executor> host;
#if defined(__cpp_exceptions)
  try {
#endif
    const quell::Status done = quell::capi::take_over(options, memory, host);
    if (!done) return quell::capi::status_of(done.error().code);
#if defined(__cpp_exceptions)
  } catch (...) {
    return QUELL_RESOURCE;
  }
#endif
  void* place = memory.take(sizeof(quell_context), alignof(quell_context));
  if (place == nullptr) return QUELL_RESOURCE;
  *context = host ? ::new (place) quell_context{memory, quell::capi::HostExecutor(*host)}
                  : ::new (place) quell_context{memory, quell::capi::HostExecutor()};
  return QUELL_OK;
}

void quell_context_free(quell_context* context) {
  if (context == nullptr) return;
  context->memory.give_back(context->scratch, context->scratch_bytes);
  quell::capi::free_handle(context);
}

const char* quell_message(const quell_context* context) {
  return context == nullptr ? "the context is null" : context->message;
}

const char* quell_status_name(quell_status status) {
  static constexpr const char* kNames[] = {"ok",           "usage",      "parse",    "shape",
                                           "unsupported",  "missing",    "resource", "numeric",
                                           "verification", "interrupted"};
  const auto index = static_cast<std::size_t>(status);
  return index < std::size(kNames) ? kNames[index] : "unknown";
}

const char* quell_version(void) {
  return QUELL_VERSION;
}

}  // extern "C"
