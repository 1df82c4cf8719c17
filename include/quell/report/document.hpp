// SPDX-License-Identifier: Apache-2.0
#pragma once

// A report as data: facts, tables and pictures in sections. What it says is decided once, by
// whoever builds the document; how it looks is decided by the writers (write.hpp). Texts are plain
// and may come from files: writers escape them.

#include <cstddef>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace quell::report {

struct Paragraph {
  std::string text;
};

/// Short lines of "label: text".
struct Facts {
  std::vector<std::pair<std::string, std::string>> lines;
};

struct Column {
  std::string name;
  bool number = false;     // set flush right
  bool long_form = false;  // left out in a terminal
};
/// Every row has as many cells as there are columns. In a terminal only the first `short_rows` rows
/// are shown.
struct Table {
  std::string title;
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;
  std::size_t short_rows = static_cast<std::size_t>(-1);  // 0: the table is left out there
};

/// Magnitudes over rows x columns as a strip of coloured cells, on a logarithmic scale from `low`
/// (and below) to `high` (and above). NaN: nothing to show.
struct HeatStrip {
  std::string title, unit;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  // [rows][columns]
  double low = 1, high = 1000;
};

/// Lines over the same places from left to right.
struct LinePlot {
  struct Line {
    std::string name;
    std::vector<double> values;
  };
  std::string title, x_name, y_name;
  std::vector<std::string> places;
  std::vector<Line> lines;
  /// The scale of the values; on a logarithmic one, what is not above zero is left out.
  bool logarithmic = false;
  /// A level worth a dashed line with this name; none where the name is empty.
  double level = 0;
  std::string level_name;
};

/// How many values there are of each magnitude. Both axes are logarithmic: an outlier is a single
/// value among millions.
struct Histogram {
  struct Curve {
    std::string name;
    std::vector<double> counts;  // one for each bin
  };
  std::string title, unit;
  std::vector<double> edges;  // ascending, above 0: one more than there are bins
  std::vector<Curve> curves;  // the first is filled, others are outlined over it
};

/// The magnitude of every channel, as the channels stand and sorted, on a logarithmic scale. Wide
/// tensors are reduced: a point stands for `run` neighbours and tells the largest of them, so no
/// outlier is lost.
struct Profile {
  struct Curve {
    std::string name;
    std::vector<double> by_channel;  // [ceil(channels / run)]
    std::vector<double> sorted;      // the same size, the largest first
  };
  std::string title, unit;
  std::size_t channels = 0, run = 1;
  std::vector<Curve> curves;  // before and after a change, say
};

using Block = std::variant<Paragraph, Facts, Table, HeatStrip, LinePlot, Histogram, Profile>;

/// What there is to know about one thing of many. Pages open one by one; a terminal has none.
struct Page {
  std::string title, brief;
  std::vector<Block> blocks;
};

struct Section {
  std::string title;
  std::vector<Block> blocks;
  bool long_form = false;        // left out in a terminal
  std::vector<Page> pages = {};  // after the blocks
};

struct Document {
  std::string title;
  std::string verdict;  // one sentence
  Facts facts;          // of what the report is about
  Facts glance;         // the answers in a line each; with facts and verdict they fill one screen
  std::vector<Section> sections;
  Facts provenance;  // versions, options, time
};

}  // namespace quell::report
