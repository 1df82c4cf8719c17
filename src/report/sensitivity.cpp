// SPDX-License-Identifier: Apache-2.0

#include "report/sensitivity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/svg.hpp"

namespace quell::report {
namespace {

using pipeline::Cure;
using pipeline::ErrorStage;
using pipeline::ModuleSensitivity;
using pipeline::Sensitivity;

constexpr double kMegabyte = 1e6;

const char* measure_of(const Sensitivity& sensitivity) {
  return sensitivity.encoder ? "cosine error" : "KL";
}
const char* unit_of(const Sensitivity& sensitivity) {
  return sensitivity.encoder ? "1 - cosine" : "nats per token";
}

/// The worst first. Damage below zero is noise of the measurement: no damage.
std::vector<const ModuleSensitivity*> worst_first(const Sensitivity& sensitivity) {
  std::vector<const ModuleSensitivity*> order;
  for (const ModuleSensitivity& module : sensitivity.modules) order.push_back(&module);
  std::stable_sort(order.begin(), order.end(),
                   [](const ModuleSensitivity* a, const ModuleSensitivity* b) {
                     const auto rank = [](const ModuleSensitivity& module) {
                       return std::isnan(module.damage) ? -HUGE_VAL : module.damage;
                     };
                     return rank(*a) > rank(*b);
                   });
  return order;
}

HeatStrip damage_strip(const Sensitivity& sensitivity, const PlaceAxis& axis) {
  double most = 0;
  for (const ModuleSensitivity& module : sensitivity.modules) {
    if (std::isfinite(module.damage)) most = std::max(most, module.damage);
  }
  // Four decades: what lies below does not count beside the largest.
  const double high = most > 0 ? std::pow(10, std::ceil(std::log10(most) - 1e-9)) : 1;
  HeatStrip strip =
      axis.strip("Damage of each module alone",
                 sensitivity.encoder ? "cosine error" : "KL, nats per token", high * 1e-4, high);
  for (const ModuleSensitivity& module : sensitivity.modules) {
    axis.set(strip, module.name, module.damage);
  }
  return strip;
}

std::string additivity(const Sensitivity& sensitivity) {
  if (!(sensitivity.together > 0)) return "All modules together do no damage that can be measured.";
  const double ratio = sensitivity.sum_ratio();
  const char* meaning =
      ratio > 2 ? "the modules' errors partly cancel or saturate, so what one module saves alone "
                  "overstates what it saves in the whole"
      : ratio < 0.5 ? "the modules' errors add to each other's damage, so a cure gains more the "
                      "more other modules are cured with it"
                    : "modules hurt nearly independently, so what is saved on one is saved in the "
                      "whole";
  return fmt::format(
      "One at a time the modules' damage sums to {}; all together it is {} +- {} {}. Ratio {}: {}.",
      short_number(sensitivity.sum()), short_number(sensitivity.together),
      short_number(sensitivity.together_standard_error), unit_of(sensitivity), short_number(ratio),
      meaning);
}

Section modules_section(const Sensitivity& sensitivity, const PlaceAxis& axis) {
  Section section{"Which modules hurt", {}};
  section.blocks.push_back(Paragraph{additivity(sensitivity)});
  if (!axis.empty()) section.blocks.push_back(damage_strip(sensitivity, axis));
  const std::string measure = measure_of(sensitivity);
  Table table;
  table.title = fmt::format("Each module swapped for its {} self, the worst first",
                            sensitivity.method.empty() ? "quantized" : sensitivity.method);
  table.columns = {{"module"},
                   {measure, true},
                   {"+-", true},
                   {"x noise", true},
                   {"if kept", true},
                   {"per MB", true},
                   {"output error", true, /*long_form=*/true},
                   {"weight error", true, /*long_form=*/true}};
  table.short_rows = 6;
  for (const ModuleSensitivity* module : worst_first(sensitivity)) {
    table.rows.push_back(
        {module->name, short_number(module->damage), short_number(module->damage_standard_error),
         short_number(module->noise_damage > 0 ? module->damage / module->noise_damage
                                               : std::nan("")),
         short_number(module->kept_gain), short_number(module->damage_per_megabyte()),
         short_number(module->output_error), short_number(module->relative_error)});
  }
  section.blocks.push_back(std::move(table));
  return section;
}

std::string words_of(Cure::Kind kind) {
  std::string words(to_string(kind));
  std::replace(words.begin(), words.end(), '_', ' ');
  return words;
}

/// What every cure leaves of every module's loss; without rows where nothing was measured.
Table ratios_table(const Sensitivity& sensitivity) {
  Table table;
  table.title = "What each kind of action leaves of a module's loss";
  table.short_rows = 0;
  table.columns = {{"module"}};
  for (const Cure::Kind kind : pipeline::kCureKinds) {
    table.columns.push_back({words_of(kind), true});
  }
  for (const ModuleSensitivity& module : sensitivity.modules) {
    if (module.loss_ratios.empty()) continue;
    std::vector<std::string>& row = table.rows.emplace_back(1, module.name);
    for (const Cure::Kind kind : pipeline::kCureKinds) {
      const auto found = module.loss_ratios.find(kind);
      row.push_back(found == module.loss_ratios.end() ? "-" : short_number(found->second));
    }
  }
  return table;
}

Section cures_section(const Sensitivity& sensitivity) {
  Section section{"What to do", {}};
  const std::string gain = fmt::format("gain, {}", measure_of(sensitivity));
  Table table;
  table.title = "Actions, the most gain for its bytes first";
  table.columns = {
      {"action"},       {"module"},         {gain, true}, {"MB more", true, /*long_form=*/true},
      {"per MB", true}, {"measured", true}, {"today"}};
  table.short_rows = 6;
  bool all = true;
  for (const Cure& cure : sensitivity.cures) {
    all = all && cure.available;
    table.rows.push_back({cure.action, cure.module, short_number(cure.gain),
                          short_number(static_cast<double>(cure.bytes) / kMegabyte),
                          cure.bytes <= 0 ? "free" : short_number(cure.gain_per_megabyte()),
                          cure.measured_gain ? short_number(*cure.measured_gain) : "-",
                          cure.available ? "yes" : "not yet"});
  }
  section.blocks.push_back(std::move(table));
  if (!all) {
    section.blocks.push_back(
        Paragraph{"Not yet: measured on this model, but quell cannot carry it out so far."});
  }
  Table ratios = ratios_table(sensitivity);
  if (!ratios.rows.empty()) section.blocks.push_back(std::move(ratios));
  return section;
}

std::vector<std::string> split_cells(const ErrorStage& stage) {
  return {short_number(stage.split.total()), short_number(stage.split.carried),
          short_number(stage.split.fresh), short_number(stage.split.cross),
          short_number(stage.split.gain())};
}

Section propagation_section(const Sensitivity& sensitivity) {
  Section section{"How the error travels", {}};
  LinePlot plot;
  plot.title = "Relative squared error behind each block";
  plot.x_name = "layer";
  plot.y_name = "R";
  plot.logarithmic = true;
  plot.lines = {{"over all tokens", {}}, {"mean of each token's own", {}}};
  Table blocks, modules;
  blocks.title = "Blocks, in order";
  blocks.short_rows = 0;
  blocks.columns = {{"block"},         {"R", true},       {"A carried", true},
                    {"B fresh", true}, {"C cross", true}, {"gain", true}};
  modules.title = "Modules, the largest error first";
  modules.short_rows = 6;
  modules.columns = {{"module"},
                     {"R", true},
                     {"A carried", true},
                     {"B fresh", true},
                     {"C cross", true, /*long_form=*/true},
                     {"gain", true, /*long_form=*/true},
                     {"G1", true},
                     {"G2", true}};
  std::vector<const ErrorStage*> order;
  for (const ErrorStage& stage : sensitivity.stages) {
    if (!stage.block) {
      order.push_back(&stage);
      continue;
    }
    plot.places.push_back(std::to_string(stage.layer));
    plot.lines[0].values.push_back(stage.split.total());
    plot.lines[1].values.push_back(stage.split_per_token.total());
    std::vector<std::string>& row = blocks.rows.emplace_back(1, stage.name);
    for (std::string& cell : split_cells(stage)) row.push_back(std::move(cell));
  }
  std::stable_sort(order.begin(), order.end(), [](const ErrorStage* a, const ErrorStage* b) {
    const auto rank = [](const ErrorStage& stage) {
      const double total = stage.split.total();
      return std::isnan(total) ? -HUGE_VAL : total;
    };
    return rank(*a) > rank(*b);
  });
  for (const ErrorStage* stage : order) {
    std::vector<std::string>& row = modules.rows.emplace_back(1, stage->name);
    for (std::string& cell : split_cells(*stage)) row.push_back(std::move(cell));
    row.push_back(short_number(stage->weight_gain));
    row.push_back(short_number(stage->alignment_gain));
  }
  if (!plot.places.empty()) section.blocks.push_back(std::move(plot));
  if (!modules.rows.empty()) section.blocks.push_back(std::move(modules));
  if (!blocks.rows.empty()) section.blocks.push_back(std::move(blocks));
  return section;
}

Section meanings(const Sensitivity& sensitivity) {
  Section section{"What the words of sensitivity mean", {}, /*long_form=*/true};
  section.blocks.push_back(Facts{{
      {"damage", sensitivity.encoder
                     ? "mean of 1 - cosine between the embeddings of the original and of the model "
                       "with one module quantized"
                     : "mean KL divergence, in nats per token, from the original to the model with "
                       "one module quantized"},
      {"+-", "standard error, sequences taken as independent draws"},
      {"if kept",
       "damage that goes away where this module alone stays in 16 bits and all others are "
       "quantized; per MB: for each 10^6 bytes that this adds"},
      {"x noise",
       "damage over that of Gaussian noise of the same norm in the same module: near 1 the error "
       "is as harmful as chance, far above it points where the model reads"},
      {"output error", "|X E^T| / |X W^T| on this text; weight error: |E| / |W|"},
      {"gain of an action",
       "damage predicted to go away, from what the module still does alone with the action, or "
       "where that was not tried from the loss of its outputs; measured: found by trying it in "
       "the quantized model"},
      {"R = A + B + C",
       "relative squared error behind a stage: carried from its input, fresh from its own "
       "quantization, and how far both work against each other (negative: they cancel)"},
      {"gain of a stage",
       "A over the R that came in: above 1 the stage makes an error larger. G1 times G2: what "
       "its weights do to any error, and how the error is aligned with them"},
  }});
  return section;
}

}  // namespace

std::string damage_clause(const Sensitivity& sensitivity) {
  const std::vector<const ModuleSensitivity*> order = worst_first(sensitivity);
  double total = 0;
  for (const ModuleSensitivity* module : order) {
    if (module->damage > 0) total += module->damage;
  }
  if (!(total > 0)) return "quantizing no single module does damage that can be measured";
  std::size_t few = 0;
  double part = 0;
  // Half, less what rounding leaves of it.
  while (few < order.size() && part < 0.5 * total * (1 - 1e-9)) part += order[few++]->damage;
  std::string clause = fmt::format("{} costs {} {}, {:.0f} % of the damage from {} of {} modules",
                                   sensitivity.method.empty() ? "quantization" : sensitivity.method,
                                   short_number(sensitivity.together),
                                   sensitivity.encoder ? "of cosine error" : "nats of KL per token",
                                   100 * part / total, few, order.size());
  // Half of the damage in more than a fifth of the modules is near an even spread: keeping those
  // high would cost as much as a finer grid for all.
  if (order.size() > 4 && 5 * few > order.size()) return clause + ", too many to keep high";
  constexpr std::size_t kNamed = 3;
  clause += ": keep ";
  for (std::size_t i = 0; i < std::min(few, kNamed); ++i) {
    clause += (i == 0 ? "" : ", ") + order[i]->name;
  }
  if (few > kNamed) clause += fmt::format(" and {} more", few - kNamed);
  return clause + " high";
}

std::vector<Section> sensitivity_sections(const Sensitivity& sensitivity, const PlaceAxis& axis) {
  std::vector<Section> sections;
  if (!sensitivity.modules.empty()) sections.push_back(modules_section(sensitivity, axis));
  if (!sensitivity.cures.empty()) sections.push_back(cures_section(sensitivity));
  if (!sensitivity.stages.empty()) sections.push_back(propagation_section(sensitivity));
  if (!sections.empty()) sections.push_back(meanings(sensitivity));
  return sections;
}

}  // namespace quell::report
