// SPDX-License-Identifier: Apache-2.0
#include "model/pooling.hpp"

#include <array>
#include <string>
#include <string_view>
#include <system_error>

#include "quell/io/json.hpp"
#include "quell/io/printable.hpp"

namespace quell::model {
namespace {

struct Mode {
  std::string_view name;
  Pooling pooling;
};
// The sum over the root of the length has the direction of the mean, and embeddings have unit
// length.
constexpr std::array<Mode, 3> kModes = {{{"pooling_mode_mean_tokens", Pooling::mean},
                                         {"pooling_mode_mean_sqrt_len_tokens", Pooling::mean},
                                         {"pooling_mode_cls_token", Pooling::first}}};

}  // namespace

std::string_view to_string(Pooling pooling) noexcept {
  return pooling == Pooling::mean ? "mean" : "first";
}

Result<Pooling> read_pooling(const std::filesystem::path& folder, std::uint32_t hidden) {
  std::filesystem::path path = folder / "pooling.json";
  std::error_code failure;
  if (!std::filesystem::exists(path, failure)) path = folder / "1_Pooling" / "config.json";
  if (!std::filesystem::exists(path, failure)) return Pooling::mean;
  QUELL_TRY(json, io::read_json(path));
  const std::string file = path.string();
  if (!json.is(io::Json::Kind::object)) {
    return Error{ErrorCode::parse, file + ": expected an object with pooling modes", file, {}};
  }
  const io::JsonFields fields(json, file);
  QUELL_TRY(width, fields.optional_unsigned("word_embedding_dimension", 1, UINT32_MAX));
  if (width && *width != hidden) {
    return fields.wrong("word_embedding_dimension",
                        "the hidden size of the model, " + std::to_string(hidden));
  }
  std::string chosen;
  for (const auto& [name, value] : json.members()) {
    if (!name.starts_with("pooling_mode_")) continue;
    QUELL_TRY(set, fields.optional_boolean(name));
    if (!set.value_or(false)) continue;
    if (!chosen.empty()) {
      return Error{ErrorCode::unsupported,
                   file + ": both " + io::printable(chosen) + " and " + io::printable(name) +
                       " are set; one at a time is supported",
                   file,
                   {}};
    }
    chosen = name;
  }
  for (const Mode& mode : kModes) {
    if (mode.name == chosen) return mode.pooling;
  }
  const std::string found =
      chosen.empty() ? "no pooling mode is set" : "the pooling mode " + io::printable(chosen);
  return Error{chosen.empty() ? ErrorCode::parse : ErrorCode::unsupported,
               file + ": " + found +
                   "; supported are pooling_mode_mean_tokens, pooling_mode_mean_sqrt_len_tokens "
                   "and pooling_mode_cls_token",
               file,
               {}};
}

}  // namespace quell::model
