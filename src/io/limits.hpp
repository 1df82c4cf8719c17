// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is refused before it is parsed or allocated. Each limit is far above anything that exists
// and far below what would hurt.

#include <cstddef>
#include <cstdint>

namespace quell::io::limits {

// The limit of the reference implementation. The largest headers seen are near 10 MB.
inline constexpr std::uint64_t kSafetensorsHeaderBytes = 100'000'000;
// A header nests object, tensor, list: three. One more for members that we do not know.
inline constexpr int kSafetensorsDepth = 4;
// The largest public checkpoints (a thousand experts in each of sixty layers) hold 200 thousand
// tensors in all of their files. The records of this many, and a header of 100 MB beside them, stay
// under 200 MB of memory.
inline constexpr std::size_t kTensorsPerFile = 500'000;
// Over all shards of a folder: 2 GB of records at most.
inline constexpr std::size_t kTensorsPerFolder = std::size_t{1} << 24;
// Frameworks stop at 8 dimensions or far below.
inline constexpr std::size_t kDimensions = 8;
// Real names have under 200 bytes.
inline constexpr std::size_t kNameBytes = 65'536;
// The published schema of the format: integers that every JSON reader keeps exactly.
inline constexpr std::uint64_t kLargestInteger = (std::uint64_t{1} << 48) - 1;
// Members of one tensor's entry: three are known, some writers add notes.
inline constexpr std::size_t kTensorMembers = 16;

// Files held open at a time, so that 200 shards work where a process may open 64.
inline constexpr std::size_t kOpenFiles = 16;
// Shards are numbered with five digits.
inline constexpr std::size_t kShards = 99'999;

// A header of a .npy file is one short dictionary; version 1 cannot exceed 65,535 bytes.
inline constexpr std::uint64_t kNpyHeaderBytes = 65'536;
// 2^31 token ids are 8 GiB.
inline constexpr std::uint64_t kNpyElements = std::uint64_t{1} << 31;

}  // namespace quell::io::limits
