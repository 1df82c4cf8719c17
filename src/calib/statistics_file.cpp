// SPDX-License-Identifier: Apache-2.0

// Statistics files: one safetensors file, per input a [5, IC] table of channel sums and, where
// collected, the [IC, IC] second moment, all F64. What belongs to the whole is JSON in the
// metadata.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "quell/calib/statistics.hpp"
#include "quell/io/json.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::calib {
namespace {

constexpr std::int64_t kSchema = 1;
constexpr std::string_view kKey = "quell.statistics";
constexpr std::size_t kTableRows = 4;  // sum, sum of squares, sum of magnitudes, largest magnitude

std::string site_name(const SiteKey& key) {
  return std::to_string(key.first) + "." + std::string(to_string(key.second));
}

Error io_error(const std::string& name, const char* what) {
  return Error{ErrorCode::resource, name + ": could not be " + what + ": " + std::strerror(errno),
               name};
}

// A file that is complete or absent: written beside its place, synced, renamed.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".XXXXXX") {
    file_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
  }
  ~AtomicFile() {
    if (file_ >= 0) {
      ::close(file_);
      ::unlink(temporary_.c_str());
    }
  }
  Status write(const void* data, std::size_t size) {
    if (file_ < 0) return io_error(path_, "created");
    const char* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t done = ::write(file_, at, size);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return io_error(path_, "written");
      at += done;
      size -= static_cast<std::size_t>(done);
    }
    return ok();
  }
  Status commit() {
    if (file_ < 0) return io_error(path_, "created");
    if (::fchmod(file_, 0644) != 0 || ::fsync(file_) != 0) return io_error(path_, "synced");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) return io_error(path_, "renamed");
    ::close(file_);
    file_ = -1;
    return ok();
  }

 private:
  std::string path_, temporary_;
  int file_ = -1;
};

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

Status write_statistics(const std::filesystem::path& path, const Statistics& statistics) {
  io::Json header = io::Json::object();
  header.set("schema", kSchema);
  header.set("model", statistics.model_fingerprint);
  header.set("corpus", statistics.corpus_fingerprint);
  header.set("parts", statistics.parts);
  io::Json merged = io::Json::array();
  for (const std::uint32_t part : statistics.merged_parts) merged.push(part);
  header.set("merged_parts", std::move(merged));
  header.set("tokens_fed", statistics.tokens_fed);
  io::Json tokens = io::Json::object();
  std::vector<io::TensorPlan> plans;
  for (const auto& [key, site] : statistics.sites) {
    tokens.set(site_name(key), site.tokens);
    const std::uint64_t channels = site.sum.size();
    plans.push_back({site_name(key) + ".channels", DType::f64, {kTableRows, channels}});
    if (site.moment.size() != 0) {
      plans.push_back({site_name(key) + ".moment", DType::f64, {channels, channels}});
    }
  }
  header.set("tokens", std::move(tokens));
  const io::MetadataEntry metadata[] = {{std::string(kKey), header.dump()}};
  QUELL_TRY(plan, io::plan_folder(plans, ~std::uint64_t{0}, metadata));

  AtomicFile file(path.string());
  QUELL_TRY(file.write(plan.shards[0].header.data(), plan.shards[0].header.size()));
  std::vector<const io::TensorPlan*> order;
  for (const io::TensorPlan& tensor : plan.tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (const io::TensorPlan* tensor : order) {
    const auto dot = tensor->name.rfind('.');
    const std::string name = tensor->name.substr(0, dot);
    const auto found =
        std::find_if(statistics.sites.begin(), statistics.sites.end(),
                     [&](const auto& entry) { return site_name(entry.first) == name; });
    const SiteStatistics& site = found->second;
    if (tensor->name.ends_with(".moment")) {
      QUELL_TRY(file.write(site.moment.data(), site.moment.size() * sizeof(double)));
      continue;
    }
    const std::vector<double> largest(site.max_abs.begin(), site.max_abs.end());
    for (const auto* values : {&site.sum, &site.sum_squares, &site.sum_abs, &largest}) {
      QUELL_TRY(file.write(values->data(), values->size() * sizeof(double)));
    }
  }
  return file.commit();
}

Result<Statistics> read_statistics(const std::filesystem::path& path) {
  const std::string name = path.string();
  QUELL_TRY(file, io::Checkpoint::open(path));
  const auto bad = [&](const std::string& what) {
    return Error{ErrorCode::parse, name + ": " + what, name};
  };
  std::string text;
  for (const io::MetadataEntry& entry : file.metadata()) {
    if (entry.key == kKey) text = entry.value;
  }
  if (text.empty())
    return bad("not a statistics file of quell (no " + std::string(kKey) + " in its metadata)");
  QUELL_TRY(header, io::parse_json(text, name));
  const io::JsonFields fields(header, name);
  QUELL_TRY(schema, fields.unsigned_integer("schema", 0, 1'000'000));
  if (schema != kSchema) {
    return Error{ErrorCode::unsupported,
                 name + ": schema " + std::to_string(schema) + ", this program reads " +
                     std::to_string(kSchema) + "; use the version of quell that made it",
                 name};
  }
  Statistics statistics;
  QUELL_TRY(model, fields.text("model"));
  QUELL_TRY(corpus, fields.text("corpus"));
  QUELL_TRY(parts, fields.unsigned_integer("parts", 1, 1'000'000));
  QUELL_TRY(tokens_fed, fields.unsigned_integer("tokens_fed", 0, std::uint64_t{1} << 53));
  statistics.model_fingerprint = model;
  statistics.corpus_fingerprint = corpus;
  statistics.parts = static_cast<std::uint32_t>(parts);
  statistics.tokens_fed = tokens_fed;
  if (const io::Json* merged = fields.find("merged_parts")) {
    for (const io::Json& item : merged->items()) {
      if (!item.is(io::Json::Kind::integer) || item.as_integer() < 1 ||
          item.as_integer() > static_cast<std::int64_t>(parts)) {
        return bad("merged_parts holds something other than part numbers");
      }
      statistics.merged_parts.push_back(static_cast<std::uint32_t>(item.as_integer()));
    }
  }
  if (!std::is_sorted(statistics.merged_parts.begin(), statistics.merged_parts.end()) ||
      statistics.merged_parts.empty()) {
    return bad("merged_parts is empty or not ascending");
  }
  statistics.part = statistics.merged_parts.front();
  const io::Json* tokens = fields.find("tokens");
  if (tokens == nullptr || !tokens->is(io::Json::Kind::object)) return bad("no token counts");

  for (const auto& [key, count] : tokens->members()) {
    const auto dot = key.find('.');
    SiteKey site_key{};
    bool known = false;
    for (const model::Site site : model::kSites) {
      if (dot == std::string::npos || key.substr(dot + 1) != to_string(site)) continue;
      site_key = {static_cast<std::uint32_t>(std::strtoul(key.c_str(), nullptr, 10)), site};
      known = site_name(site_key) == key;
    }
    if (!known) return bad("the input " + key + " is not known");
    SiteStatistics site;
    if (!count.is(io::Json::Kind::integer) || count.as_integer() < 0 ||
        static_cast<std::uint64_t>(count.as_integer()) != tokens_fed) {
      return bad(key + " counts other tokens than the " + std::to_string(tokens_fed) +
                 " that were fed");
    }
    site.tokens = tokens_fed;
    const io::TensorInfo* table = file.find(key + ".channels");
    if (table == nullptr || table->dtype != DType::f64 || table->shape.size() != 2 ||
        table->shape[0] != kTableRows || table->shape[1] == 0) {
      return bad(key + ".channels is missing or has the wrong shape");
    }
    const auto channels = static_cast<std::size_t>(table->shape[1]);
    QUELL_TRY(values, read_doubles(file, *table, name));
    const auto row = [&](std::size_t r) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(r * channels);
      return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(channels));
    };
    site.sum = row(0);
    site.sum_squares = row(1);
    site.sum_abs = row(2);
    for (const double value : row(3)) site.max_abs.push_back(static_cast<float>(value));
    if (const io::TensorInfo* moment = file.find(key + ".moment")) {
      if (moment->dtype != DType::f64 ||
          moment->shape != std::vector<std::uint64_t>{channels, channels}) {
        return bad(key + ".moment has the wrong shape");
      }
      QUELL_TRY(matrix, Matrix64::uninitialized(channels, channels));
      QUELL_TRY(file.read(*moment, std::as_writable_bytes(matrix.values())));
      for (std::size_t i = 0; i < channels; ++i) {
        for (std::size_t j = 0; j < channels; ++j) {
          if (!std::isfinite(matrix(i, j)) || (j > i && matrix(i, j) != 0)) {
            return bad(key + ".moment is damaged at [" + std::to_string(i) + ", " +
                       std::to_string(j) + "]");
          }
        }
        // The diagonal was summed from products in float32 and the table in double: they agree to
        // float32 rounding of a chunk of 2,048 terms, 2048 * 2^-24, however the file came to be.
        const double expected = site.sum_squares[i];
        if (std::abs(matrix(i, i) - expected) > 2e-4 * expected + 1e-30) {
          return bad(key + ".moment disagrees with the channel sums at channel " +
                     std::to_string(i));
        }
      }
      site.moment = std::move(matrix);
    }
    statistics.sites.emplace(site_key, std::move(site));
  }
  return statistics;
}

}  // namespace quell::calib
