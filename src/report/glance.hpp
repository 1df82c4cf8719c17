// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "quell/report/document.hpp"
#include "quell/report/outliers.hpp"

namespace quell::report {

/// What an outlier report says on one screen: for each question a line or two, the worst case by
/// name and the others as a number.
Facts glance_of(const OutlierInputs& inputs);

}  // namespace quell::report
