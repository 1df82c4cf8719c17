// SPDX-License-Identifier: Apache-2.0
#pragma once

// KL divergence against bits per weight, one picture a model, as one SVG file that stands alone.

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "quell/core/result.hpp"

namespace quell::bench {

struct QualityPlot {
  std::string title;
  /// (bits per weight, KL in nats) of each method; values above 0.
  std::map<std::string, std::vector<std::pair<double, double>>> curves;
};

std::string svg_of(const std::vector<QualityPlot>& plots);

Status write_file(const std::filesystem::path& file, const std::string& text);

}  // namespace quell::bench
