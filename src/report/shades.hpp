// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pictures as lines of text: a character for each place, darker for more.

#include <string>

#include "quell/report/document.hpp"

namespace quell::report {

/// For a level from 0 to 1: ten shades, as many as can be told apart.
char shade_of(double level);

/// A headline and one line for each curve, at most 80 columns where names are short. Empty without
/// curves.
std::string shades_of(const Histogram& histogram);
std::string shades_of(const Profile& profile);

}  // namespace quell::report
