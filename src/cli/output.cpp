// SPDX-License-Identifier: Apache-2.0

// Results on stdout, errors and progress on stderr.

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>

#include "cli/command.hpp"
#include "quell/calib/statistics.hpp"
#include "quell/version.hpp"

namespace quell::cli {
namespace {

using Clock = std::chrono::steady_clock;
const Clock::time_point kStart = Clock::now();

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::atomic<int> signals_seen{0};
std::atomic<bool> deferring{false};
std::atomic<bool> progress_line_open{false};

extern "C" void on_signal(int signal) {
  // While a journal is kept, the first signal asks the run to stop after the module at hand, and
  // what is finished stays. The second means now, and so does any signal where nothing would be
  // kept.
  if (!deferring.load() || signals_seen.fetch_add(1) > 0) ::_exit(128 + signal);
}

class TerminalObserver final : public pipeline::Observer {
 public:
  explicit TerminalObserver(const Limits& limits)
      : max_memory_(limits.max_memory), terminal_(::isatty(STDERR_FILENO) == 1) {
    struct sigaction action = {};
    action.sa_handler = on_signal;
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
  }

  void progress(const pipeline::Progress& progress) override {
    const double share = progress.total > 0 ? std::min(1.0, progress.done / progress.total) : 0;
    const double elapsed = seconds_since(begin_);
    const double own = progress.done - progress.replayed;
    // Work that an earlier run paid for says nothing about the speed of this one.
    const double remaining = progress.total - progress.done;
    std::string eta = "warming up";
    if (own > 0.02 * progress.total && elapsed > 1) eta = time_text(elapsed * remaining / own);
    std::string memory = size_text(peak_rss_bytes());
    if (max_memory_ != 0) memory += " of " + size_text(max_memory_);
    std::string line =
        fmt::format("{:3.0f} %  {}  left: {}  memory: {}", 100 * share, progress.what, eta, memory);
    if (terminal_) {
      fmt::print(stderr, "\r\033[K{}", line);
      progress_line_open = true;
      std::fflush(stderr);
    } else if (progress.what != last_) {
      fmt::print(stderr, "{}\n", line);
    }
    last_ = std::string(progress.what);
  }

  void note(std::string_view text) override {
    close_progress_line();
    fmt::print(stderr, "note: {}\n", text);
  }

  bool stop_requested() override { return signals_seen.load() > 0; }

 private:
  static std::string time_text(double seconds) {
    if (seconds < 60) return fmt::format("{:.0f} s", seconds);
    if (seconds < 3600) return fmt::format("{:.0f} min", seconds / 60);
    return fmt::format("{:.1f} h", seconds / 3600);
  }

  std::uint64_t max_memory_;
  bool terminal_;
  Clock::time_point begin_ = Clock::now();
  std::string last_;
};

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::usage:
      return 2;
    case ErrorCode::parse:
    case ErrorCode::shape:
    case ErrorCode::unsupported:
    case ErrorCode::missing:
      return 3;
    case ErrorCode::resource:
      return 4;
    case ErrorCode::numeric:
      return 5;
    case ErrorCode::verification:
      return 6;
    case ErrorCode::interrupted:
      return 130;
  }
  return 1;
}

io::Json begin_json(std::string_view command) {
  io::Json json = io::Json::object();
  json.set("schema", 1);
  json.set("quell_version", QUELL_VERSION);
  json.set("command", command);
  return json;
}

void print_json(io::Json json) {
  json.set("seconds", seconds_since(kStart));
  json.set("peak_rss_bytes", peak_rss_bytes());
  fmt::print("{}\n", json.dump(1));
}

void print_error(const Error& error, bool json) {
  close_progress_line();
  if (json) {
    io::Json body = io::Json::object();
    body.set("code", to_string(error.code));
    body.set("message", error.message);
    body.set("file", error.file.empty() ? io::Json() : io::Json(error.file));
    body.set("tensor", error.tensor.empty() ? io::Json() : io::Json(error.tensor));
    io::Json whole = io::Json::object();
    whole.set("schema", 1);
    whole.set("error", std::move(body));
    fmt::print("{}\n", whole.dump(1));
    std::fflush(stdout);
  }
  fmt::print(stderr, "error: {}\n", error.message);
}

std::string size_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string number_text(double value, int digits) {
  return fmt::format("{:.{}g}", value, digits);
}

std::uint64_t peak_rss_bytes() {
  struct rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts in KiB
}

Result<report::Facts> provenance(const Command& command, const model::Model& model,
                                 const calib::Corpus* corpus, const Executor& executor) {
  report::Facts facts;
  facts.lines.emplace_back("Command", "quell " + command.command_line);
  QUELL_TRY(fingerprint, calib::model_fingerprint(model));
  facts.lines.emplace_back("Model fingerprint", std::move(fingerprint));
  if (corpus != nullptr) facts.lines.emplace_back("Text fingerprint", calib::fingerprint(*corpus));
  facts.lines.emplace_back("Threads", std::to_string(executor.width()));
  facts.lines.emplace_back("Time", fmt::format("{:.1f} s, peak memory {}", seconds_since(kStart),
                                               size_text(peak_rss_bytes())));
  return facts;
}

std::uint64_t distinct_tokens(const calib::Corpus& corpus) {
  std::vector<std::int32_t> ids = corpus.ids;
  std::sort(ids.begin(), ids.end());
  return static_cast<std::uint64_t>(std::unique(ids.begin(), ids.end()) - ids.begin());
}

std::unique_ptr<pipeline::Observer> make_observer(const Limits& limits) {
  return std::make_unique<TerminalObserver>(limits);
}

DeferSignals::DeferSignals() {
  deferring = true;
}
DeferSignals::~DeferSignals() {
  deferring = false;
}

void close_progress_line() {
  if (progress_line_open.exchange(false)) fmt::print(stderr, "\n");
}

}  // namespace quell::cli
