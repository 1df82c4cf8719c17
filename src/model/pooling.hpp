// SPDX-License-Identifier: Apache-2.0
#pragma once

// How an encoder's folder says that hidden states become an embedding.

#include <cstdint>
#include <filesystem>

#include "quell/core/result.hpp"
#include "quell/model/config.hpp"

namespace quell::model {

/// Reads pooling.json of a model folder, else 1_Pooling/config.json; the mean where neither is
/// there. Errors: parse (no mode, or an embedding of another width than `hidden`), unsupported (a
/// mode that is not known, or several at once).
Result<Pooling> read_pooling(const std::filesystem::path& folder, std::uint32_t hidden);

}  // namespace quell::model
