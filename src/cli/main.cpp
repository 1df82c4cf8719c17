// SPDX-License-Identifier: Apache-2.0

// The program `quell`: picks the verb, prints errors, and returns the exit code of the one table.

#include <CLI/CLI.hpp>

#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "quell/kernels/isa.hpp"
#include "quell/version.hpp"

namespace quell::cli {
namespace {

// CLI11 says which argument it does not know; this adds what was probably meant.
std::string with_suggestion(const CLI::App& app, const std::string& message,
                            const std::vector<std::string>& arguments) {
  const CLI::App* verb = &app;
  for (const CLI::App* chosen : app.get_subcommands()) verb = chosen;
  std::vector<std::string> known;
  for (const CLI::Option* option : verb->get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  if (verb == &app) {
    for (const CLI::App* other : app.get_subcommands({})) known.push_back(other->get_name());
  }
  for (std::string argument : arguments) {
    argument = argument.substr(0, argument.find('='));
    if (message.find(argument) == std::string::npos || argument.size() < 2) continue;
    if (std::find(known.begin(), known.end(), argument) != known.end()) continue;
    const std::string closest = pipeline::nearest(argument, known);
    if (!closest.empty()) return message + "; did you mean " + closest + "?";
  }
  return message;
}

int run(int argc, char** argv) {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(make_inspect());
  commands.push_back(make_outliers());
  commands.push_back(make_quantize());
  commands.push_back(make_evaluate());
  commands.push_back(make_run());
  commands.push_back(make_report());
  commands.push_back(make_verify());
  commands.push_back(make_generate());
  commands.push_back(make_kernels());
  commands.push_back(make_bench());

  CLI::App app("quell makes large language models small without breaking them.", "quell");
  app.set_version_flag("--version", std::string("quell ") + QUELL_VERSION);
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, Command*>> verbs;
  for (const std::unique_ptr<Command>& command : commands) {
    CLI::App* verb = app.add_subcommand(std::string(command->name()), std::string(command->help()));
    command->add_options(*verb);
    add_limits(*verb, command->limits);
    verbs.emplace_back(verb, command.get());
  }
  // `stats merge` is the one verb of two words.
  const std::unique_ptr<Command> merge = make_stats_merge();
  CLI::App* stats = app.add_subcommand("stats", "calibration statistics made in parts");
  stats->require_subcommand(1);
  CLI::App* merge_verb =
      stats->add_subcommand(std::string(merge->name()), std::string(merge->help()));
  merge->add_options(*merge_verb);
  add_limits(*merge_verb, merge->limits);
  verbs.emplace_back(merge_verb, merge.get());

  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
  if (const char* cap = std::getenv("QUELL_ISA"); cap != nullptr && !kernels::parse_isa(cap)) {
    print_error(
        {ErrorCode::usage, "QUELL_ISA=" + std::string(cap) +
                               " is not an instruction set; it is one of " + kernels::isa_names()},
        json);
    return exit_code(ErrorCode::usage);
  }
  if (!arguments.empty() && !arguments[0].starts_with('-')) {
    std::vector<std::string> names;
    std::string list;
    for (const CLI::App* verb : app.get_subcommands({})) {
      names.push_back(verb->get_name());
      list += (list.empty() ? "" : ", ") + names.back();
    }
    if (std::find(names.begin(), names.end(), arguments[0]) == names.end()) {
      const std::string closest = pipeline::nearest(arguments[0], names);
      print_error({ErrorCode::usage, "\"" + arguments[0] + "\" is no verb of quell" +
                                         (closest.empty() ? "; the verbs are " + list
                                                          : "; did you mean " + closest + "?")},
                  json);
      return exit_code(ErrorCode::usage);
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);  // --help, --version
  } catch (const CLI::ParseError& error) {
    const std::string hint = argc <= 1 ? "; try `quell --help`" : "";
    print_error({ErrorCode::usage, with_suggestion(app, error.what(), arguments) + hint}, json);
    return exit_code(ErrorCode::usage);
  }
  for (const auto& [verb, command] : verbs) {
    if (!verb->parsed()) continue;
    for (const std::string& argument : arguments) {
      command->command_line += (command->command_line.empty() ? "" : " ") + argument;
    }
    Status status = command->run();
    close_progress_line();
    if (!status) {
      print_error(status.error(), command->limits.json);
      return exit_code(status.error().code);
    }
    if (std::fflush(stdout) != 0) {
      print_error({ErrorCode::resource, "the result could not be written to standard output"},
                  false);
      return exit_code(ErrorCode::resource);
    }
    return 0;
  }
  return exit_code(ErrorCode::usage);
}

}  // namespace
}  // namespace quell::cli

int main(int argc, char** argv) {
  std::setlocale(LC_ALL, "C");
  std::signal(SIGPIPE, SIG_DFL);  // a reader that goes away ends the program quietly
  // Library code returns errors; what is caught here comes from the standard library (memory for
  // small things) and from argument parsing.
  try {
    return quell::cli::run(argc, argv);
  } catch (const std::bad_alloc&) {
    quell::cli::print_error({quell::ErrorCode::resource, "out of memory"}, false);
    return quell::cli::exit_code(quell::ErrorCode::resource);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quell: internal error: %s\n", error.what());
    return 1;
  }
}
