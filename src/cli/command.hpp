// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the verbs share: options that mean the same everywhere, the way results and errors are
// printed, and the observer that shows progress and listens to signals.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quell/calib/corpus.hpp"
#include "quell/core/executor.hpp"
#include "quell/core/result.hpp"
#include "quell/io/json.hpp"
#include "quell/model/model.hpp"
#include "quell/pipeline/evaluate.hpp"
#include "quell/pipeline/observer.hpp"
#include "quell/pipeline/quantize.hpp"
#include "quell/pipeline/recipe.hpp"
#include "quell/report/document.hpp"
#include "quell/tokenizer/tokenizer.hpp"

namespace CLI {
class App;
}

namespace quell::cli {

/// Options of every working verb.
struct Limits {
  unsigned threads = 0;          // 0: all that are allowed
  std::uint64_t max_memory = 0;  // bytes; 0: no limit
  bool json = false;
  bool allow_links_outside = false;
};

/// Text or ids, and how they are cut.
struct TextOptions {
  std::vector<std::string> files;  // --calib or --text
  std::string ids, lengths;
  std::uint32_t length = 0;  // --seqlen or --context; 0: min(2048, the model's positions)
  std::uint64_t samples = 128, seed = 0, max_tokens = 0;
  bool documents = false;

  bool given() const { return !files.empty() || !ids.empty(); }
};

/// A verb: adds its options to the subcommand, then runs. Results go to stdout.
class Command {
 public:
  virtual ~Command() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view help() const = 0;
  virtual void add_options(CLI::App& app) = 0;
  /// Prints its result, or returns the error that main prints.
  virtual Status run() = 0;

  Limits limits;
  std::string command_line;  // as the user typed it, without the program
};

std::unique_ptr<Command> make_inspect();
std::unique_ptr<Command> make_outliers();
std::unique_ptr<Command> make_quantize();
std::unique_ptr<Command> make_evaluate();
std::unique_ptr<Command> make_run();
std::unique_ptr<Command> make_report();
std::unique_ptr<Command> make_verify();
std::unique_ptr<Command> make_generate();
std::unique_ptr<Command> make_stats_merge();
std::unique_ptr<Command> make_kernels();
std::unique_ptr<Command> make_bench();

// Options (arguments.cpp).
void add_limits(CLI::App& app, Limits& limits);
/// A check for options of 64 bits without sign, for which CLI11 2.1 takes -1 for the largest
/// number: digits alone, and `least` or more.
std::function<std::string(const std::string&)> whole_number(std::uint64_t least);
void add_calibration(CLI::App& app, TextOptions& data);
void add_engine_precision(CLI::App& app, std::string& precision);
void add_evaluation(CLI::App& app, TextOptions& data);
/// --activations and, for generation, --head: how an engine multiplies.
struct ArithmeticArguments {
  std::string activations, head, cache = "f32";

  void add(CLI::App& app);
  /// `otherwise`: where --activations is not given. Errors: usage.
  Result<engine::EngineOptions> options(engine::Arithmetic otherwise) const;
};
/// Bytes of "1500MB", "12GiB", "4096"; kB/MB/GB are powers of 1000, KiB/MiB/GiB of 1024. Error:
/// usage.
Result<std::uint64_t> parse_size(std::string_view text);

/// The options of `quantize` and `run` that end up in a recipe and in QuantizeOptions.
struct QuantizeArguments {
  std::string model, output;
  std::string scheme, method, per, scale, scale_type, to, recipe_file, nonfinite = "error";
  std::string statistics, save_statistics, shard, engine_precision, keep_columns;
  std::optional<std::uint32_t> bits, activation_group;
  std::optional<std::int64_t> group_size;
  std::optional<double> damp_percent;
  std::optional<double> max_kl;
  bool symmetric = false, asymmetric = false, act_order = false;
  bool direction_by_rounding = false;
  bool force = false, no_resume = false, resume = false, dry_run = false, allow_requantize = false;
  std::vector<std::string> rules, ignore;
  std::optional<double> target_bits;
  std::string target_size;
  TextOptions data;

  void add(CLI::App& app);
  Result<pipeline::Recipe> recipe() const;
};

/// What quantize and run do with them.
struct QuantizeResult {
  pipeline::QuantizeOutcome outcome;
  std::vector<std::string> notes;
  std::optional<io::Json> dry_run;        // instead of an outcome
  std::optional<std::string> statistics;  // the file written, instead of an outcome
};
Result<QuantizeResult> quantize_model(const QuantizeArguments& arguments, const Limits& limits,
                                      Executor& executor, pipeline::Observer& observer);

/// The model's text or ids. `samples` and `seed` apply to calibration alone.
Result<calib::Corpus> read_corpus(const model::Model& model, const TextOptions& data,
                                  bool calibration);

/// The lines that quantize, eval and run print for people.
void print_outcome(const pipeline::QuantizeOutcome& outcome);
void print_evaluation(const pipeline::Evaluation& evaluation, std::uint32_t context);
/// usage if the model is an encoder and a limit is given.
Status check_max_kl(const model::Model& model, std::optional<double> max_kl);
/// verification if the mean KL divergence exceeds the limit.
Status check_kl(const pipeline::Evaluation& evaluation, std::optional<double> max_kl);

// Output (output.cpp).
/// A JSON object with the members that every verb has.
io::Json begin_json(std::string_view command);
/// Adds seconds and peak_rss_bytes and prints it as one object.
void print_json(io::Json json);
void print_error(const Error& error, bool json);
int exit_code(ErrorCode code);
/// "1.23 MB": decimal units, three digits.
std::string size_text(std::uint64_t bytes);
std::uint64_t peak_rss_bytes();
/// A number for people: "%.4g" without locale.
std::string number_text(double value, int digits = 4);

/// Where a report comes from: the command, fingerprints of the model and of the text (null:
/// without), threads, time and memory.
Result<report::Facts> provenance(const Command& command, const model::Model& model,
                                 const calib::Corpus* corpus, const Executor& executor);
std::uint64_t distinct_tokens(const calib::Corpus& corpus);

/// Shows progress on stderr (one line that is rewritten on a terminal, one line per module
/// elsewhere) and turns SIGINT and SIGTERM into stop_requested() where a run can be continued.
std::unique_ptr<pipeline::Observer> make_observer(const Limits& limits);
/// While one exists, the first SIGINT or SIGTERM waits for the module at hand; else it ends the
/// program.
class DeferSignals {
 public:
  DeferSignals();
  ~DeferSignals();
  DeferSignals(const DeferSignals&) = delete;
  DeferSignals& operator=(const DeferSignals&) = delete;
};
/// Ends a rewritten progress line, if one is open, so that other output starts on its own line.
void close_progress_line();

/// Token ids as text: decoded where the model's tokenizer can be read, else the number.
class TokenText {
 public:
  explicit TokenText(const model::Model& model);
  std::string of(std::int32_t id) const;

 private:
  std::optional<tokenizer::Tokenizer> tokenizer_;
};

/// Locates the demonstration model and its text: beside the sources, or under share/quell of the
/// installation, relative to the program.
struct Demonstration {
  std::filesystem::path model, calibration, evaluation;
};
Result<Demonstration> find_demonstration();

}  // namespace quell::cli
