// SPDX-License-Identifier: Apache-2.0

// An application that takes all of quell: threads, tokenizer, methods.

#include <quell/core/executor.hpp>
#include <quell/grid/spec.hpp>
#include <quell/model/model.hpp>
#include <quell/quant/registry.hpp>
#include <quell/tokenizer/tokenizer.hpp>
#include <quell/version.hpp>

#include <cstdio>
#include <cstring>

int main() {
  const auto executor = quell::make_openmp_executor(2);
  const auto tokenizer = quell::tokenizer::Tokenizer::read("no/such/folder");
  const auto model = quell::model::Model::load("no/such/folder");
  const bool refused = !tokenizer && !model && !model.error().message.empty();
  const auto grid = quell::parse_grid("int4:sym:oc:g128");
  std::printf("quell %s, %u threads\n", QUELL_VERSION, executor->width());
  return refused && grid && std::strcmp(QUELL_VERSION, EXPECTED_VERSION) == 0 ? 0 : 1;
}
