// SPDX-License-Identifier: Apache-2.0

// The main job as library calls: read a model and text, quantize to 4 bits with error feedback,
// write a folder that engines load, and measure what was lost.

#include <quell/calib/corpus.hpp>
#include <quell/core/executor.hpp>
#include <quell/model/model.hpp>
#include <quell/pipeline/evaluate.hpp>
#include <quell/pipeline/observer.hpp>
#include <quell/pipeline/plan.hpp>
#include <quell/pipeline/quantize.hpp>
#include <quell/pipeline/recipe.hpp>
#include <quell/tokenizer/tokenizer.hpp>

#include <cstdio>
#include <filesystem>
#include <vector>

namespace fs = std::filesystem;

static quell::Status compress(const fs::path& folder, const fs::path& calibration,
                              const fs::path& text, const fs::path& output) {
  const auto threads = quell::make_openmp_executor();
  quell::pipeline::Observer quiet;
  QUELL_TRY(model, quell::model::Model::load(folder));
  QUELL_TRY(tokenizer, quell::tokenizer::Tokenizer::read(folder));

  // Windows of 256 tokens; 32 of them calibrate.
  const quell::calib::CutOptions windows{.length = 256};
  QUELL_TRY(all, quell::calib::read_text(std::vector{calibration}, tokenizer, windows));
  const quell::calib::Corpus corpus = quell::calib::sample(std::move(all), 32, /*seed=*/0);

  quell::pipeline::Recipe recipe;  // 4 bits, symmetric
  recipe.method = "gptq";
  recipe.group = 32;
  const quell::pipeline::CalibrationSize data{
      .available = true, .sequential = true, .tokens = corpus.ids.size(), .longest = 2048};
  QUELL_TRY(plan, quell::pipeline::make_plan(model, recipe, data, *threads));

  quell::pipeline::QuantizeOptions options;
  options.output = output;
  options.force = true;
  options.corpus = &corpus;
  QUELL_TRY(done, quell::pipeline::quantize(model, recipe, plan, options, *threads, quiet));
  std::printf("%zu layers, %.2f bits per weight\n", done.modules.size(), done.bits_per_weight);

  quell::calib::CutOptions short_text = windows;
  short_text.max_tokens = 4096;
  QUELL_TRY(unseen, quell::calib::read_text(std::vector{text}, tokenizer, short_text));
  QUELL_TRY(small, quell::model::Model::load(output));
  QUELL_TRY(loss,
            quell::pipeline::evaluate(small, &model, unseen, /*max_memory=*/0, *threads, quiet));
  std::printf("perplexity %.2f, of the original %.2f; KL divergence %.4f nats per token\n",
              loss.perplexity, loss.against->perplexity, loss.against->kl.mean);
  return quell::ok();
}

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: quantize_model MODEL CALIBRATION.txt EVALUATION.txt OUTPUT\n");
    return 2;
  }
  if (const auto done = compress(argv[1], argv[2], argv[3], argv[4]); !done) {
    std::fprintf(stderr, "%s\n", done.error().message.c_str());
    return 1;
  }
}
