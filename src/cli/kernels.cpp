// SPDX-License-Identifier: Apache-2.0

// `quell kernels`: every family and entry, and what this machine would use.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/command.hpp"
#include "quell/kernels/explain.hpp"

namespace quell::cli {
namespace {

class Kernels final : public Command {
 public:
  std::string_view name() const override { return "kernels"; }
  std::string_view help() const override {
    return "kernels of this build and what this machine uses";
  }
  void add_options(CLI::App&) override {}

  Status run() override {
    const std::vector<kernels::FamilyReport> families = kernels::explain();
    if (limits.json) {
      io::Json json = begin_json("kernels");
      io::Json cpu = io::Json::array();
      for (const std::string_view feature : kernels::cpu_features()) cpu.push(feature);
      json.set("cpu", std::move(cpu));
      io::Json list = io::Json::array();
      for (const kernels::FamilyReport& family : families) {
        io::Json entries = io::Json::array();
        for (const kernels::EntryReport& entry : family.entries) {
          io::Json item = io::Json::object();
          item.set("isa", kernels::to_string(entry.isa));
          item.set("present", entry.present);
          item.set("chosen", entry.chosen);
          item.set("refused", entry.refused.empty() ? io::Json() : io::Json(entry.refused));
          entries.push(std::move(item));
        }
        io::Json item = io::Json::object();
        item.set("name", family.name);
        item.set("entries", std::move(entries));
        list.push(std::move(item));
      }
      json.set("families", std::move(list));
      print_json(std::move(json));
      return ok();
    }
    std::string features;
    for (const std::string_view feature : kernels::cpu_features())
      features += " " + std::string(feature);
    fmt::print("CPU:{}\n", features.empty() ? " nothing beyond the baseline" : features);
    for (const kernels::FamilyReport& family : families) {
      for (const kernels::EntryReport& entry : family.entries) {
        fmt::print("{:<14} {:<11} {}\n", family.name, kernels::to_string(entry.isa),
                   entry.chosen             ? "chosen"
                   : !entry.refused.empty() ? entry.refused
                   : entry.present          ? "present"
                                            : "not on this machine");
      }
    }
    return ok();
  }
};

}  // namespace

std::unique_ptr<Command> make_kernels() {
  return std::make_unique<Kernels>();
}

}  // namespace quell::cli
