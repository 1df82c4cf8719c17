// SPDX-License-Identifier: Apache-2.0

// Statistics files: one safetensors file, per input a [5, IC] table of channel sums and the [IC,
// IC] second moment, all F64. What belongs to the whole is JSON in the metadata.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>

#include "quell/calib/statistics.hpp"
#include "quell/core/panic.hpp"
#include "quell/io/json.hpp"
#include "quell/io/new_file.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::calib {
namespace {

// Schema 1 had no peaks.
constexpr std::int64_t kSchema = 2;
constexpr std::string_view kKey = "quell.statistics";
// Sum, sum of squares, sum of magnitudes, largest magnitude, share in the peaks of tokens.
constexpr std::size_t kTableRows = 5;

std::uint64_t table_rows(const StatisticsInfo& info) {
  return info.peaks ? kTableRows : kTableRows - 1;
}

std::string site_name(const SiteKey& key) {
  return std::to_string(key.first) + "." + std::string(to_string(key.second));
}

std::string channels_name(const SiteKey& key) {
  return site_name(key) + ".channels";
}
std::string moment_name(const SiteKey& key) {
  return site_name(key) + ".moment";
}

std::optional<SiteKey> site_key(const std::string& name) {
  const auto dot = name.find('.');
  if (dot == std::string::npos) return std::nullopt;
  for (const model::Site site : model::kSites) {
    const SiteKey key{static_cast<std::uint32_t>(std::strtoul(name.c_str(), nullptr, 10)), site};
    if (site_name(key) == name) return key;
  }
  return std::nullopt;
}

Result<std::vector<double>> read_doubles(const io::Checkpoint& file, const io::TensorInfo& info,
                                         const std::string& path) {
  std::vector<double> values(static_cast<std::size_t>(info.bytes / sizeof(double)));
  QUELL_TRY(file.read(info, std::as_writable_bytes(std::span(values))));
  for (const double value : values) {
    if (!std::isfinite(value)) {
      return Error{
          ErrorCode::parse,
          path + ": " + info.name + " holds a value that is not finite; the file is damaged", path,
          info.name};
    }
  }
  return values;
}

}  // namespace

struct StatisticsWriter::State {
  State(const std::string& path, StatisticsInfo what) : file(path), info(std::move(what)) {}
  io::NewFile file;
  StatisticsInfo info;
  std::map<std::string, std::uint64_t> offsets;  // of each tensor in the file
  std::set<SiteKey> added;
};

StatisticsWriter::StatisticsWriter(std::unique_ptr<State> state) noexcept
    : state_(std::move(state)) {}
StatisticsWriter::StatisticsWriter(StatisticsWriter&&) noexcept = default;
StatisticsWriter::~StatisticsWriter() = default;

Result<StatisticsWriter> StatisticsWriter::create(const std::filesystem::path& path,
                                                  StatisticsInfo info) {
  io::Json header = io::Json::object();
  header.set("schema", info.peaks ? kSchema : 1);
  header.set("model", info.model_fingerprint);
  header.set("corpus", info.corpus_fingerprint);
  header.set("parts", info.parts);
  io::Json merged = io::Json::array();
  for (const std::uint32_t part : info.merged_parts) merged.push(part);
  header.set("merged_parts", std::move(merged));
  header.set("tokens_fed", info.tokens_fed);
  header.set("engine_precision", engine::to_string(info.precision));
  io::Json tokens = io::Json::object();
  std::vector<io::TensorPlan> plans;
  for (const auto& [key, channels] : info.channels) {
    tokens.set(site_name(key), info.tokens_fed);
    plans.push_back({channels_name(key), DType::f64, {table_rows(info), channels}});
    plans.push_back({moment_name(key), DType::f64, {channels, channels}});
  }
  header.set("tokens", std::move(tokens));
  const io::MetadataEntry metadata[] = {{std::string(kKey), header.dump()}};
  QUELL_TRY(plan, io::plan_folder(plans, ~std::uint64_t{0}, metadata));

  auto state = std::make_unique<State>(path.string(), std::move(info));
  for (const io::TensorPlan& tensor : plan.tensors) {
    state->offsets.emplace(tensor.name, tensor.offset);
  }
  const std::string& start = plan.shards[0].header;
  QUELL_TRY(state->file.write(0, std::as_bytes(std::span(start))));
  return StatisticsWriter(std::move(state));
}

Status StatisticsWriter::add(const SiteKey& key, const SiteStatistics& site) {
  const StatisticsInfo& info = state_->info;
  const auto expected = info.channels.find(key);
  if (expected == info.channels.end() || expected->second != site.sum.size() ||
      site.moment.rows() != site.sum.size() ||
      site.peaks.size() != (info.peaks ? site.sum.size() : 0) || site.tokens != info.tokens_fed) {
    return Error{ErrorCode::numeric, state_->file.path() + ": " + site_name(key) + " has " +
                                         std::to_string(site.sum.size()) + " channels and saw " +
                                         std::to_string(site.tokens) +
                                         " tokens, not what was announced"};
  }
  std::uint64_t offset = state_->offsets.at(channels_name(key));
  const std::vector<double> largest(site.max_abs.begin(), site.max_abs.end());
  for (const auto* values : {&site.sum, &site.sum_squares, &site.sum_abs, &largest, &site.peaks}) {
    QUELL_TRY(state_->file.write(offset, std::as_bytes(std::span(*values))));
    offset += values->size() * sizeof(double);
  }
  state_->added.insert(key);
  return state_->file.write(state_->offsets.at(moment_name(key)),
                            std::as_bytes(site.moment.values()));
}

Status StatisticsWriter::commit() {
  QUELL_ASSERT(state_->added.size() == state_->info.channels.size());
  return state_->file.commit();
}

Result<StatisticsFile> StatisticsFile::open(const std::filesystem::path& path) {
  QUELL_TRY(file, io::Checkpoint::open(path));
  StatisticsFile statistics(path.string(), std::move(file));
  QUELL_TRY(statistics.read_header());
  return statistics;
}

Status StatisticsFile::read_header() {
  const auto bad = [&](const std::string& what) {
    return Error{ErrorCode::parse, path_ + ": " + what, path_};
  };
  std::string text;
  for (const io::MetadataEntry& entry : file_.metadata()) {
    if (entry.key == kKey) text = entry.value;
  }
  if (text.empty()) {
    return bad("not a statistics file of quell (no " + std::string(kKey) + " in its metadata)");
  }
  QUELL_TRY(header, io::parse_json(text, path_));
  const io::JsonFields fields(header, path_);
  QUELL_TRY(schema, fields.unsigned_integer("schema", 0, 1'000'000));
  if (schema != 1 && schema != kSchema) {
    return Error{ErrorCode::unsupported,
                 path_ + ": schema " + std::to_string(schema) + ", this program reads 1 and " +
                     std::to_string(kSchema) + "; use the version of quell that made it",
                 path_};
  }
  info_.peaks = schema != 1;
  QUELL_TRY(model, fields.text("model"));
  QUELL_TRY(corpus, fields.text("corpus"));
  QUELL_TRY(parts, fields.unsigned_integer("parts", 1, 1'000'000));
  QUELL_TRY(tokens_fed, fields.unsigned_integer("tokens_fed", 0, std::uint64_t{1} << 53));
  info_.model_fingerprint = model;
  info_.corpus_fingerprint = corpus;
  info_.parts = static_cast<std::uint32_t>(parts);
  info_.tokens_fed = tokens_fed;
  // Files of before it was recorded were made in f32.
  if (fields.find("engine_precision") != nullptr) {
    QUELL_TRY(word, fields.text("engine_precision"));
    const auto precision = engine::parse_precision(word);
    if (!precision) return bad("the engine precision \"" + word + "\" is not one of f32, bf16");
    info_.precision = *precision;
  }
  if (const io::Json* merged = fields.find("merged_parts")) {
    for (const io::Json& item : merged->items()) {
      if (!item.is(io::Json::Kind::integer) || item.as_integer() < 1 ||
          item.as_integer() > static_cast<std::int64_t>(parts)) {
        return bad("merged_parts holds something other than part numbers");
      }
      info_.merged_parts.push_back(static_cast<std::uint32_t>(item.as_integer()));
    }
  }
  const std::vector<std::uint32_t>& merged_parts = info_.merged_parts;
  if (merged_parts.empty() || std::adjacent_find(merged_parts.begin(), merged_parts.end(),
                                                 std::greater_equal<>()) != merged_parts.end()) {
    return bad("merged_parts is empty or not ascending");
  }
  const io::Json* tokens = fields.find("tokens");
  if (tokens == nullptr || !tokens->is(io::Json::Kind::object)) return bad("no token counts");
  for (const auto& [name, count] : tokens->members()) {
    const auto key = site_key(name);
    if (!key) return bad("the input " + name + " is not known");
    if (!count.is(io::Json::Kind::integer) || count.as_integer() < 0 ||
        static_cast<std::uint64_t>(count.as_integer()) != tokens_fed) {
      return bad(name + " counts other tokens than the " + std::to_string(tokens_fed) +
                 " that were fed");
    }
    const io::TensorInfo* table = file_.find(channels_name(*key));
    if (table == nullptr || table->dtype != DType::f64 || table->shape.size() != 2 ||
        table->shape[0] != table_rows(info_) || table->shape[1] == 0) {
      return bad(channels_name(*key) + " is missing or has the wrong shape");
    }
    const std::uint64_t channels = table->shape[1];
    const io::TensorInfo* moment = file_.find(moment_name(*key));
    if (moment == nullptr || moment->dtype != DType::f64 ||
        moment->shape != std::vector<std::uint64_t>{channels, channels}) {
      return bad(moment_name(*key) + " is missing or has the wrong shape");
    }
    info_.channels.emplace(*key, channels);
  }
  return ok();
}

Result<SiteStatistics> StatisticsFile::read(const SiteKey& key) const {
  const auto bad = [&](const std::string& what) {
    return Error{ErrorCode::parse, path_ + ": " + what, path_};
  };
  const auto found = info_.channels.find(key);
  if (found == info_.channels.end()) return bad("no input " + site_name(key));
  const auto channels = static_cast<std::size_t>(found->second);
  SiteStatistics site;
  site.tokens = info_.tokens_fed;
  QUELL_TRY(values, read_doubles(file_, *file_.find(channels_name(key)), path_));
  const auto row = [&](std::size_t r) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(r * channels);
    return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(channels));
  };
  site.sum = row(0);
  site.sum_squares = row(1);
  site.sum_abs = row(2);
  for (const double value : row(3)) site.max_abs.push_back(static_cast<float>(value));
  if (info_.peaks) site.peaks = row(4);
  QUELL_TRY(matrix, Matrix64::uninitialized(channels, channels));
  QUELL_TRY(file_.read(*file_.find(moment_name(key)), std::as_writable_bytes(matrix.values())));
  for (std::size_t i = 0; i < channels; ++i) {
    for (std::size_t j = 0; j < channels; ++j) {
      if (!std::isfinite(matrix(i, j)) || (j > i && matrix(i, j) != 0)) {
        return bad(moment_name(key) + " is damaged at [" + std::to_string(i) + ", " +
                   std::to_string(j) + "]");
      }
    }
    // The diagonal was summed from products in float32 and the table in double: they agree to
    // float32 rounding of a chunk of 2,048 terms, 2048 * 2^-24, however the file came to be.
    const double expected = site.sum_squares[i];
    if (std::abs(matrix(i, i) - expected) > 2e-4 * expected + 1e-30) {
      return bad(moment_name(key) + " disagrees with the channel sums at channel " +
                 std::to_string(i));
    }
  }
  site.moment = std::move(matrix);
  return site;
}

Status StatisticsFile::check() const {
  for (const auto& [key, channels] : info_.channels) QUELL_TRY(read(key));
  return ok();
}

}  // namespace quell::calib
