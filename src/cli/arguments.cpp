// SPDX-License-Identifier: Apache-2.0

// Options that several verbs have, and what they turn into.

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "cli/command.hpp"

namespace quell::cli {
namespace {

Error usage(std::string message) {
  return Error{ErrorCode::usage, std::move(message)};
}

void add_data(CLI::App& app, TextOptions& data) {
  app.add_option("--ids", data.ids, "token ids instead of text: int32 .npy of shape [T]");
  app.add_option("--lengths", data.lengths, "lengths of the sequences in --ids: int32 .npy");
  app.add_option("--max-tokens", data.max_tokens, "use at most so many tokens")
      ->check(whole_number(0));
  app.add_flag(
      "--documents", data.documents,
      "every document (between lines of <|endoftext|>, or per \"text\" of .jsonl) is a sequence");
}

std::filesystem::path program_folder() {
  std::error_code failure;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failure);
  return program.parent_path();
}

}  // namespace

std::function<std::string(const std::string&)> whole_number(std::uint64_t least) {
  return [least](const std::string& text) -> std::string {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [last, failure] = std::from_chars(text.data(), end, value);
    if (failure == std::errc() && last == end && value >= least) return {};
    return "it is " + text + ", expected a whole number from " + std::to_string(least) + " on";
  };
}

void add_limits(CLI::App& app, Limits& limits) {
  app.add_option("--threads", limits.threads, "threads (default: all that are allowed)")
      ->check(CLI::Range(1u, 1024u));
  app.add_option_function<std::string>(
      "--max-memory",
      [&limits](const std::string& text) {
        const auto size = parse_size(text);
        if (!size) throw CLI::ValidationError("--max-memory", size.error().message);
        limits.max_memory = *size;
      },
      "memory budget, for example 1500MB or 12GiB");
  app.add_flag("--json", limits.json, "print one JSON object on stdout");
  app.add_flag("--allow-links-outside", limits.allow_links_outside,
               "follow weight files that are links leaving the model's folder");
}

void add_calibration(CLI::App& app, TextOptions& data) {
  app.add_option("--calib", data.files, "calibration text, one or more UTF-8 files");
  app.add_option("--samples", data.samples, "sequences drawn from the text")
      ->check(whole_number(0))
      ->capture_default_str();
  app.add_option("--seqlen", data.length,
                 "tokens of a sequence (default: the smaller of 2048 and the model's limit)");
  app.add_option("--seed", data.seed, "seed of the draw")
      ->check(whole_number(0))
      ->capture_default_str();
  add_data(app, data);
}

void add_engine_precision(CLI::App& app, std::string& precision) {
  app.add_option("--engine-precision", precision,
                 "what the model computes in while it is measured: f32 (the default), or bf16, "
                 "faster where the machine multiplies bfloat16; results are then near those of "
                 "f32, not the same (sensitivity and what-if stay in f32)");
}

void add_evaluation(CLI::App& app, TextOptions& data) {
  app.add_option("--text", data.files, "evaluation text, one or more UTF-8 files");
  app.add_option("--context", data.length,
                 "tokens of a window (default: the smaller of 2048 and the model's limit)");
  add_data(app, data);
}

void ArithmeticArguments::add(CLI::App& app) {
  app.add_option("--activations", activations,
                 "what quantized weights are multiplied with: f32, int8 (a scale for each token, "
                 "several times faster), or bf16 (default: what the model was quantized for)")
      ->check(CLI::IsMember({"f32", "int8", "bf16"}));
  app.add_option("--head", head,
                 "grid to which the head is rounded, such as int8:sym:oc:g32 (default: as it is)");
  app.add_option("--cache", cache, "what keys and values are kept in: f32, f16, int8 or int4")
      ->check(CLI::IsMember({"f32", "f16", "int8", "int4"}))
      ->capture_default_str();
}

Result<engine::EngineOptions> ArithmeticArguments::options(engine::Arithmetic otherwise) const {
  engine::EngineOptions options;
  options.arithmetic = otherwise;
  options.round_inputs = activations.empty() || activations == "int8";
  if (activations == "f32") options.arithmetic = engine::Arithmetic::packed;
  if (activations == "int8") options.arithmetic = engine::Arithmetic::int8;
  if (activations == "bf16") options.arithmetic = engine::Arithmetic::bf16;
  if (!head.empty()) {
    QUELL_TRY(grid, parse_grid(head));
    options.head = grid;
  }
  options.cache = *kernels::parse_cache_kind(cache);  // one of the words above
  return options;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  double value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  double factor = -1;
  constexpr std::pair<std::string_view, double> kUnits[] = {{"", 1},
                                                            {"B", 1},
                                                            {"kB", 1e3},
                                                            {"KB", 1e3},
                                                            {"MB", 1e6},
                                                            {"GB", 1e9},
                                                            {"TB", 1e12},
                                                            {"KiB", 1024.},
                                                            {"MiB", 1048576.},
                                                            {"GiB", 1073741824.},
                                                            {"TiB", 1099511627776.},
                                                            {"K", 1024.},
                                                            {"M", 1048576.},
                                                            {"G", 1073741824.}};
  for (const auto& [name, bytes] : kUnits) {
    if (name == unit) factor = bytes;
  }
  if (failure != std::errc() || factor < 0 || !(value >= 0) || value * factor > 1e18) {
    return usage("\"" + std::string(text) + "\" is not a size such as 1500MB or 12GiB");
  }
  return static_cast<std::uint64_t>(value * factor);
}

void QuantizeArguments::add(CLI::App& app) {
  app.add_option("--scheme", scheme,
                 "bits of weights and of activations: W4A16 (default), W8A16, W3A16, W2A16, W8A8, "
                 "W4A8 or W4A4");
  app.add_option(
      "--method", method,
      "rtn, importance, hqq, gptq or balanced (the default); adadim+METHOD also chooses the "
      "direction "
      "of groups, adadim alone over gptq; hadamard+METHOD rotates the inputs of layers "
      "while the model runs (the default with activations of 4 bits); transforms of the model "
      "stand first, as awq+gptq");
  app.add_option("--activation-group", activation_group,
                 "with activations of 4 bits: channels that share a scale (default: one scale for "
                 "each token)")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--keep-columns", keep_columns,
                 "input channels of every layer that stay in f16 beside the codes, those whose "
                 "activations set the scales of tokens: a number or auto (default: with "
                 "activations of 8 bits one of 128 channels, else none)");
  app.add_option("--bits", bits, "bits of a code: 2, 3, 4 or 8");
  app.add_option("--group-size", group_size,
                 "weights that share a scale; -1 for the whole row (default: the largest of 128, "
                 "64, 32 that fits)");
  app.add_option("--per", per,
                 "direction of groups: output (default), input, or auto, which is adadim");
  app.add_flag(
      "--direction-by-rounding", direction_by_rounding,
      "adadim: by the error of min-max rounding, as published, instead of the method's own");
  app.add_flag("--sym", symmetric, "symmetric grid (default)");
  app.add_flag("--asym", asymmetric, "asymmetric grid with zero points");
  app.add_option("--scale", scale, "choice of scales: absmax, minmax or search");
  app.add_option("--scale-type", scale_type, "f16, bf16 or f32");
  app.add_option("--rule", rules, "GLOB=[METHOD@]GRID or GLOB=keep; repeatable, later wins");
  app.add_option("--ignore", ignore, "GLOB of layers left in floating point; repeatable");
  app.add_option("--target-bpw", target_bits,
                 "bits per weight of the quantized layers, at most: widths are chosen by measured "
                 "damage; needs --calib");
  app.add_option("--target-size", target_size, "the same for all weight files: 4.5GB, 12GiB");
  app.add_option("--recipe", recipe_file, "JSON file with the same words; options override it");
  app.add_option("--damp-percent", damp_percent,
                 "damping of feedback, a fraction of the mean diagonal (0.01)");
  app.add_flag("--act-order", act_order,
               "feedback: columns by falling activation energy, static groups");
  add_calibration(app, data);
  app.add_option("--stats", statistics, "use statistics of an earlier run instead of text");
  app.add_option("--save-stats", save_statistics,
                 "write statistics of the unquantized model to this file");
  app.add_option("--shard", shard, "i/n: collect the i-th of n parts of the statistics and stop");
  app.add_option("--to", to,
                 "layout: quell or compressed-tensors (default, where it can hold the result)");
  app.add_flag("--dry-run", dry_run, "show the plan and stop");
  app.add_flag("--force", force, "replace an existing output");
  app.add_flag("--resume", resume, "continue an interrupted run of the same plan (default)");
  app.add_flag("--no-resume", no_resume, "start over");
  add_engine_precision(app, engine_precision);
  app.add_option("--nonfinite", nonfinite, "error, zero or skip layers with NaN or infinity")
      ->capture_default_str();
  app.add_flag("--allow-requantize", allow_requantize, "accept a model that is quantized already");
  app.add_option("--max-kl", max_kl, "exit 6 if the mean KL divergence exceeds this (verb run)");
}

Result<pipeline::Recipe> QuantizeArguments::recipe() const {
  pipeline::Recipe recipe;
  if (!recipe_file.empty()) {
    QUELL_TRY(json, io::read_json(recipe_file));
    QUELL_TRY(pipeline::apply_recipe_json(json, recipe_file, recipe));
  }
  if (!scheme.empty()) {
    QUELL_TRY(recipe.apply_scheme(scheme));
  }
  if (bits) {
    if (*bits != 2 && *bits != 3 && *bits != 4 && *bits != 8) {
      return usage("--bits " + std::to_string(*bits) + "; 2, 3, 4 and 8 are supported");
    }
    recipe.bits = *bits;
  }
  if (!method.empty()) recipe.method = method;
  if (group_size) {
    if (*group_size < -1 || *group_size > (std::int64_t{1} << 30)) {
      return usage("--group-size " + std::to_string(*group_size) +
                   "; give -1 for the whole row, or 1 and more");
    }
    recipe.group = *group_size <= 0 ? 0u : static_cast<std::uint32_t>(*group_size);
  }
  if (symmetric && asymmetric) return usage("--sym and --asym exclude each other");
  if (symmetric) recipe.symmetric = true;
  if (asymmetric) recipe.symmetric = false;
  if (!per.empty()) {
    QUELL_TRY(recipe.apply_per(per));
  }
  if (!scale.empty()) {
    QUELL_TRY(parsed, pipeline::parse_scale_method(scale));
    recipe.scale = parsed;
  }
  if (!scale_type.empty()) {
    QUELL_TRY(parsed, pipeline::parse_scale_type(scale_type));
    recipe.scale_type = parsed;
  }
  if (damp_percent) {
    if (!(*damp_percent >= 0) || *damp_percent > 10) {
      return usage("--damp-percent " + number_text(*damp_percent) +
                   " is outside 0 to 10 (a fraction of the mean diagonal, usually 0.01)");
    }
    recipe.damp_percent = *damp_percent;
  }
  if (act_order) recipe.act_order = true;
  if (direction_by_rounding) recipe.direction_by_rounding = true;
  if (activation_group) recipe.activation_group = activation_group;
  if (keep_columns == "auto") {
    recipe.keep_columns.reset();
  } else if (!keep_columns.empty()) {
    if (!whole_number(0)(keep_columns).empty() || keep_columns.size() > 9) {
      return usage("--keep-columns " + keep_columns + "; it is auto or a number of columns");
    }
    recipe.keep_columns = static_cast<std::uint32_t>(std::stoul(keep_columns));
  }
  for (const std::string& text : rules) {
    QUELL_TRY(rule, pipeline::Rule::parse(text));
    recipe.rules.push_back(std::move(rule));
  }
  recipe.ignore.insert(recipe.ignore.end(), ignore.begin(), ignore.end());
  if (target_bits) {
    if (!(*target_bits > 0) || *target_bits > 16) {
      return usage("--target-bpw " + number_text(*target_bits) + " is outside 0 to 16");
    }
    recipe.target_bits_per_weight = *target_bits;
  }
  if (!target_size.empty()) {
    auto bytes = parse_size(target_size);
    if (!bytes) return usage("--target-size: " + bytes.error().message);
    recipe.target_bytes = *bytes;
  }
  if (recipe.target_bits_per_weight && recipe.target_bytes) {
    return usage("--target-bpw and --target-size exclude each other");
  }
  if (!to.empty()) recipe.to = to;
  if (!engine_precision.empty()) {
    QUELL_TRY(parsed, pipeline::parse_engine_precision(engine_precision));
    recipe.engine_precision = parsed;
  }
  return recipe;
}

Result<calib::Corpus> read_corpus(const model::Model& model, const TextOptions& data,
                                  bool calibration) {
  constexpr std::uint32_t kDefaultLength = 2048;
  const std::uint32_t limit = model.config().max_positions;
  calib::CutOptions cut;
  cut.documents = data.documents;
  cut.closed = !model.has_head();
  cut.max_tokens = calibration ? 0 : data.max_tokens;
  cut.length = data.length != 0 ? data.length : std::min(kDefaultLength, limit);
  const char* option = calibration ? "--seqlen" : "--context";
  if (cut.length > limit) {
    return usage(std::string(option) + " " + std::to_string(cut.length) + " is beyond the " +
                 std::to_string(limit) + " positions of the model");
  }
  if (cut.length < 2) return usage(std::string(option) + " must be at least 2");
  if (!data.files.empty() && !data.ids.empty()) {
    return usage(std::string(calibration ? "--calib" : "--text") + " and --ids exclude each other");
  }
  if (data.ids.empty() && !data.lengths.empty()) return usage("--lengths goes with --ids");
  if (data.samples == 0) return usage("--samples must be at least 1");
  calib::Corpus corpus;
  if (!data.ids.empty()) {
    std::optional<std::filesystem::path> lengths;
    if (!data.lengths.empty()) lengths = data.lengths;
    QUELL_TRY(read, calib::read_ids(data.ids, lengths, model.config().vocabulary, limit, cut));
    corpus = std::move(read);
  } else {
    QUELL_TRY(tokenizer, tokenizer::Tokenizer::read(model.folder()));
    const std::vector<std::filesystem::path> files(data.files.begin(), data.files.end());
    QUELL_TRY(read, calib::read_text(files, tokenizer, cut));
    corpus = std::move(read);
    for (const std::int32_t id : corpus.ids) {
      if (static_cast<std::uint32_t>(id) < model.config().vocabulary) continue;
      return Error{ErrorCode::parse,
                   "the tokenizer gives the id " + std::to_string(id) + " (" +
                       std::string(tokenizer.piece(id)) + "), but the embedding has " +
                       std::to_string(model.config().vocabulary) +
                       " rows; is this the model's own tokenizer?",
                   (model.folder() / "tokenizer.json").string()};
    }
  }
  if (!calibration) return corpus;
  corpus = calib::sample(std::move(corpus), static_cast<std::size_t>(data.samples), data.seed);
  if (data.max_tokens != 0 && corpus.ids.size() > data.max_tokens) {
    std::size_t tokens = 0, keep = 0;
    while (keep < corpus.sequences() && tokens + corpus.lengths[keep] <= data.max_tokens) {
      tokens += corpus.lengths[keep++];
    }
    if (keep == 0)
      return usage("--max-tokens " + std::to_string(data.max_tokens) +
                   " is less than one sequence");
    corpus.lengths.resize(keep);
    corpus.ids.resize(tokens);
  }
  return corpus;
}

TokenText::TokenText(const model::Model& model) {
  auto tokenizer = tokenizer::Tokenizer::read(model.folder());
  if (tokenizer) tokenizer_.emplace(*std::move(tokenizer));
}

std::string TokenText::of(std::int32_t id) const {
  if (!tokenizer_) return std::to_string(id);
  const std::string text = tokenizer_->decode({&id, 1}, true);
  return text.empty() ? std::string(tokenizer_->piece(id)) : text;
}

Result<Demonstration> find_demonstration() {
  const std::filesystem::path program = program_folder();
  const std::filesystem::path candidates[] = {
    program / ".." / "share" / "quell",
#if defined(QUELL_EXAMPLES_DIR)
    QUELL_EXAMPLES_DIR,
#endif
  };
  std::string looked;
  for (const std::filesystem::path& root : candidates) {
    const Demonstration demonstration{root / "models" / "books7m",
                                      root / "text" / "calibration.txt",
                                      root / "text" / "evaluation.txt"};
    std::error_code failure;
    if (std::filesystem::exists(demonstration.model / "config.json", failure)) return demonstration;
    looked += (looked.empty() ? "" : ", ") + root.lexically_normal().string();
  }
  return Error{ErrorCode::missing,
               "the demonstration model was not found (looked in " + looked + "); give a MODEL"};
}

}  // namespace quell::cli
