// SPDX-License-Identifier: Apache-2.0
#include "report/what_if.hpp"

#include <fmt/format.h>

#include "report/svg.hpp"

namespace quell::report {
namespace {

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

/// "183.6 -> 12.3"
std::string change(float before, float after) {
  return short_number(static_cast<double>(before)) + " -> " +
         short_number(static_cast<double>(after));
}

std::string clip_text(const pipeline::WhatIf& what_if) {
  std::string text =
      fmt::format("clip((zeta - gamma) p + gamma, 0, 1) with zeta {} and gamma {}",
                  short_number(static_cast<double>(what_if.rule.zeta)), what_if.rule.gamma);
  if (what_if.alpha) {
    text += fmt::format(" (alpha {} at {} tokens)",
                        short_number(static_cast<double>(*what_if.alpha)), what_if.length);
  }
  return text;
}

}  // namespace

Section what_if_section(const pipeline::WhatIf& what_if) {
  Section section{"What if softmax were clipped", {}};
  section.blocks.push_back(Paragraph{fmt::format(
      "Every attention probability p of the trained model becomes {}; over {} tokens in {} {}. "
      "Zeros: probabilities that are exactly 0, of those a query can see. Empty: queries of a head "
      "that attend to nothing. Change: of the attention output, against the model as it is.",
      clip_text(what_if), what_if.tokens, what_if.sequences,
      what_if.sequences == 1 ? "sequence" : "sequences")});
  Table table;
  table.columns = {{"layer", true},  {"zeros", true},        {"empty", true},
                   {"change", true}, {"residual max", true}, {"down_in max", true}};
  for (const pipeline::WhatIfLayer& layer : what_if.layers) {
    table.rows.push_back({std::to_string(layer.layer), percent(layer.zeros_after),
                          percent(layer.empty_rows), percent(layer.output_change),
                          change(layer.residual_before, layer.residual_after),
                          change(layer.down_in_before, layer.down_in_after)});
  }
  table.short_rows = 12;
  section.blocks.push_back(std::move(table));
  Facts facts;
  if (what_if.predictions) {
    const auto& found = *what_if.predictions;
    facts.lines.emplace_back(
        "KL", fmt::format("{} nats per token, at most {}", short_number(found.kl_mean),
                          short_number(found.kl_max)));
    facts.lines.emplace_back("Perplexity",
                             fmt::format("{} -> {}", short_number(found.perplexity_before),
                                         short_number(found.perplexity_after)));
    facts.lines.emplace_back("Same top",
                             fmt::format("{} of tokens", percent(found.top1_agreement)));
  }
  if (what_if.embeddings) {
    facts.lines.emplace_back("Cosine error",
                             fmt::format("{} of the embeddings, at most {}",
                                         short_number(what_if.embeddings->cosine_error_mean),
                                         short_number(what_if.embeddings->cosine_error_max)));
  }
  section.blocks.push_back(std::move(facts));
  return section;
}

}  // namespace quell::report
