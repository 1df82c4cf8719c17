// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a quantization hurts, as sections of a document: which modules, what to do about them, and
// how the error travels. Meanings: quell/pipeline/sensitivity.hpp.

#include <string>
#include <vector>

#include "quell/pipeline/sensitivity.hpp"
#include "quell/report/document.hpp"
#include "report/pictures.hpp"

namespace quell::report {

/// `axis`: that of the weights' strip, so that places compare.
std::vector<Section> sensitivity_sections(const pipeline::Sensitivity& sensitivity,
                                          const PlaceAxis& axis);

/// How few modules cause how much of the damage, and what to keep high. A part of a sentence.
std::string damage_clause(const pipeline::Sensitivity& sensitivity);

}  // namespace quell::report
