// SPDX-License-Identifier: Apache-2.0
#pragma once

// The sweep of gptq over a panel of rows. With H = R R^T (R upper) the loss of an error row e is
//
//     e H e^T = sum_k R_kk^2 (e_k + sum_{j<k} e_j R_jk / R_kk)^2
//
// so channels are taken in turn, each at the target
//
//     t_k = w_k + sum_{j<k} (w_j - q_j) R_jk / R_kk,    q_k = nearest code to t_k,
//
// and channel k adds R_kk^2 (t_k - q_k)^2 to the loss. The position of a channel is its turn.
//
// Rows are independent given R, so a panel runs on one thread from the first channel to the last.
// One array x [P, n] carries the panel: x[., k] is the sum of e_j R_jk until k is reached and the
// error e_k from then on. Ranges of positions are halved recursively:
//
//     sweep(lo, hi):  sweep(lo, mid);  x[mid, hi) += x[lo, mid) R[lo:mid, mid:hi];  sweep(mid, hi)
//
// which makes nearly all work large products. Ranges of `block` positions are done strip by strip,
// sixteen rows at a time in the lanes of registers, with the same halving. Halves are cut at the
// boundaries of groups, so whenever a range starts a group, every target of that group has all
// feedback from before it, and its scales can be fitted.

#include <cstdint>
#include <span>
#include <vector>

#include "linalg/linalg.hpp"
#include "quell/core/tensor.hpp"
#include "quell/grid/groups.hpp"
#include "quell/grid/scale.hpp"

namespace quell::quant {

/// What all panels of a layer share.
struct Sweep {
  MatrixView<const float> weight;  // [OC, IC]
  GridSpec grid;
  GroupLayout layout;
  /// Fit scales when a group is reached (absmax, minmax or search of the targets); else use those
  /// in `parameters`.
  bool fit = false;
  ScaleMethod scale = ScaleMethod::absmax;
  std::span<const std::uint32_t> order;  // [n] channel at each position
  std::span<const std::uint32_t> dead;   // channels without a position: plain rounding
  MatrixView<const float> factor;        // [n, n], R
  std::span<const float> added;          // [n], what the diagonal of H got before factoring
  std::size_t block = 256;
  /// Of the whole weight. Fitted scales replace what is here; a group whose fitted scale does not
  /// fit the scale type keeps it.
  GroupParameters* parameters = nullptr;
};

/// Buffers of one thread, kept from panel to panel.
class PanelSweep {
 public:
  /// `rows`: the most rows of a panel.
  static Result<PanelSweep> create(const Sweep& sweep, std::size_t rows, Executor& executor);

  /// Quantizes rows [first, first + rows): codes [rows, IC], one per byte; scales of these rows.
  /// damped[r] = loss under the factored matrix, ridge[r] = the share of what was added to the
  /// diagonal; their difference is the loss under H. With groups down columns `first` is a multiple
  /// of the group.
  Status run(const Sweep& sweep, std::size_t first, std::size_t rows,
             MatrixView<std::uint8_t> codes, std::span<double> damped, std::span<double> ridge,
             linalg::Context& context);

 private:
  struct Panel;

  Matrix x_;                           // [rows, n]
  Matrix targets_;                     // [strips][block][16]: targets, then errors, of one range
  Matrix weights_;                     // [strips][block][16]: of the same
  std::vector<std::uint8_t> codes_;    // [strips][block][16]: of the same
  Matrix coefficients_;                // [block][block]: -R[p_j, p_i] / R[p_i, p_i], j before i
  bool ascending_ = false;             // channels ascend with positions
  std::vector<float> inverse_;         // [n]: 1 / R[p, p]
  std::vector<std::uint32_t> starts_;  // positions at which a group begins, ascending
  std::vector<float> tiles_;           // per slot: one group of one strip, and its weights
  std::size_t tile_size_ = 0;
};

}  // namespace quell::quant
