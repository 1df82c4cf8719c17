// SPDX-License-Identifier: Apache-2.0
#pragma once

// Kurtosis as papers on outliers compute it: each convention under its own name, so that a number
// can be compared with the one that was published. All of them are functions of Moments, and so of
// a row (one token), of a sequence (all its tokens flattened) or of a whole tensor, gathered in one
// pass or merged. With D values, m_k the mean of (x - mean)^k and s^2 = m_2 D / (D - 1):
//
//                                        formula                          normal  uniform  two
//                                        points
//     Moments::kurtosis                  m_4 / m_2^2                         3      1.8       1
//     Moments::excess_kurtosis           m_4 / m_2^2 - 3                     0     -1.2      -2
//     kurtosis_quantizable_transformers  m_4 / (s^4 + 1e-6)                  3      1.8       1
//     excess_kurtosis_osp_script         max(0, mean(x^4) / s^4 - 3)         0      0         0
//     excess_kurtosis_osp_centred        m_4 / s^4 - 3                       0     -1.2      -2
//
// for large D and mean 0, the first of them for m_2 >> 1e-3. What is not defined (fewer than two
// values, no spread) is 0, also where a script would give infinity or NaN.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quell/core/view.hpp"
#include "quell/stats/moments.hpp"

namespace quell::stats {

/// As in the code of Bondarenko, Nagel and Blankevoort, "Quantizable transformers: removing
/// outliers by helping attention heads do nothing" (NeurIPS 2023): the deviation is corrected for
/// bias, the fourth moment is not, and 1e-6 keeps a constant row from dividing by zero. Not
/// scale-free: where s^4 is not far above 1e-6 the kurtosis comes out smaller.
inline double kurtosis_quantizable_transformers(const Moments& moments) noexcept;

/// As in the script of Park et al., "Outlier-safe pre-training for robust 4-bit quantization of
/// large language models" (ACL 2025). The fourth power is not centred, so a mean far from zero
/// counts as an outlier, and negative values are raised to 0, so a normal row of D values gives
/// about sqrt(24 / D) / sqrt(2 pi) on average, not 0.
inline double excess_kurtosis_osp_script(const Moments& moments) noexcept;

/// The same as its paper defines it: centred and not clamped. Differs from Moments::excess_kurtosis
/// only in the deviation, which is corrected for bias as in the script.
inline double excess_kurtosis_osp_centred(const Moments& moments) noexcept;

/// Means of every convention over samples, side by side. A sample is a row or a sequence. Samples
/// with a value that is not finite have no kurtosis: they are counted and left out. Empty samples
/// do not count.
class KurtosisMeans {
 public:
  /// Each row of X [T, IC] is a sample: one a token.
  void add_rows(MatrixView<const float> x);
  /// All of X [T, IC] is one sample.
  void add_sequence(MatrixView<const float> x);
  /// Other samples; sums are added, so merging in another order differs by rounding.
  void merge(const KurtosisMeans& other) noexcept;

  std::uint64_t samples() const noexcept { return samples_; }
  std::uint64_t skipped() const noexcept { return skipped_; }
  /// Means over samples; 0 of none. `inf_norm` is that of max |x|.
  double inf_norm() const noexcept { return mean(inf_norm_); }
  double kurtosis() const noexcept { return mean(kurtosis_); }
  double excess_kurtosis() const noexcept { return mean(excess_); }
  double kurtosis_quantizable_transformers() const noexcept { return mean(transformers_); }
  double excess_kurtosis_osp_script() const noexcept { return mean(osp_script_); }
  double excess_kurtosis_osp_centred() const noexcept { return mean(osp_centred_); }

 private:
  double mean(double sum) const noexcept {
    return samples_ > 0 ? sum / static_cast<double>(samples_) : 0;
  }

  std::uint64_t samples_ = 0;
  std::uint64_t skipped_ = 0;
  // Sums over samples.
  double inf_norm_ = 0;
  double kurtosis_ = 0;
  double excess_ = 0;
  double transformers_ = 0;
  double osp_script_ = 0;
  double osp_centred_ = 0;
};

// ------------------------------------------------------------------ definitions

namespace detail {

/// mean (x - mean)^4.
inline double fourth_central_moment(const Moments& m) noexcept {
  return m.kurtosis() * m.variance() * m.variance();
}

/// mean x^4, from the moments about the mean. No term is larger than a few times the result, so
/// nothing cancels.
inline double fourth_raw_moment(const Moments& m) noexcept {
  const double mean = m.mean();
  const double third = m.skewness() * m.variance() * m.standard_deviation();
  return fourth_central_moment(m) + 4 * mean * third + 6 * mean * mean * m.variance() +
         mean * mean * mean * mean;
}

}  // namespace detail

inline double kurtosis_quantizable_transformers(const Moments& moments) noexcept {
  const double s2 = moments.variance_unbiased();
  return detail::fourth_central_moment(moments) / (s2 * s2 + 1e-6);
}

inline double excess_kurtosis_osp_script(const Moments& moments) noexcept {
  const double s2 = moments.variance_unbiased();
  if (!(s2 > 0)) return 0;
  return std::max(0.0, detail::fourth_raw_moment(moments) / s2 / s2 - 3);
}

inline double excess_kurtosis_osp_centred(const Moments& moments) noexcept {
  const double s2 = moments.variance_unbiased();
  if (!(s2 > 0)) return 0;
  return detail::fourth_central_moment(moments) / s2 / s2 - 3;
}

inline void KurtosisMeans::add_rows(MatrixView<const float> x) {
  for (std::size_t t = 0; t < x.rows(); ++t) add_sequence(x.rows_from(t, 1));
}

inline void KurtosisMeans::add_sequence(MatrixView<const float> x) {
  if (x.empty()) return;
  float largest = 0;
  for (std::size_t t = 0; t < x.rows(); ++t) {
    for (const float value : x.row(t)) {
      if (!std::isfinite(value)) {
        ++skipped_;
        return;
      }
      largest = std::max(largest, std::fabs(value));
    }
  }
  Moments moments;
  for (std::size_t t = 0; t < x.rows(); ++t) moments.add(x.row(t));
  ++samples_;
  inf_norm_ += static_cast<double>(largest);
  kurtosis_ += moments.kurtosis();
  excess_ += moments.excess_kurtosis();
  transformers_ += stats::kurtosis_quantizable_transformers(moments);
  osp_script_ += stats::excess_kurtosis_osp_script(moments);
  osp_centred_ += stats::excess_kurtosis_osp_centred(moments);
}

inline void KurtosisMeans::merge(const KurtosisMeans& other) noexcept {
  samples_ += other.samples_;
  skipped_ += other.skipped_;
  inf_norm_ += other.inf_norm_;
  kurtosis_ += other.kurtosis_;
  excess_ += other.excess_;
  transformers_ += other.transformers_;
  osp_script_ += other.osp_script_;
  osp_centred_ += other.osp_centred_;
}

}  // namespace quell::stats
