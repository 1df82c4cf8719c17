// SPDX-License-Identifier: Apache-2.0

// `quell report`: results as a page, a text or Markdown; two of them side by side.

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>

#include "cli/command.hpp"
#include "quell/io/new_file.hpp"
#include "quell/io/output.hpp"
#include "quell/report/outlier_results.hpp"
#include "quell/report/results.hpp"
#include "quell/report/write.hpp"

namespace quell::cli {
namespace {

class Report final : public Command {
 public:
  std::string_view name() const override { return "report"; }
  std::string_view help() const override { return "results as a page or text; two compare"; }
  void add_options(CLI::App& app) override {
    app.add_option("PATH", paths_,
                   "folders written by quantize or run, or JSON printed by outliers; one or two")
        ->required()
        ->expected(1, 2);
    app.add_option("-o,--output", output_, "file to write (default: the terminal)");
    app.add_option("--format", format_,
                   "text, html, md or json (default: by the name of the file)");
  }

  Status run() override {
    QUELL_TRY(format, chosen_format());
    std::vector<std::string> files;
    std::vector<io::Json> reports;
    for (const std::string& path : paths_) {
      std::filesystem::path file = path;
      std::error_code failure;
      if (std::filesystem::is_directory(file, failure)) file /= "quell-report.json";
      QUELL_TRY(json, io::read_json(file));
      files.push_back(file.string());
      reports.push_back(std::move(json));
    }
    if (limits.json) {
      io::Json json = begin_json("report");
      io::Json list = io::Json::array();
      for (io::Json& report : reports) list.push(std::move(report));
      json.set("reports", std::move(list));
      print_json(std::move(json));
      return ok();
    }
    auto document = document_of(files, reports);
    if (!document) return std::move(document).error();
    const std::string text = format == "html"   ? report::write_html(*document)
                             : format == "md"   ? report::write_markdown(*document)
                             : format == "json" ? report::write_json(*document).dump(1) + "\n"
                                                : report::write_text(*document);
    if (output_.empty()) {
      fmt::print("{}", text);
      return ok();
    }
    QUELL_TRY(io::write_new_file(output_, text));
    fmt::print(stderr, "{}: written\n", output_);
    return ok();
  }

 private:
  Result<report::Document> document_of(const std::vector<std::string>& files,
                                       const std::vector<io::Json>& reports) const {
    // What `run` printed holds both; its result says more.
    const auto is_result = [](const io::Json& json) { return json.find("quantize") != nullptr; };
    const auto is_outliers = [&](const io::Json& json) {
      return !is_result(json) && report::holds_outliers(json);
    };
    if (reports.size() == 1) {
      if (!is_outliers(reports[0])) {
        return report::result_document(paths_[0], files[0], reports[0]);
      }
      QUELL_TRY(found, report::read_outliers(files[0], reports[0]));
      return report::outlier_result_document(paths_[0], found);
    }
    const bool outliers = std::all_of(reports.begin(), reports.end(), report::holds_outliers);
    const bool results = std::all_of(reports.begin(), reports.end(), is_result);
    if (!outliers || results) {
      for (std::size_t i = 0; i < 2; ++i) {
        if (!is_outliers(reports[i]) || !is_result(reports[1 - i])) continue;
        return Error{ErrorCode::usage, files[i] + " holds outliers and " + files[1 - i] +
                                           " a result of quantize; two of a kind compare"};
      }
      return report::comparison_document(paths_[0], files[0], reports[0], paths_[1], files[1],
                                         reports[1]);
    }
    QUELL_TRY(a, report::read_outliers(files[0], reports[0]));
    QUELL_TRY(b, report::read_outliers(files[1], reports[1]));
    return report::outlier_comparison_document(paths_[0], a, paths_[1], b);
  }

  Result<std::string> chosen_format() const {
    if (format_ == "text" || format_ == "html" || format_ == "md" || format_ == "json") {
      return format_;
    }
    if (!format_.empty()) {
      return Error{ErrorCode::usage, "--format " + format_ +
                                         " is not known; the formats are text, html, md and json"};
    }
    const std::string extension = std::filesystem::path(output_).extension().string();
    if (extension == ".html" || extension == ".htm") return std::string("html");
    if (extension == ".md") return std::string("md");
    if (extension == ".json") return std::string("json");
    return std::string("text");
  }

  std::vector<std::string> paths_;
  std::string output_, format_;
};

}  // namespace

std::unique_ptr<Command> make_report() {
  return std::make_unique<Report>();
}

}  // namespace quell::cli
