// SPDX-License-Identifier: Apache-2.0

// `quell verify`: is an output folder complete, unchanged and loadable?

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "quell/io/output.hpp"

namespace quell::cli {
namespace {

class Verify final : public Command {
 public:
  std::string_view name() const override { return "verify"; }
  std::string_view help() const override {
    return "is an output complete, unchanged and loadable?";
  }
  void add_options(CLI::App& app) override {
    app.add_option("OUT", folder_, "folder written by quantize or run")->required();
  }

  Status run() override {
    QUELL_TRY(report, io::verify_folder(folder_));
    if (report.problems.empty()) {
      // Hashes say that the files are what was written; loading says that they make a model.
      auto model = model::Model::load(folder_, {limits.allow_links_outside});
      if (!model) report.problems.push_back(model.error().message);
    }
    if (limits.json) {
      io::Json json = begin_json("verify");
      json.set("complete", report.complete);
      json.set("tensors_checked", report.tensors_checked);
      io::Json problems = io::Json::array();
      for (const std::string& problem : report.problems) problems.push(problem);
      json.set("problems", std::move(problems));
      print_json(std::move(json));
    } else {
      for (const std::string& problem : report.problems) fmt::print("{}\n", problem);
      if (report.problems.empty()) {
        fmt::print("{}: complete, {} tensors checked\n", folder_, report.tensors_checked);
      }
    }
    if (report.problems.empty()) return ok();
    return Error{ErrorCode::verification,
                 folder_ + ": " + std::to_string(report.problems.size()) +
                     " problem(s), the first: " + report.problems.front(),
                 folder_};
  }

 private:
  std::string folder_;
};

}  // namespace

std::unique_ptr<Command> make_verify() {
  return std::make_unique<Verify>();
}

}  // namespace quell::cli
