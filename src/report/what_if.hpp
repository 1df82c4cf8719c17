// SPDX-License-Identifier: Apache-2.0
#pragma once

// The answer to a what-if question as a section of the outlier report.

#include "quell/pipeline/what_if.hpp"
#include "quell/report/document.hpp"

namespace quell::report {

Section what_if_section(const pipeline::WhatIf& what_if);

}  // namespace quell::report
