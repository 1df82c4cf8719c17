// SPDX-License-Identifier: Apache-2.0
#include "kernels/panel_form.hpp"

namespace quell::kernels {

std::vector<Span> spans_of(const PanelLayout& layout, std::size_t most) {
  std::vector<Span> spans;
  const std::size_t full = layout.groups == 1 ? layout.units(0) : layout.group / kUnit;
  if (layout.groups == 1) {
    for (std::size_t begin = 0; begin < full; begin += std::min(most, full)) {
      const std::size_t units = std::min(most, full - begin);
      spans.push_back({0, 1, begin, units, begin, begin == 0, begin + units == full});
    }
    return spans;
  }
  for (std::size_t g = 0; g < layout.groups;) {
    const std::size_t units = layout.units(g);
    std::size_t groups = 1;
    while (g + groups < layout.groups && layout.units(g + groups) == units &&
           (groups + 1) * units <= most) {
      ++groups;
    }
    spans.push_back({g, groups, 0, units, g * full, true, true});
    g += groups;
  }
  return spans;
}

}  // namespace quell::kernels
