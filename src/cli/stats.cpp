// SPDX-License-Identifier: Apache-2.0

// `quell stats merge`: adds up calibration statistics that were made in parts.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "quell/calib/statistics.hpp"

namespace quell::cli {
namespace {

class StatsMerge final : public Command {
 public:
  std::string_view name() const override { return "merge"; }
  std::string_view help() const override { return "merge statistics made in parts"; }
  void add_options(CLI::App& app) override {
    app.add_option("OUT", output_, "file to write")->required();
    app.add_option("IN", inputs_, "files written with --save-stats")->required();
  }

  Status run() override {
    std::vector<calib::StatisticsFile> parts;
    for (const std::string& input : inputs_) {
      QUELL_TRY(part, calib::StatisticsFile::open(input));
      parts.push_back(std::move(part));
    }
    QUELL_TRY(merged, calib::merge_statistics(std::move(parts), output_));
    const bool whole = merged.parts == 1;
    if (limits.json) {
      io::Json json = begin_json("stats merge");
      json.set("output", output_);
      json.set("tokens", merged.tokens_fed);
      json.set("inputs", static_cast<std::uint64_t>(merged.channels.size()));
      json.set("complete", whole);
      print_json(std::move(json));
      return ok();
    }
    fmt::print("{}: {} tokens, {} inputs of linear layers{}\n", output_, merged.tokens_fed,
               merged.channels.size(),
               whole ? std::string()
                     : fmt::format(" (parts {} of {}: some are still missing)",
                                   merged.merged_parts.size(), merged.parts));
    return ok();
  }

 private:
  std::string output_;
  std::vector<std::string> inputs_;
};

}  // namespace

std::unique_ptr<Command> make_stats_merge() {
  return std::make_unique<StatsMerge>();
}

}  // namespace quell::cli
