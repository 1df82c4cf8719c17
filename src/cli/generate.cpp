// SPDX-License-Identifier: Apache-2.0

// `quell generate`: text from a model, token by token, with its speed on stderr.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>

#include "cli/command.hpp"
#include "quell/engine/generate.hpp"

namespace quell::cli {
namespace {

class Generate final : public Command {
 public:
  std::string_view name() const override { return "generate"; }
  std::string_view help() const override { return "text from a (quantized) model"; }
  void add_options(CLI::App& app) override {
    app.add_option("MODEL", model_, "model folder, quantized or not")->required();
    app.add_option("--prompt", prompt_, "text to continue (default: none)");
    app.add_option("--tokens", tokens_, "tokens to generate")->capture_default_str();
    app.add_option("--temperature", temperature_, "0 for the most likely token each time")
        ->capture_default_str();
    app.add_option("--seed", seed_, "seed of the draws")
        ->check(whole_number(0))
        ->capture_default_str();
    arithmetic_.add(app);
  }

  Status run() override {
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    QUELL_TRY(model, model::Model::load(model_, {limits.allow_links_outside}));
    QUELL_TRY(model::expect_head(model));
    QUELL_TRY(tokenizer, tokenizer::Tokenizer::read(model.folder()));
    QUELL_TRY(prompt, tokenizer.encode(prompt_));
    if (prompt.empty()) {
      return Error{
          ErrorCode::usage,
          "the prompt gives no tokens, and this model has none to begin with; give --prompt"};
    }
    QUELL_TRY(arithmetic, arithmetic_.options(engine::Arithmetic::packed));
    QUELL_TRY(engine, engine::Engine::create(model, *executor, arithmetic));
    engine::GenerateOptions options;
    options.tokens = tokens_;
    options.temperature = temperature_;
    options.seed = seed_;
    if (model.config().eos) options.stop.push_back(*model.config().eos);
    if (limits.max_memory != 0) options.memory_bytes = limits.max_memory / 2;

    using Clock = std::chrono::steady_clock;
    auto loaded = Clock::now(), first = loaded;
    std::vector<std::int32_t> shown = prompt;
    std::string text = tokenizer.decode(shown);
    if (!limits.json) print(text);
    std::size_t made = 0;
    options.on_loaded = [&] { loaded = Clock::now(); };
    options.on_token = [&](std::int32_t id) {
      if (made++ == 0) first = Clock::now();
      // A token may end inside a character, so text is decoded as a whole and its news printed.
      shown.push_back(id);
      std::string longer = tokenizer.decode(shown);
      const std::size_t whole = whole_characters(longer);
      if (whole > text.size() && !limits.json)
        print(std::string_view(longer).substr(text.size(), whole - text.size()));
      if (whole > text.size()) text = longer.substr(0, whole);
      return true;
    };
    QUELL_TRY(ids, engine::generate(engine, prompt, options));
    const auto end = Clock::now();
    if (const std::string note = engine.note(); !note.empty())
      fmt::print(stderr, "note: {}\n", note);
    const double prefill = std::chrono::duration<double>(first - loaded).count();
    const double decode = std::chrono::duration<double>(end - first).count();
    const double prefill_rate = prefill > 0 ? static_cast<double>(prompt.size()) / prefill : 0;
    const double decode_rate =
        decode > 0 && ids.size() > 1 ? static_cast<double>(ids.size() - 1) / decode : 0;
    // Of a cache without tokens, which takes no memory.
    QUELL_TRY(cache, engine::Cache::create(model.config(), 0, arithmetic.cache));
    if (limits.json) {
      io::Json json = begin_json("generate");
      json.set("text", tokenizer.decode(shown));
      json.set("tokens", static_cast<std::uint64_t>(ids.size()));
      json.set("prefill_tokens_per_second", prefill_rate);
      json.set("decode_tokens_per_second", decode_rate);
      json.set("cache", arithmetic_.cache);
      json.set("cache_bytes_per_token", cache.bytes_per_token());
      print_json(std::move(json));
      return ok();
    }
    print("\n");
    fmt::print(stderr,
               "prefill {:.1f} tokens/s, decode {:.1f} tokens/s, cache {} ({} bytes a token)\n",
               prefill_rate, decode_rate, arithmetic_.cache, cache.bytes_per_token());
    return ok();
  }

 private:
  static void print(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  // Bytes before a trailing U+FFFD, which may yet become a character.
  static std::size_t whole_characters(const std::string& text) {
    constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
    std::size_t size = text.size();
    while (size >= 3 && std::string_view(text).substr(size - 3, 3) == kReplacement) size -= 3;
    return size;
  }

  std::string model_, prompt_;
  ArithmeticArguments arithmetic_;
  std::uint32_t tokens_ = 100;
  double temperature_ = 0;
  std::uint64_t seed_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_generate() {
  return std::make_unique<Generate>();
}

}  // namespace quell::cli
