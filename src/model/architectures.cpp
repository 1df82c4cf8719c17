// SPDX-License-Identifier: Apache-2.0

// The table of architectures, in the order in which messages list them.

#include "quell/model/architecture.hpp"

#include <algorithm>
#include <array>

#include "model/architecture_list.hpp"

namespace quell::model {

std::span<const Architecture> architectures() {
  // Built at the first call: the entries live in other files, whose constants might not be ready
  // yet while this file's are initialized.
  static const std::array<Architecture, 8> kTable = {kLlama, kMistral, kQwen2, kQwen3,
                                                     kGpt2,  kOpt,     kBert,  kBertForMaskedLm};
  return kTable;
}

const Architecture* find_architecture(std::string_view name, std::string_view model_type) {
  // A class that is named but unknown is not rescued by its model_type: a sequence classifier
  // shares the type of the causal model.
  const auto table = architectures();
  const auto at = std::find_if(table.begin(), table.end(), [&](const Architecture& entry) {
    return name.empty() ? entry.model_type == model_type : entry.name == name;
  });
  return at == table.end() ? nullptr : &*at;
}

}  // namespace quell::model
