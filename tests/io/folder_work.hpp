// SPDX-License-Identifier: Apache-2.0
#pragma once

// A small piece of work that fills an output folder: five modules in three shards, the same bytes
// every time. The tests do it here; io_folder_writer does it in a process that may be killed.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "quell/core/result.hpp"
#include "quell/io/output.hpp"
#include "quell/io/safetensors.hpp"

namespace quell::test {

constexpr int kModules = 5;

inline std::vector<std::string> module_tensors(int module) {
  const std::string name = "layers." + std::to_string(module);
  return {name + ".codes", name + ".scales"};
}

inline Result<io::FolderPlan> work_plan() {
  std::vector<io::TensorPlan> tensors;
  for (int module = 0; module < kModules; ++module) {
    const auto names = module_tensors(module);
    tensors.push_back({names[0], DType::u8, {40, 25}});
    tensors.push_back({names[1], DType::f32, {40}});
  }
  // Two modules of 1,160 bytes in a shard.
  return io::plan_folder(std::move(tensors), 2'500, {});
}

inline std::vector<std::byte> work_bytes(const io::TensorPlan& tensor) {
  std::vector<std::byte> bytes(tensor.bytes);
  std::uint32_t state = 12345;
  for (const char c : tensor.name) state = state * 31 + static_cast<unsigned char>(c);
  for (std::byte& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

inline io::Json work_identity(int bits = 4) {
  io::Json options;
  options.set("bits", bits);
  options.set("method", "rtn");
  io::Json identity;
  identity.set("model", "0123abcd");
  identity.set("options", std::move(options));
  return identity;
}

struct Work {
  io::OutputFolder::Options options = {};
  int bits = 4;
  int stop_after = kModules;  // modules written in this run before it stops unfinished
  std::string report = "took 3 seconds\n";
};

/// The hash of the result; empty if stopped. `resumed` receives how many modules were found.
inline Result<std::string> do_work(const std::filesystem::path& path, const Work& work = {},
                                   std::size_t* resumed = nullptr) {
  QUELL_TRY(plan, work_plan());
  QUELL_TRY(folder, io::OutputFolder::open(path, plan, work_identity(work.bits), work.options));
  if (resumed != nullptr) *resumed = folder.finished().size();
  int written = 0;
  for (int module = 0; module < kModules; ++module) {
    const std::string name = "layers." + std::to_string(module);
    if (folder.find_finished(name) != nullptr) continue;
    if (written++ == work.stop_after) return std::string();
    const auto names = module_tensors(module);
    for (const io::TensorPlan& tensor : plan.tensors) {
      if (tensor.name != names[0] && tensor.name != names[1]) continue;
      QUELL_TRY(folder.write(tensor.name, work_bytes(tensor)));
    }
    io::Json record;
    record.set("error", 0.5 * module);
    QUELL_TRY(folder.finish_module(name, names, record));
  }
  QUELL_TRY(folder.add_file("tokenizer.json", "{}\n"));
  QUELL_TRY(folder.add_file("report.txt", work.report, false));
  return folder.complete("{\"model_type\":\"llama\"}\n");
}

}  // namespace quell::test
