// SPDX-License-Identifier: Apache-2.0

#include "quell/report/results.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "report/pictures.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

/// A module as the report tells it; what is missing there is NaN or empty.
struct Module {
  std::string name, method, grid, fallback;
  double bits = std::nan(""), loss = std::nan(""), rounding = std::nan(""), error = std::nan("");

  /// Loss over that of rounding.
  double gain() const { return rounding > 0 ? loss / rounding : std::nan(""); }
};

struct Outcome {
  std::vector<Module> modules;
  double bits = std::nan("");
  std::string version, hash;
};

double number_at(const io::Json& object, const char* key) {
  const io::Json* found = object.find(key);
  const bool number =
      found != nullptr && (found->is(io::Json::Kind::integer) || found->is(io::Json::Kind::real));
  return number ? found->as_number() : std::nan("");
}
std::string text_at(const io::Json& object, const char* key) {
  const io::Json* found = object.find(key);
  return found != nullptr && found->is(io::Json::Kind::string) ? found->as_string() : std::string();
}

Result<Outcome> read_outcome(const std::string& file, const io::Json& report) {
  const auto bad = [&](const char* what) {
    return Error{ErrorCode::parse, file + ": " + what + "; is this a report that quell wrote?",
                 file};
  };
  const io::Json* quantize = report.find("quantize");
  if (quantize == nullptr || !quantize->is(io::Json::Kind::object)) {
    return bad("no object \"quantize\"");
  }
  const io::Json* modules = quantize->find("modules");
  if (modules == nullptr || !modules->is(io::Json::Kind::array)) return bad("no list of modules");
  Outcome outcome;
  outcome.version = text_at(report, "quell_version");
  outcome.bits = number_at(*quantize, "bits_per_weight");
  outcome.hash = text_at(*quantize, "hash");
  for (const io::Json& item : modules->items()) {
    if (!item.is(io::Json::Kind::object)) return bad("a module that is no object");
    Module module;
    module.name = text_at(item, "name");
    module.method = text_at(item, "method");
    module.grid = text_at(item, "grid");
    // Reports of before inputs could be rounded say nothing of them.
    if (const double bits = number_at(item, "activation_bits"); bits < 16) {
      module.grid += fmt::format(", inputs int{}", bits);
    }
    if (const double kept = number_at(item, "kept_columns"); kept > 0) {
      module.grid += fmt::format(", {} in f16", kept);
    }
    module.fallback = text_at(item, "fallback");
    module.bits = number_at(item, "bits_per_weight");
    module.loss = number_at(item, "objective");
    module.rounding = number_at(item, "objective_rtn");
    module.error = number_at(item, "relative_error");
    outcome.modules.push_back(std::move(module));
  }
  return outcome;
}

HeatStrip strip_of(const Outcome& outcome, const PlaceAxis& axis, const char* title,
                   double (*value_of)(const Module&), double low, double high, const char* unit) {
  HeatStrip strip = axis.strip(title, unit, low, high);
  for (const Module& module : outcome.modules) axis.set(strip, module.name, value_of(module));
  return strip;
}

std::vector<std::string> names_of(const Outcome& outcome) {
  std::vector<std::string> names;
  for (const Module& module : outcome.modules) names.push_back(module.name);
  return names;
}

std::string methods_of(const Outcome& outcome) {
  std::map<std::string, std::size_t> counts;
  for (const Module& module : outcome.modules) ++counts[module.method + " " + module.grid];
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [what, n] : counts) order.emplace_back(n, what);
  std::sort(order.rbegin(), order.rend());
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, order.size()); ++i) {
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", order[i].second, order[i].first);
  }
  if (order.size() > 3) text += fmt::format(" and {} more", order.size() - 3);
  return text;
}

void add_facts(Document& document, const std::string& label, const Outcome& outcome) {
  document.facts.lines.emplace_back(
      label, fmt::format("{} bits per weight, {} modules: {}", short_number(outcome.bits),
                         outcome.modules.size(), methods_of(outcome)));
}

}  // namespace

Result<Document> result_document(const std::string& name, const std::string& file,
                                 const io::Json& report) {
  QUELL_TRY(outcome, read_outcome(file, report));
  Document document;
  document.title = "Result " + name;
  std::size_t fallbacks = 0;
  double gain = 0, gains = 0;
  for (const Module& module : outcome.modules) {
    fallbacks += module.fallback.empty() ? 0 : 1;
    if (!(module.gain() > 0)) continue;
    gain += std::log(module.gain());
    ++gains;
  }
  document.verdict = fmt::format("{} modules at {} bits per weight", outcome.modules.size(),
                                 short_number(outcome.bits));
  if (gains > 0) {
    document.verdict += fmt::format(", with {} times the loss of rounding (geometric mean)",
                                    short_number(std::exp(gain / gains)));
  }
  document.verdict += fallbacks == 0 ? "; no method had to give way"
                                     : fmt::format("; in {} the method had to give way", fallbacks);
  add_facts(document, "Result", outcome);

  Section where{"Where the loss is", {}};
  const std::vector<std::string> names = names_of(outcome);
  const PlaceAxis axis(names);
  if (!axis.empty()) {
    where.blocks.push_back(strip_of(
        outcome, axis, "Loss of each module, as a share of its output",
        [](const Module& m) { return m.loss; }, 1e-5, 1e-1, "of the output's energy"));
    where.blocks.push_back(strip_of(
        outcome, axis, "Relative error of the weights", [](const Module& m) { return m.error; },
        1e-3, 1, "of the weight's norm"));
  }
  std::vector<const Module*> order;
  for (const Module& module : outcome.modules) order.push_back(&module);
  std::stable_sort(order.begin(), order.end(), [](const Module* a, const Module* b) {
    const double x = std::isnan(a->loss) ? -1 : a->loss, y = std::isnan(b->loss) ? -1 : b->loss;
    return x > y;
  });
  Table table;
  table.title = "Modules, the largest loss first";
  table.short_rows = 8;
  table.columns = {{"module"},     {"method"},
                   {"grid"},       {"bits", true},
                   {"loss", true}, {"by rounding", true},
                   {"gain", true}, {"weight error", true},
                   {"gave way"}};
  for (const Module* module : order) {
    table.rows.push_back({module->name, module->method, module->grid, short_number(module->bits),
                          short_number(module->loss), short_number(module->rounding),
                          short_number(module->gain()), short_number(module->error),
                          module->fallback.empty() ? "-" : module->fallback});
  }
  where.blocks.push_back(std::move(table));
  document.sections.push_back(std::move(where));
  document.sections.push_back(
      {"What the words of the result mean",
       {Facts{{{"loss",
                "error of a module's output over the calibration text, over the output's own "
                "energy"},
               {"by rounding", "the same if every weight is rounded to the nearest code"},
               {"gain", "loss over that of rounding: below 1 is better than rounding"},
               {"weight error", "norm of the difference over the norm of the weight"}}}},
       /*long_form=*/true});
  document.provenance.lines = {{"Made by", "quell " + outcome.version}, {"Hash", outcome.hash}};
  return document;
}

Result<Document> comparison_document(const std::string& name_a, const std::string& file_a,
                                     const io::Json& a, const std::string& name_b,
                                     const std::string& file_b, const io::Json& b) {
  QUELL_TRY(first, read_outcome(file_a, a));
  QUELL_TRY(second, read_outcome(file_b, b));
  Document document;
  document.title = name_a + " and " + name_b;
  add_facts(document, "A", first);
  add_facts(document, "B", second);
  document.facts.lines.emplace_back("A is", name_a);
  document.facts.lines.emplace_back("B is", name_b);

  std::map<std::string, const Module*> others;
  for (const Module& module : second.modules) others[module.name] = &module;
  struct Pair {
    const Module* a;
    const Module* b;
    double ratio;
  };
  std::vector<Pair> pairs;
  std::string only_a, only_b;
  double sum = 0, count = 0;
  for (const Module& module : first.modules) {
    const auto found = others.find(module.name);
    if (found == others.end()) {
      only_a += (only_a.empty() ? "" : ", ") + module.name;
      continue;
    }
    const double ratio = module.loss > 0 ? found->second->loss / module.loss : std::nan("");
    pairs.push_back({&module, found->second, ratio});
    others.erase(found);
    if (!(ratio > 0)) continue;
    sum += std::log(ratio);
    ++count;
  }
  for (const auto& [name, module] : others) only_b += (only_b.empty() ? "" : ", ") + name;
  document.verdict =
      count > 0 ? fmt::format(
                      "B has {} times the loss of A (geometric mean over {} modules) at {} "
                      "against {} bits per weight",
                      short_number(std::exp(sum / count)), count, short_number(second.bits),
                      short_number(first.bits))
                : "no module has a loss in both; nothing can be compared";
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& x, const Pair& y) {
    return std::abs(std::log(x.ratio > 0 ? x.ratio : 1)) >
           std::abs(std::log(y.ratio > 0 ? y.ratio : 1));
  });
  Table table;
  table.title = "Modules, the largest difference first";
  table.short_rows = 12;
  table.columns = {{"module"},       {"bits A", true}, {"bits B", true},
                   {"loss A", true}, {"loss B", true}, {"B over A", true}};
  for (const Pair& pair : pairs) {
    table.rows.push_back({pair.a->name, short_number(pair.a->bits), short_number(pair.b->bits),
                          short_number(pair.a->loss), short_number(pair.b->loss),
                          short_number(pair.ratio)});
  }
  Section section{"Side by side", {}};
  std::vector<std::string> names = names_of(first);
  for (std::string& name : names_of(second)) names.push_back(std::move(name));
  const PlaceAxis axis(names);
  if (!axis.empty()) {
    const auto loss = [](const Module& m) { return m.loss; };
    for (const auto& [title, outcome] : {std::pair{"Loss of A", &first}, {"Loss of B", &second}}) {
      section.blocks.push_back(
          strip_of(*outcome, axis, title, loss, 1e-5, 1e-1, "of the output's energy"));
    }
  }
  section.blocks.push_back(std::move(table));
  if (!only_a.empty()) section.blocks.push_back(Paragraph{"Only in A: " + only_a});
  if (!only_b.empty()) section.blocks.push_back(Paragraph{"Only in B: " + only_b});
  document.sections.push_back(std::move(section));
  document.provenance.lines = {{"Made by", "quell " + first.version + ", " + second.version}};
  return document;
}

}  // namespace quell::report
