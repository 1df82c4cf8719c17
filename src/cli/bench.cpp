// SPDX-License-Identifier: Apache-2.0

// `quell bench`: how fast this machine multiplies, beside what it could do at most.
//
// Weights are quantized random numbers: no instruction of a product depends on a value. One token
// reads weights that lie in no cache, many find them there. In every round the bounds are measured
// beside the product, so that a slow minute of a shared machine hits both; medians are shown.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>
#include <tuple>

#include "cli/command.hpp"
#include "quell/core/half.hpp"
#include "quell/grid/scale.hpp"
#include "quell/kernels/explain.hpp"
#include "quell/kernels/gemm.hpp"
#include "quell/kernels/limits.hpp"

namespace quell::cli {
namespace {

using kernels::Activations;
using Clock = std::chrono::steady_clock;

// Several times the last cache of today's servers (32 to 105 MB a socket).
constexpr std::uint64_t kColdBytes = std::uint64_t{300} << 20;
constexpr std::uint64_t kLeastMemory = 1'000'000;
constexpr double kSecondsPerCase = 0.25;
constexpr std::size_t kLeastRounds = 5;
constexpr std::size_t kDecodeTokens = 8;  // up to here weights are cold

struct Case {
  std::size_t n, k, m;
  std::string word;              // of the grid, or f32, f16, bf16
  std::optional<GridSpec> grid;  // if it is one
  Activations activations;

  DType type() const {
    return word == "bf16" ? DType::bf16 : word == "f16" ? DType::f16 : DType::f32;
  }
};

struct Measured {
  std::string kernel;
  double seconds = 0, gbs = 0, gops = 0;
  std::string_view limit;  // empty: none was measured
  double share = 0;        // of the limit: its seconds over ours
};

/// 0 of nothing.
double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Result<Matrix> random_matrix(std::size_t rows, std::size_t cols) {
  QUELL_TRY(matrix, Matrix::uninitialized(rows, cols));
  std::uint64_t state = rows + cols;
  for (float& value : matrix.values()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<std::int64_t>(state) >> 40) * 0x1p-23f;
  }
  return matrix;
}

/// Some outputs against sums in double of the weight that is multiplied. A token of int8 is off by
/// half a step for each input channel at most; groups down the input channels scale it first, here
/// by factors that differ less than 16 times.
bool agrees(MatrixView<const float> weight, MatrixView<const float> x, MatrixView<const float> y,
            const Case& c) {
  for (std::size_t i = 0; i < 24; ++i) {
    const std::size_t o = i * 7919 % weight.rows(), t = i * 104729 % x.rows();
    double exact = 0, magnitudes = 0, most = 0, weights = 0;
    for (std::size_t k = 0; k < weight.cols(); ++k) {
      const double w = static_cast<double>(weight(o, k)), v = static_cast<double>(x(t, k));
      exact += w * v;
      magnitudes += std::fabs(w * v);
      weights += std::fabs(w);
      most = std::max(most, std::fabs(v));
    }
    const bool rounded = c.grid && c.activations == Activations::int8;
    const double step = rounded ? most / 127 * (c.grid->per == Channel::input ? 16 : 1) : 0;
    const double bound =
        0.5 * step * weights + 2.0 * static_cast<double>(weight.cols()) * 0x1p-24 * magnitudes;
    if (!(std::fabs(static_cast<double>(y(t, o)) - exact) <= bound)) return false;
  }
  return true;
}

/// A weight, and as many copies of its packed form as no cache holds.
struct Weight {
  Matrix values;
  std::vector<kernels::PackedWeights> copies;
};

Result<Weight> make_weight(const Case& c, std::uint64_t cold_bytes, Executor& executor) {
  Weight weight;
  QUELL_TRY(values, random_matrix(c.n, c.k));
  weight.values = std::move(values);
  std::optional<QuantizedTensor> tensor;
  if (c.grid) {
    QUELL_TRY(scales,
              choose_scales(weight.values.view(), *c.grid, ScaleMethod::absmax, {}, executor));
    QUELL_TRY(codes, quantize_to_grid(weight.values.view(), *c.grid, std::move(scales), executor));
    for (std::size_t row = 0; row < c.n; ++row) codes.dequantize_row(row, weight.values.row(row));
    tensor = std::move(codes);
  } else if (c.type() != DType::f32) {
    for (float& value : weight.values.values()) {
      value = c.type() == DType::f16 ? f16_to_float(float_to_f16(value))
                                     : bf16_to_float(float_to_bf16(value));
    }
  }
  do {
    Result<kernels::PackedWeights> packed =
        tensor ? kernels::pack(*tensor, c.activations, executor)
               : kernels::pack(weight.values.view(), c.type(), executor);
    if (!packed) return std::move(packed).error();
    weight.copies.push_back(*std::move(packed));
  } while (weight.copies.size() * weight.copies[0].bytes() < cold_bytes);
  return weight;
}

class Bench final : public Command {
 public:
  std::string_view name() const override { return "bench"; }
  std::string_view help() const override {
    return "how fast this machine multiplies, and what it could do at most";
  }
  void add_options(CLI::App& app) override {
    app.add_option("--model", model_, "the shapes and grids of this model's linears");
  }

  Status run() override {
    const std::unique_ptr<Executor> executor = make_openmp_executor(limits.threads);
    kernels::Context context(*executor);
    QUELL_TRY(cases, cases_to_measure());
    if (limits.max_memory != 0 && limits.max_memory < kLeastMemory) {
      return Error{ErrorCode::usage, "--max-memory is " + std::to_string(limits.max_memory) +
                                         " bytes; measuring takes at least " +
                                         std::to_string(kLeastMemory)};
    }
    // A third for the copies, a third for what the bound of memory is measured on, a third for the
    // weight as it was; a weight that is larger than that is left out.
    const std::uint64_t cold =
        limits.max_memory == 0 ? kColdBytes : std::min(kColdBytes, limits.max_memory / 3);
    QUELL_TRY(other, AlignedBytes::allocate(cold));
    std::fill(other.data(), other.data() + other.size(), std::byte{1});

    io::Json results = io::Json::array();
    if (!limits.json) {
      fmt::print("{:<12} {:<11} {:>4} {:>6} {:>6}  {:<18} {:>9} {:>7} {:>7}  {}\n", "family", "isa",
                 "M", "N", "K", "grid", "ms", "GB/s", "GOP/s", "of the limit");
    }
    for (std::size_t i = 0; i < cases.size();) {
      const Case& first = cases[i];
      const std::uint64_t floats = std::uint64_t{first.n} * first.k * sizeof(float);
      Result<Weight> weight =
          limits.max_memory != 0 && floats > limits.max_memory / 3
              ? Error{ErrorCode::unsupported, "a weight of " + std::to_string(first.n) + " x " +
                                                  std::to_string(first.k) + " takes " +
                                                  std::to_string(floats) +
                                                  " bytes as floats, and --max-memory leaves " +
                                                  std::to_string(limits.max_memory / 3)}
              : make_weight(first, cold, *executor);
      if (!weight && weight.error().code != ErrorCode::unsupported) {
        return std::move(weight).error();
      }
      if (!weight) fmt::print(stderr, "note: not measured: {}\n", weight.error().message);
      // One weight for all numbers of tokens.
      for (; i < cases.size() && same_weight(cases[i], first); ++i) {
        if (!weight) continue;
        QUELL_TRY(measured, measure(cases[i], *weight, other, context));
        show(cases[i], measured, executor->width(), results);
      }
    }
    if (read_.empty()) {
      return Error{ErrorCode::unsupported, "nothing was measured; the notes say why"};
    }
    const double read = median(read_), floats = median(floats_), bytes = median(bytes_);
    if (limits.json) {
      io::Json json = begin_json("bench");
      io::Json list = io::Json::array();
      const auto add = [&](std::string_view name, double value) {
        io::Json item = io::Json::object();
        item.set("name", name);
        item.set("value", value > 0 ? io::Json(value) : io::Json());
        list.push(std::move(item));
      };
      add("dram_read_gbs", read);
      add("f32_gflops", floats);
      add("int8_gops", bytes);
      json.set("limits", std::move(list));
      json.set("results", std::move(results));
      print_json(std::move(json));
      return ok();
    }
    fmt::print("\nLimits of this machine, measured between the products on {}: reading {:.1f} GB/s",
               executor->width() == 1 ? "1 thread" : fmt::format("{} threads", executor->width()),
               read);
    if (floats > 0) fmt::print(", f32 {:.0f} GFLOP/s", floats);
    if (bytes > 0) fmt::print(", int8 {:.0f} GOP/s", bytes);
    fmt::print(".\nM tokens times a weight of N output and K input channels.");
    if (cold == kColdBytes) {
      fmt::print(" Up to M = {} it lies in no cache.\n", kDecodeTokens);
    } else {
      fmt::print(" Weights take {:.1f} MB together, which a cache may hold.\n",
                 static_cast<double>(cold) * 1e-6);
    }
    return ok();
  }

 private:
  static bool same_weight(const Case& a, const Case& b) {
    return a.n == b.n && a.k == b.k && a.word == b.word && a.activations == b.activations;
  }

  Result<std::vector<Case>> cases_to_measure() const {
    using Shape = std::tuple<std::size_t, std::size_t, std::string>;
    std::vector<Shape> shapes;
    if (model_.empty()) {
      for (const char* grid : {"int4:sym:oc:g128", "int8:sym:oc:row", "bf16", "f32"}) {
        shapes.emplace_back(4096, 4096, grid);
        shapes.emplace_back(14336, 4096, grid);
      }
    } else {
      QUELL_TRY(model, model::Model::load(model_, {limits.allow_links_outside}));
      std::set<Shape> seen;
      for (const model::Block& block : model.blocks()) {
        for (const model::Site site : model::kSites) {
          for (const model::Linear* linear : model::linears_at(block, site)) {
            std::string grid = "f32";
            if (const auto* tensor = model.checkpoint().find(linear->name + ".weight")) {
              if (tensor->dtype == DType::bf16) grid = "bf16";
              if (tensor->dtype == DType::f16) grid = "f16";
            }
            if (const io::ModulePlan* plan = model.quantized().find(linear->name)) {
              // Columns kept beside the codes are left out: a few of thousands.
              grid = quell::to_string(plan->grid);
            }
            const Shape shape = {linear->rows, linear->cols, grid};
            if (seen.insert(shape).second) shapes.push_back(shape);
          }
        }
      }
    }
    std::vector<Case> cases;
    for (const auto& [n, k, word] : shapes) {
      std::optional<GridSpec> grid;
      if (word != "f32" && word != "f16" && word != "bf16") {
        QUELL_TRY(parsed, parse_grid(word));
        grid = parsed;
      }
      for (const Activations activations : {Activations::int8, Activations::f32}) {
        if (!grid && activations == Activations::int8) continue;
        for (const std::size_t m : {1, 8, 128, 512})
          cases.push_back({n, k, m, word, grid, activations});
      }
    }
    return cases;
  }

  Result<Measured> measure(const Case& c, const Weight& weight, const AlignedBytes& other,
                           kernels::Context& context) {
    QUELL_TRY(x, random_matrix(c.m, c.k));
    QUELL_TRY(y, Matrix::uninitialized(c.m, c.n));
    QUELL_TRY(kernels::gemm(x.view(), weight.copies[0], y.view(), context));
    const std::string kernel = weight.copies[0].kernel();
    if (!agrees(weight.values.view(), x.view(), y.view(), c)) {
      return Error{ErrorCode::verification,
                   kernel + " gives a wrong product of " + std::to_string(c.m) + " tokens and " +
                       c.word + " weights " + std::to_string(c.n) + " x " + std::to_string(c.k) +
                       "; please report this with `quell kernels`"};
    }
    const bool cold = c.m <= kDecodeTokens;
    const std::size_t calls = cold ? std::max<std::size_t>(1, weight.copies.size() / 2) : 1;
    const auto operations = 2.0 * static_cast<double>(c.m * c.n) * static_cast<double>(c.k);
    const auto weight_bytes = static_cast<double>(weight.copies[0].bytes());
    const bool whole = c.grid && c.activations == Activations::int8;
    // The bounds are those of vectors; that of AMX tiles is not measured.
    const bool on_tiles = kernel.ends_with("/" + std::string(to_string(kernels::Isa::amx)));
    Measured measured;
    measured.kernel = kernel;
    std::vector<double> seconds, shares;
    bool memory = false;
    const auto begin = Clock::now();
    std::size_t next = 0;
    while (seconds.size() < kLeastRounds ||
           std::chrono::duration<double>(Clock::now() - begin).count() < kSecondsPerCase) {
      read_.push_back(kernels::read_limit(context.executor(), other.data(), other.size() / 2));
      floats_.push_back(kernels::fma_limit(context.executor()));
      bytes_.push_back(kernels::int8_limit(context.executor()));
      const auto start = Clock::now();
      for (std::size_t i = 0; i < calls; ++i) {
        QUELL_TRY(kernels::gemm(x.view(), weight.copies[next++ % weight.copies.size()], y.view(),
                                context));
      }
      const double taken =
          std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
      const double arithmetic = on_tiles ? 0 : whole ? bytes_.back() : floats_.back();
      const double of_products = arithmetic > 0 ? operations * 1e-9 / arithmetic : 0;
      const double of_memory = cold ? weight_bytes * 1e-9 / read_.back() : 0;
      memory = of_memory >= of_products;
      seconds.push_back(taken);
      shares.push_back(std::max(of_memory, of_products) / taken);
    }
    measured.seconds = median(seconds);
    measured.gbs = weight_bytes / measured.seconds * 1e-9;
    measured.gops = operations / measured.seconds * 1e-9;
    measured.share = median(shares);
    if (measured.share > 0) {
      measured.limit = memory ? "dram_read_gbs" : whole ? "int8_gops" : "f32_gflops";
    }
    return measured;
  }

  void show(const Case& c, const Measured& measured, unsigned threads, io::Json& results) const {
    const std::size_t slash = measured.kernel.find('/');
    const std::string family = measured.kernel.substr(0, slash);
    const std::string isa = measured.kernel.substr(slash + 1);
    if (!limits.json) {
      const std::string_view of = measured.limit == "dram_read_gbs" ? "reading"
                                  : measured.limit == "int8_gops"   ? "int8 products"
                                                                    : "f32 products";
      fmt::print(
          "{:<12} {:<11} {:>4} {:>6} {:>6}  {:<18} {:>9.3f} {:>7.1f} {:>7.0f}  {}\n", family, isa,
          c.m, c.n, c.k, c.word, 1e3 * measured.seconds, measured.gbs, measured.gops,
          measured.limit.empty() ? "-" : fmt::format("{:.0f} % of {}", 100 * measured.share, of));
      std::fflush(stdout);
      return;
    }
    io::Json item = io::Json::object();
    item.set("family", family);
    item.set("isa", isa);
    item.set("m", static_cast<std::uint64_t>(c.m));
    item.set("n", static_cast<std::uint64_t>(c.n));
    item.set("k", static_cast<std::uint64_t>(c.k));
    item.set("grid", c.word);
    item.set("threads", static_cast<std::uint64_t>(threads));
    item.set("seconds", measured.seconds);
    item.set("gbs", measured.gbs);
    item.set("gops", measured.gops);
    const bool bound = !measured.limit.empty();
    item.set("limit", bound ? io::Json(measured.limit) : io::Json());
    item.set("share_of_limit", bound ? io::Json(measured.share) : io::Json());
    results.push(std::move(item));
  }

  std::string model_;
  std::vector<double> read_, floats_, bytes_;
};

}  // namespace

std::unique_ptr<Command> make_bench() {
  return std::make_unique<Bench>();
}

}  // namespace quell::cli
