// SPDX-License-Identifier: Apache-2.0

// Two result files of one benchmark program (--benchmark_out), side by side: what became slower.
//
//   compare_results OLD.json NEW.json
//
// Shares of the limits measured beside each case are compared where both files have them, since
// they say the same on a fast minute and a slow one; else times. Exit status 1 if anything is more
// than a fifth slower, 2 if a file cannot be read.

#include <cstdio>
#include <map>
#include <optional>
#include <string>

#include "quell/io/json.hpp"

namespace quell::bench {
namespace {

constexpr double kSlower = 0.8;

struct Figure {
  std::map<std::string, double> shares;  // counters that end in _%
  double seconds = 0;
};

double seconds_of(const io::Json& run) {
  const io::Json* time = run.find("real_time");
  const io::Json* unit = run.find("time_unit");
  if (time == nullptr || unit == nullptr) return 0;
  const std::string& name = unit->as_string();
  return time->as_number() * (name == "ns"   ? 1e-9
                              : name == "us" ? 1e-6
                              : name == "ms" ? 1e-3
                                             : 1.0);
}

std::optional<std::map<std::string, Figure>> read(const char* path) {
  std::string text;
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) {
    std::fprintf(stderr, "%s cannot be opened\n", path);
    return std::nullopt;
  }
  char buffer[65536];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, n);
  std::fclose(file);
  const auto json = io::parse_json(text, path);
  const io::Json* runs = json ? json->find("benchmarks") : nullptr;
  if (runs == nullptr) {
    std::fprintf(stderr, "%s\n",
                 json ? (std::string(path) + " has no list of benchmarks").c_str()
                      : json.error().message.c_str());
    return std::nullopt;
  }
  std::map<std::string, Figure> figures;
  for (const io::Json& run : runs->items()) {
    const io::Json* name = run.find("name");
    if (name == nullptr || run.find("error_occurred") != nullptr) continue;
    // Of repetitions the median alone counts.
    const io::Json* aggregate = run.find("aggregate_name");
    if (aggregate != nullptr && aggregate->as_string() != "median") continue;
    Figure& figure = figures[name->as_string()];
    figure.seconds = seconds_of(run);
    for (const auto& [key, value] : run.members()) {
      if (key == "share_%" || key == "read_%") figure.shares[key] = value.as_number();
    }
  }
  return figures;
}

int compare(const char* old_path, const char* new_path) {
  const auto before = read(old_path), after = read(new_path);
  if (!before || !after) return 2;
  int slower = 0, compared = 0;
  const auto line = [&](const std::string& name, const char* what, double was, double is,
                        double ratio) {
    ++compared;
    const bool bad = ratio < kSlower;
    slower += bad ? 1 : 0;
    std::printf("%-64s %-8s %10.4g %10.4g %6.2f%s\n", name.c_str(), what, was, is, ratio,
                bad ? "  SLOWER" : "");
  };
  for (const auto& [name, was] : *before) {
    const auto found = after->find(name);
    if (found == after->end()) continue;
    const Figure& is = found->second;
    bool by_share = false;
    for (const auto& [key, share] : was.shares) {
      const auto other = is.shares.find(key);
      if (other == is.shares.end() || share <= 0) continue;
      by_share = true;
      line(name, key.c_str(), share, other->second, other->second / share);
    }
    if (!by_share && was.seconds > 0 && is.seconds > 0) {
      line(name, "seconds", was.seconds, is.seconds, was.seconds / is.seconds);
    }
  }
  std::printf("%d figures compared, %d more than a fifth slower\n", compared, slower);
  return slower > 0 ? 1 : 0;
}

}  // namespace
}  // namespace quell::bench

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: compare_results OLD.json NEW.json\n");
    return 2;
  }
  return quell::bench::compare(argv[1], argv[2]);
}
