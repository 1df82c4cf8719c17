// SPDX-License-Identifier: Apache-2.0

// Three constructions, each arranged so that the matrix is symmetric.
//
// Paley (1933), with chi(a) = 0 for a = 0, 1 for squares, -1 for the rest of the field of q
// elements:
//   I:  order q + 1, q = 3 mod 4 prime. (chi(a - b)) is skew, and with b -> -b in the columns and
//       the signs of all rows but one turned, the matrix becomes symmetric: ones at the border, and
//       -chi(a + b), -1 where a + b = 0, inside.
//   II: order 2 (q + 1), q = 1 mod 4, a prime or the square of one. The conference matrix C with 0
//   on
//       the diagonal, ones at the border and chi(a - b) inside is symmetric; each element c off the
//       diagonal becomes c [1 1; 1 -1], each on it [1 -1; -1 -1].
//
// Propus arrays (Seberry and Balonin 2017), for the orders 4 v that Paley does not reach and models
// use: four circulants A, B, B, D of length v whose periodic autocorrelations sum to zero, A
// symmetric, R the reversal of indices (ones where i + j = 0):
//
//   -A   B R   B R   D R
//   B R  R D   A    -R B
//   B R  A    -R D   R B
//   D R -R B   R B   A
//
// The sequences were found by trying all that are constant on the orbits of i -> t i, t of order 3.

#include "kernels/hadamard_orders.hpp"

#include "quell/core/panic.hpp"
#include "quell/kernels/hadamard.hpp"

namespace quell::kernels {
namespace {

bool is_prime(std::size_t n) {
  if (n < 2) return false;
  for (std::size_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

/// q = p or p^2, p prime; 0 if it is neither.
std::size_t prime_of(std::size_t q) {
  if (is_prime(q)) return q;
  std::size_t p = 2;
  while (p * p < q) ++p;
  return p * p == q && is_prime(p) ? p : 0;
}

/// chi of the field of p elements.
std::vector<std::int8_t> residues(std::size_t p) {
  std::vector<std::int8_t> chi(p, -1);
  chi[0] = 0;
  for (std::size_t a = 1; a < p; ++a) chi[a * a % p] = 1;
  return chi;
}

/// chi of the field of q = p or p^2 elements. Element a + b w of the larger field has number
/// a p + b, where w^2 = r is no square modulo p; it is a square if and only if its norm
/// a^2 - r b^2 is one modulo p, because x^((q - 1) / 2) = (x^(p + 1))^((p - 1) / 2).
std::vector<std::int8_t> field_residues(std::size_t q, std::size_t p) {
  const std::vector<std::int8_t> small = residues(p);
  if (p == q) return small;
  std::size_t r = 2;
  while (small[r] != -1) ++r;
  std::vector<std::int8_t> chi(q);
  for (std::size_t a = 0; a < p; ++a) {
    for (std::size_t b = 0; b < p; ++b) chi[a * p + b] = small[(a * a + (p - r) * b * b) % p];
  }
  return chi;
}

std::vector<std::int8_t> paley_one(std::size_t order) {
  const std::size_t q = order - 1;
  const std::vector<std::int8_t> chi = residues(q);
  std::vector<std::int8_t> signs(order * order, 1);
  for (std::size_t a = 0; a < q; ++a) {
    for (std::size_t b = 0; b < q; ++b) {
      const std::size_t sum = (a + b) % q;
      signs[(a + 1) * order + b + 1] =
          sum == 0 ? std::int8_t{-1} : static_cast<std::int8_t>(-chi[sum]);
    }
  }
  return signs;
}

std::vector<std::int8_t> paley_two(std::size_t order) {
  const std::size_t q = order / 2 - 1, p = prime_of(q);
  const std::vector<std::int8_t> chi = field_residues(q, p);
  // Numbers of elements as pairs of digits; for q = p the first digit is 0.
  const auto difference = [&](std::size_t a, std::size_t b) {
    return (a / p + p - b / p) % p * p + (a % p + p - b % p) % p;
  };
  std::vector<std::int8_t> signs(order * order);
  for (std::size_t i = 0; i <= q; ++i) {
    for (std::size_t j = 0; j <= q; ++j) {
      const std::int8_t c = i == 0 || j == 0 ? std::int8_t{1} : chi[difference(i - 1, j - 1)];
      const auto minus = static_cast<std::int8_t>(-c);
      std::int8_t* upper = signs.data() + 2 * i * order + 2 * j;
      std::int8_t* lower = upper + order;
      upper[0] = i == j ? std::int8_t{1} : c;
      upper[1] = lower[0] = i == j ? std::int8_t{-1} : c;
      lower[1] = i == j ? std::int8_t{-1} : minus;
    }
  }
  return signs;
}

/// Bit o of a word: the sequence is -1 on orbit o, orbits numbered by their smallest elements.
struct Propus {
  std::size_t length, multiplier;
  std::uint32_t a, b, d;
};
constexpr Propus kPropus[] = {{39, 16, 0x2c32, 0x10b5, 0x0c65}, {43, 6, 0x244e, 0x073a, 0x241d}};

const Propus* propus_of(std::size_t order) {
  for (const Propus& propus : kPropus) {
    if (4 * propus.length == order) return &propus;
  }
  return nullptr;
}

std::vector<std::int8_t> sequence(const Propus& propus, std::uint32_t word) {
  std::vector<std::int8_t> values(propus.length, 0);
  for (std::size_t i = 0; i < propus.length; ++i) {
    if (values[i] != 0) continue;
    const std::int8_t sign = (word & 1) != 0 ? std::int8_t{-1} : std::int8_t{1};
    for (std::size_t j = i; values[j] == 0; j = j * propus.multiplier % propus.length) {
      values[j] = sign;
    }
    word >>= 1;
  }
  return values;
}

std::vector<std::int8_t> propus_array(const Propus& propus) {
  const std::vector<std::int8_t> sequences[] = {
      sequence(propus, propus.a), sequence(propus, propus.b), sequence(propus, propus.d)};
  enum Form { plain, right, left };  // X, X R, R X
  struct Cell {
    int sign, which;
    Form form;
  };
  constexpr int A = 0, B = 1, D = 2;
  constexpr Cell cells[4][4] = {
      {{-1, A, plain}, {1, B, right}, {1, B, right}, {1, D, right}},
      {{1, B, right}, {1, D, left}, {1, A, plain}, {-1, B, left}},
      {{1, B, right}, {1, A, plain}, {-1, D, left}, {1, B, left}},
      {{1, D, right}, {-1, B, left}, {1, B, left}, {1, A, plain}},
  };
  const std::size_t v = propus.length, order = 4 * v;
  std::vector<std::int8_t> signs(order * order);
  for (std::size_t row = 0; row < order; ++row) {
    for (std::size_t col = 0; col < order; ++col) {
      const Cell& cell = cells[row / v][col / v];
      const std::size_t i = row % v, j = col % v;
      const std::size_t at = cell.form == plain   ? v + j - i
                             : cell.form == right ? 2 * v - i - j
                                                  : i + j;
      const int value = sequences[cell.which][at % v];
      signs[row * order + col] = static_cast<std::int8_t>(cell.sign * value);
    }
  }
  return signs;
}

// An order above 2 is a multiple of 4, so that q = order - 1 is 3 mod 4 by itself.
bool is_paley_one(std::size_t order) {
  return order % 4 == 0 && is_prime(order - 1);
}
bool is_paley_two(std::size_t order) {
  return order % 4 == 0 && (order / 2 - 1) % 4 == 1 && prime_of(order / 2 - 1) != 0;
}

}  // namespace

std::size_t hadamard_order(std::size_t size) noexcept {
  if (size == 0) return 0;
  std::size_t order = size;
  while (order % 2 == 0) order /= 2;
  if (order == 1) return 1;
  for (; order <= Hadamard::kMaxOrder && size % order == 0; order *= 2) {
    if (is_paley_one(order) || is_paley_two(order) || propus_of(order) != nullptr) return order;
  }
  return 0;
}

std::vector<std::int8_t> hadamard_signs(std::size_t order) {
  if (order == 1) return {1};
  if (is_paley_one(order)) return paley_one(order);
  if (is_paley_two(order)) return paley_two(order);
  const Propus* propus = propus_of(order);
  if (propus == nullptr) panic("hadamard_signs: an order without construction");
  return propus_array(*propus);
}

std::vector<std::uint8_t> hadamard_codes(std::size_t order) {
  if (order == 1) return {};
  const std::vector<std::int8_t> signs = hadamard_signs(order);
  std::vector<std::uint8_t> codes;
  codes.reserve(order * order / 4);
  for (std::size_t first = 0; first < order; first += 4) {
    for (std::size_t quad = 0; quad < order; quad += 4) {
      for (std::size_t row = first; row < first + 4; ++row) {
        const std::int8_t* s = signs.data() + row * order + quad;
        const unsigned code = (s[0] != s[1] ? 16u : 0u) + (s[2] != s[3] ? 32u : 0u) +
                              (s[0] != s[2] ? 64u : 0u) + (s[0] < 0 ? 128u : 0u);
        codes.push_back(static_cast<std::uint8_t>(code));
      }
    }
  }
  return codes;
}

}  // namespace quell::kernels
