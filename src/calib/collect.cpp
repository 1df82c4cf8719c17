// SPDX-License-Identifier: Apache-2.0

// One chunk (whole sequences, at most kChunkTokens tokens unless one sequence is longer) goes
// through a block at a time, so a tap call is a chunk and sums never depend on how much memory
// there is.

#include "quell/calib/collect.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

namespace quell::calib {
namespace {

Error file_error(const char* what) {
  return Error{ErrorCode::resource,
               std::string("the temporary file of hidden states could not be ") + what + ": " +
                   std::strerror(errno) + "; free disk space or give more --max-memory"};
}

Status transfer(int file, bool write, std::byte* data, std::size_t size, std::uint64_t offset) {
  while (size > 0) {
    const auto position = static_cast<off_t>(offset);
    const ssize_t done =
        write ? ::pwrite(file, data, size, position) : ::pread(file, data, size, position);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return file_error(write ? "written" : "read");
    data += done;
    size -= static_cast<std::size_t>(done);
    offset += static_cast<std::uint64_t>(done);
  }
  return ok();
}

// Collects the inputs of one block.
class SiteTap final : public engine::Tap {
 public:
  SiteTap(kernels::Context& context, const WishFunction& wish) : context_(context), wish_(wish) {}

  Status input(std::uint32_t layer, model::Site site, MatrixView<const float> x) override {
    const SiteWish wanted = wish_(layer, site);
    if (!wanted.profile && !wanted.moment) return ok();
    return sites[site].add(x, wanted.moment, context_);
  }

  std::map<model::Site, SiteStatistics> sites;

 private:
  kernels::Context& context_;
  const WishFunction& wish_;
};

}  // namespace

Result<HiddenStates> HiddenStates::create(std::size_t tokens, std::size_t hidden,
                                          std::uint64_t memory_limit,
                                          const std::filesystem::path& spill_folder) {
  HiddenStates states;
  states.hidden_ = hidden;
  const auto values = checked_multiply(tokens, hidden);
  const auto bytes = values ? checked_multiply(*values, sizeof(float)) : std::nullopt;
  if (!bytes) {
    return Error{ErrorCode::resource, "hidden states of " + std::to_string(tokens) + " tokens of " +
                                          std::to_string(hidden) + " channels do not fit anywhere"};
  }
  if (*bytes <= memory_limit) {
    QUELL_TRY(memory, Matrix::zeros(tokens, hidden));
    states.memory_ = std::move(memory);
    return states;
  }
  // Unlinked at once: the space is freed however the process ends.
  std::string name = (spill_folder / "quell-hidden-XXXXXX").string();
  states.file_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (states.file_ < 0) return file_error("created");
  ::unlink(name.c_str());
  const int failure = ::posix_fallocate(states.file_, 0, static_cast<off_t>(*bytes));
  if (failure != 0) {
    errno = failure;
    return file_error("given its size");
  }
  return states;
}

HiddenStates::HiddenStates(HiddenStates&& other) noexcept
    : memory_(std::move(other.memory_)),
      hidden_(other.hidden_),
      file_(std::exchange(other.file_, -1)) {}

HiddenStates& HiddenStates::operator=(HiddenStates&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(hidden_, other.hidden_);
  std::swap(file_, other.file_);
  return *this;
}

HiddenStates::~HiddenStates() {
  if (file_ >= 0) ::close(file_);
}

Status HiddenStates::load(std::size_t first, MatrixView<float> x) const {
  const std::size_t bytes = x.rows() * hidden_ * sizeof(float);
  if (file_ < 0) {
    std::memcpy(x.data(), memory_.data() + first * hidden_, bytes);
    return ok();
  }
  return transfer(file_, false, reinterpret_cast<std::byte*>(x.data()), bytes,
                  first * hidden_ * sizeof(float));
}

Status HiddenStates::store(std::size_t first, MatrixView<const float> x) {
  const std::size_t bytes = x.rows() * hidden_ * sizeof(float);
  if (file_ < 0) {
    std::memcpy(memory_.data() + first * hidden_, x.data(), bytes);
    return ok();
  }
  auto* data = reinterpret_cast<std::byte*>(const_cast<float*>(x.data()));
  return transfer(file_, true, data, bytes, first * hidden_ * sizeof(float));
}

Walk::Walk(engine::Engine& engine, const Corpus& corpus, HiddenStates states, Matrix buffer)
    : engine_(&engine),
      corpus_(&corpus),
      chunks_(chunks(corpus)),
      states_(std::move(states)),
      buffer_(std::move(buffer)) {}

Result<Walk> Walk::begin(engine::Engine& engine, const Corpus& corpus, std::uint64_t hidden_limit,
                         const std::filesystem::path& spill_folder) {
  const std::size_t hidden = engine.model().config().hidden;
  std::size_t longest = 0;
  for (const Chunk& chunk : chunks(corpus)) longest = std::max(longest, chunk.tokens);
  QUELL_TRY(states, HiddenStates::create(corpus.ids.size(), hidden, hidden_limit, spill_folder));
  QUELL_TRY(buffer, Matrix::uninitialized(longest, hidden));
  Walk walk(engine, corpus, std::move(states), std::move(buffer));
  for (const Chunk& chunk : walk.chunks_) {
    const MatrixView<float> x = walk.buffer_.view().rows_from(0, chunk.tokens);
    const std::span<const std::int32_t> ids(corpus.ids);
    const std::span<const std::uint32_t> lengths(corpus.lengths);
    QUELL_TRY(engine.embed(ids.subspan(chunk.first_token, chunk.tokens),
                           lengths.subspan(chunk.first_sequence, chunk.sequences), x));
    QUELL_TRY(walk.states_.store(chunk.first_token, x));
  }
  return walk;
}

Status Walk::pass(const engine::BlockWeights& weights, engine::Tap* tap, bool keep) {
  const std::span<const std::uint32_t> lengths(corpus_->lengths);
  for (const Chunk& chunk : chunks_) {
    const MatrixView<float> x = buffer_.view().rows_from(0, chunk.tokens);
    QUELL_TRY(states_.load(chunk.first_token, x));
    QUELL_TRY(engine_->run_block(weights, lengths.subspan(chunk.first_sequence, chunk.sequences), x,
                                 tap));
    if (keep) QUELL_TRY(states_.store(chunk.first_token, x));
  }
  return ok();
}

Result<std::map<model::Site, SiteStatistics>> Walk::collect(const engine::BlockWeights& weights,
                                                            const WishFunction& wish) {
  SiteTap tap(engine_->context(), wish);
  QUELL_TRY(pass(weights, &tap, false));
  for (const auto& [site, statistics] : tap.sites) {
    if (statistics.tokens == tokens()) continue;
    return Error{ErrorCode::verification, "block " + std::to_string(weights.layer) + ", " +
                                              std::string(to_string(site)) + ": saw " +
                                              std::to_string(statistics.tokens) + " tokens, " +
                                              std::to_string(tokens()) + " were fed"};
  }
  return std::move(tap.sites);
}

Status Walk::advance(const engine::BlockWeights& weights, engine::Tap* tap) {
  return pass(weights, tap, true);
}

Status Walk::show(std::int32_t layer, engine::Tap& tap) {
  for (const Chunk& chunk : chunks_) {
    const MatrixView<float> x = buffer_.view().rows_from(0, chunk.tokens);
    QUELL_TRY(states_.load(chunk.first_token, x));
    QUELL_TRY(tap.residual(layer, x));
  }
  return ok();
}

Result<std::map<model::Site, SiteStatistics>> Walk::collect_and_advance(
    const engine::BlockWeights& weights, const WishFunction& wish) {
  SiteTap tap(engine_->context(), wish);
  QUELL_TRY(pass(weights, &tap, true));
  return std::move(tap.sites);
}

}  // namespace quell::calib
