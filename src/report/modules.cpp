// SPDX-License-Identifier: Apache-2.0

#include "report/modules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "report/pictures.hpp"
#include "report/svg.hpp"

namespace quell::report {
namespace {

using pipeline::ModuleSensitivity;
using pipeline::OutlierReport;
using pipeline::TensorOutliers;

constexpr double kLargestHalf = 65504;

// Every weight matrix has some values below 2^-14, where half precision gets coarser; a tenth of
// all is where a normal distribution has a deviation of 8 times that limit, and scales of its
// groups, a seventh of their maxima, begin to lie below it too.
constexpr double kSubnormalShare = 0.1;

bool is_weight(const TensorOutliers& tensor) {
  return tensor.kind == TensorOutliers::Kind::weight;
}

double subnormal_share(const TensorOutliers& tensor) {
  const double size = static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
  return size > 0 ? static_cast<double>(tensor.fp16_subnormal) / size : 0;
}

/// Of activations only the largest value is known.
bool overflows(const TensorOutliers& tensor) {
  return tensor.fp16_overflow != 0 || static_cast<double>(tensor.absmax) > kLargestHalf;
}

bool is_in_danger(const TensorOutliers& tensor) {
  return tensor.nonfinite != 0 || overflows(tensor) || subnormal_share(tensor) >= kSubnormalShare ||
         tensor.zero_rows != 0 || tensor.zero_columns != 0;
}

std::string count_text(std::uint64_t count) {
  return count == 0 ? "-" : std::to_string(count);
}

std::string percent(double share) {
  return fmt::format("{} %", short_number(100 * share));
}

/// "766 (3.2), 12 (0.9)": the largest of a tensor's channels.
std::string largest_channels(const std::vector<double>& maxima) {
  constexpr std::size_t kNamed = 5;
  std::vector<std::size_t> order(maxima.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::size_t named = std::min(kNamed, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(named), order.end(),
                    [&](std::size_t a, std::size_t b) {
                      return maxima[a] != maxima[b] ? maxima[a] > maxima[b] : a < b;
                    });
  std::string text;
  for (std::size_t i = 0; i < named; ++i) {
    text += fmt::format("{}{} ({})", i == 0 ? "" : ", ", order[i], short_number(maxima[order[i]]));
  }
  return text;
}

/// Rows, columns and elements that a rule marked, the first few by number.
std::string marks_of(const stats::MatrixOutliers& marked) {
  constexpr std::size_t kNamed = 4;
  std::string text;
  const auto add = [&](std::size_t count, const char* what, auto name_of) {
    if (count == 0) return;
    text += (text.empty() ? "" : "; ") + std::string(what);
    for (std::size_t i = 0; i < std::min(count, kNamed); ++i) {
      text += (i == 0 ? " " : ", ") + name_of(i);
    }
    if (count > kNamed) text += fmt::format(" and {} more", count - kNamed);
  };
  const auto line_of = [](const std::vector<stats::OutlierLine>& lines) {
    return [&lines](std::size_t i) {
      return fmt::format("{} ({} x the median line)", lines[i].index, short_number(lines[i].ratio));
    };
  };
  add(marked.rows.size(), "output channel", line_of(marked.rows));
  add(marked.columns.size(), "input channel", line_of(marked.columns));
  add(marked.elements.size(), "element", [&](std::size_t i) {
    const stats::OutlierElement& element = marked.elements[i];
    return fmt::format("({}, {}) = {}", element.row, element.col,
                       short_number(static_cast<double>(element.value)));
  });
  return text.empty() ? "none" : text;
}

std::string range_of(const TensorOutliers& tensor) {
  std::string text;
  const auto add = [&](bool holds, const std::string& what) {
    if (holds) text += (text.empty() ? "" : ", ") + what;
  };
  add(tensor.nonfinite != 0, fmt::format("{} not finite", tensor.nonfinite));
  add(overflows(tensor), tensor.fp16_overflow != 0
                             ? fmt::format("{} beyond fp16", tensor.fp16_overflow)
                             : std::string("beyond fp16"));
  add(tensor.fp16_subnormal != 0, percent(subnormal_share(tensor)) + " subnormal in fp16");
  add(tensor.zero_rows != 0, fmt::format("{} zero rows", tensor.zero_rows));
  add(tensor.zero_columns != 0, fmt::format("{} zero columns", tensor.zero_columns));
  return text.empty() ? "nothing that fp16 cannot hold" : text;
}

Page page_of(const TensorOutliers& tensor, const ModuleSensitivity* sensitivity,
             std::size_t points) {
  // As many bins as can be told apart in a small picture.
  constexpr std::size_t kBins = 56;
  Page page;
  page.title = tensor.name;
  page.brief = fmt::format("{} x {}, largest {}, {} times the median", tensor.rows, tensor.cols,
                           short_number(static_cast<double>(tensor.absmax)),
                           short_number(tensor.max_to_median()));
  Facts facts;
  const auto add = [&](const char* label, std::string text) {
    facts.lines.emplace_back(label, std::move(text));
  };
  add("Largest",
      fmt::format("{} at {} {}, channel {}", short_number(static_cast<double>(tensor.absmax)),
                  is_weight(tensor) ? "row" : "token", tensor.argmax_row, tensor.argmax_col));
  add("Median, mean",
      fmt::format("{}, {}", short_number(tensor.median_abs), short_number(tensor.mean_abs)));
  add("Kurtosis", short_number(tensor.excess_kurtosis));
  if (is_weight(tensor)) {
    add("Outliers", marks_of(tensor.marked) + (tensor.stands_out ? "; stands out" : ""));
    add("Of a line",
        fmt::format("largest over mean: {} of a row, {} of a column",
                    short_number(tensor.row_ratio), short_number(tensor.column_ratio)));
  } else {
    add("First token",
        fmt::format("{}; others {}", short_number(static_cast<double>(tensor.first_token_absmax)),
                    short_number(static_cast<double>(tensor.rest_absmax))));
  }
  add("Range", range_of(tensor));
  if (!tensor.channel_max.empty()) add("Channels", largest_channels(tensor.channel_max));
  if (sensitivity != nullptr) {
    add("Damage",
        fmt::format("{} +- {}, noise of the same size {}", short_number(sensitivity->damage),
                    short_number(sensitivity->damage_standard_error),
                    short_number(sensitivity->noise_damage)));
    page.brief += ", damage " + short_number(sensitivity->damage);
  }
  page.blocks.push_back(std::move(facts));
  const char* magnitude = is_weight(tensor) ? "|w|" : "|x|";
  if (!tensor.histogram.counts().empty()) {
    const std::pair<std::string, const stats::LogHistogram*> curve = {"", &tensor.histogram};
    page.blocks.push_back(histogram_of("", magnitude, {&curve, 1}, kBins));
  }
  if (!tensor.channel_max.empty()) {
    const std::pair<std::string, std::span<const double>> curve = {"", tensor.channel_max};
    page.blocks.push_back(
        profile_of("", fmt::format("largest {}", magnitude), {&curve, 1}, points));
  }
  return page;
}

/// The places of at most `most` tensors, those with the highest ratios, in their own order.
std::vector<std::size_t> chosen(const std::vector<TensorOutliers>& tensors, std::size_t most) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (order.size() <= most) return order;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return tensors[a].max_to_median() > tensors[b].max_to_median();
  });
  order.resize(most);
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

Section range_section(const OutlierReport& report) {
  Section section{"Range", {}};
  Table table;
  table.title = "What number formats cannot hold";
  table.columns = {{"tensor"},
                   {"not finite", true},
                   {"beyond fp16", true},
                   {"subnormal in fp16", true},
                   {"zero rows", true},
                   {"zero columns", true}};
  table.short_rows = 6;
  const TensorOutliers* finest = nullptr;
  const auto look = [&](const std::vector<TensorOutliers>& tensors) {
    for (const TensorOutliers& tensor : tensors) {
      const double share = subnormal_share(tensor);
      if (share > (finest == nullptr ? 0 : subnormal_share(*finest))) finest = &tensor;
      if (!is_in_danger(tensor)) continue;
      table.rows.push_back({tensor.name, count_text(tensor.nonfinite),
                            tensor.fp16_overflow == 0 && overflows(tensor)
                                ? "yes"
                                : count_text(tensor.fp16_overflow),
                            share >= kSubnormalShare ? percent(share) : "-",
                            count_text(tensor.zero_rows), count_text(tensor.zero_columns)});
    }
  };
  look(report.weights);
  look(report.activations);
  if (!table.rows.empty()) {
    section.blocks.push_back(std::move(table));
    return section;
  }
  std::string text = "All values are finite and within what fp16 holds; no row or column is zero.";
  if (finest != nullptr) {
    text += fmt::format(" At most {} of a tensor ({}) is subnormal in fp16.",
                        percent(subnormal_share(*finest)), finest->name);
  }
  section.blocks.push_back(Paragraph{std::move(text)});
  return section;
}

Section coverage_section(const OutlierReport& report, std::uint64_t distinct,
                         std::uint64_t vocabulary) {
  std::string text = fmt::format("{} tokens in {} sequence{}", report.tokens, report.sequences,
                                 report.sequences == 1 ? "" : "s");
  if (distinct != 0 && vocabulary != 0) {
    text += fmt::format(", {} of the vocabulary's {} tokens ({})", distinct, vocabulary,
                        percent(static_cast<double>(distinct) / static_cast<double>(vocabulary)));
  }
  if (!report.excluded.empty()) {
    const pipeline::ExcludedSequence& first = report.excluded.front();
    text += fmt::format(
        "; {} more left out, whose activations are not finite (the first: sequence {}, from {} on)",
        report.excluded.size(), first.sequence, first.place);
  }
  const TensorOutliers* widest = nullptr;
  for (const TensorOutliers& tensor : report.activations) {
    if (widest == nullptr || tensor.cols > widest->cols) widest = &tensor;
  }
  if (widest == nullptr || widest->cols == 0) {
    return {"Coverage", {Paragraph{text + "."}}};
  }
  const double each = static_cast<double>(report.tokens) / static_cast<double>(widest->cols);
  text += fmt::format(". The widest input, {}, has {} channels: {} tokens for each", widest->name,
                      widest->cols, short_number(each));
  text += report.tokens < widest->cols
              ? fmt::format(
                    ". Its second moments have rank {} at most, so methods that invert them "
                    "stand on damping alone in the other directions; give more text.",
                    report.tokens)
              : std::string(", so its second moments can have full rank.");
  return {"Coverage", {Paragraph{std::move(text)}}};
}

std::vector<Section> page_sections(const OutlierReport& report,
                                   const pipeline::Sensitivity* sensitivity) {
  // A page takes up to 6 kB beside 16 bytes for every point of its two profiles.
  constexpr std::size_t kMostPages = 230, kPoints = 80'000;
  std::map<std::string, const ModuleSensitivity*> damage;
  if (sensitivity != nullptr) {
    for (const ModuleSensitivity& module : sensitivity->modules) damage[module.name] = &module;
  }
  const std::size_t pages =
      std::min(report.weights.size(), kMostPages) + std::min(report.activations.size(), kMostPages);
  const std::size_t points =
      std::clamp<std::size_t>(kPoints / std::max<std::size_t>(pages, 1), 64, 256);
  std::vector<Section> sections;
  const auto add = [&](const char* title, const std::vector<TensorOutliers>& tensors) {
    if (tensors.empty()) return;
    Section section{title, {}, /*long_form=*/true};
    const std::vector<std::size_t> places = chosen(tensors, kMostPages);
    if (places.size() < tensors.size()) {
      section.blocks.push_back(
          Paragraph{fmt::format("The {} of {} with the highest largest value over the median.",
                                places.size(), tensors.size())});
    }
    for (const std::size_t i : places) {
      const auto found = damage.find(tensors[i].name);
      section.pages.push_back(
          page_of(tensors[i], found == damage.end() ? nullptr : found->second, points));
    }
    sections.push_back(std::move(section));
  };
  add("Weight matrices, one by one", report.weights);
  add("Activations, one by one", report.activations);
  return sections;
}

}  // namespace quell::report
