// SPDX-License-Identifier: Apache-2.0

#include "quell/report/run.hpp"

#include <fmt/format.h>

#include "quell/report/results.hpp"
#include "quell/version.hpp"
#include "report/pictures.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

using pipeline::Evaluation;

std::string verdict_of(const Evaluation& evaluation) {
  if (evaluation.embeddings) {
    return fmt::format("cosine error {} against the original",
                       short_number(evaluation.embeddings->cosine_error_mean));
  }
  if (!evaluation.against) return fmt::format("perplexity {}", short_number(evaluation.perplexity));
  const pipeline::Against& against = *evaluation.against;
  return fmt::format("KL {} +- {} nats per token, perplexity {} after {} ({:+.2f} %)",
                     short_number(against.kl.mean), short_number(against.kl_standard_error),
                     short_number(evaluation.perplexity), short_number(against.perplexity),
                     100 * (evaluation.perplexity / against.perplexity - 1));
}

LinePlot layers_plot(const std::vector<pipeline::LayerError>& layers) {
  LinePlot plot;
  plot.title = "Error of the residual stream, by layer";
  plot.x_name = "layer";
  plot.y_name = "relative error";
  plot.lines = {{"|x - original| / |original|", {}}};
  for (const pipeline::LayerError& layer : layers) {
    plot.places.push_back(std::to_string(layer.layer));
    plot.lines[0].values.push_back(layer.relative_error);
  }
  return plot;
}

Section evaluation_section(const Evaluation& evaluation) {
  Section section{"Against the original", {}};
  Facts facts;
  const auto add = [&](const char* label, std::string text) {
    facts.lines.emplace_back(label, std::move(text));
  };
  const std::vector<pipeline::LayerError>* layers = nullptr;
  if (evaluation.embeddings) {
    const pipeline::EmbeddingsAgainst& against = *evaluation.embeddings;
    layers = &against.layers;
    add("Texts", fmt::format("{} with {} tokens", against.texts, evaluation.tokens));
    add("Cosine error", fmt::format("{} mean, {} largest", short_number(against.cosine_error_mean),
                                    short_number(against.cosine_error_max)));
    add("Hidden states",
        fmt::format("relative error {}", short_number(against.hidden_relative_error)));
    if (against.nearest_neighbour_agreement) {
      add("Neighbours", fmt::format("{:.2f} % of texts keep their nearest one",
                                    100 * *against.nearest_neighbour_agreement));
    }
  } else {
    add("Tokens", fmt::format("{} scored", evaluation.tokens));
    add("Perplexity", fmt::format("{} +- {}", short_number(evaluation.perplexity),
                                  short_number(evaluation.perplexity_standard_error)));
    if (evaluation.against) {
      const pipeline::Against& against = *evaluation.against;
      layers = &against.layers;
      facts.lines.back().second +=
          fmt::format(", the original {}", short_number(against.perplexity));
      add("KL", fmt::format("{} +- {} nats per token; median {}, 99 % below {}, largest {}",
                            short_number(against.kl.mean), short_number(against.kl_standard_error),
                            short_number(against.kl.median), short_number(against.kl.p99),
                            short_number(against.kl.max)));
      add("Same favourite", fmt::format("{:.2f} % of tokens", 100 * against.top1_agreement));
    }
  }
  section.blocks.push_back(std::move(facts));
  if (layers != nullptr && !layers->empty()) section.blocks.push_back(layers_plot(*layers));
  return section;
}

}  // namespace

Result<Document> run_document(const OutlierInputs& inputs, const std::string& name,
                              const pipeline::QuantizeOutcome& outcome,
                              const pipeline::Evaluation& evaluation) {
  const io::Json kept =
      io::Json::object({{"quell_version", QUELL_VERSION}, {"quantize", outcome.to_json()}});
  QUELL_TRY(result, result_document(name, name, kept));
  Document original = outlier_document(inputs);
  Document document;
  document.title = inputs.name + " quantized";
  document.verdict = verdict_of(evaluation) + "; " + result.verdict;
  document.facts = std::move(original.facts);
  for (auto& line : result.facts.lines) document.facts.lines.push_back(std::move(line));
  document.facts.lines.emplace_back("Outliers", original.verdict);
  document.sections.push_back(evaluation_section(evaluation));
  for (Document* part : {&result, &original}) {
    for (Section& section : part->sections) document.sections.push_back(std::move(section));
  }
  document.provenance = std::move(original.provenance);
  document.provenance.lines.emplace_back("Result", name);
  document.provenance.lines.emplace_back("Hash", outcome.hash);
  return document;
}

}  // namespace quell::report
