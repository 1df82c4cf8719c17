// SPDX-License-Identifier: Apache-2.0
#include "io/open_files.hpp"

#include <algorithm>

#include "io/fault.hpp"
#include "io/limits.hpp"

namespace quell::io {

void OpenFiles::keep(std::uint32_t index, std::shared_ptr<const File> file) const {
  // Sixteen slots: moving them is cheaper than any list. A file that leaves stays open for as long
  // as a reader holds it.
  if (slots_.size() == limits::kOpenFiles) slots_.erase(slots_.begin());
  slots_.push_back({index, std::move(file)});
}

std::uint32_t OpenFiles::add(std::filesystem::path path, File file) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<std::uint32_t>(paths_.size());
  paths_.push_back(std::move(path));
  identities_.push_back(file.identity());
  keep(index, std::make_shared<const File>(std::move(file)));
  return index;
}

Result<std::shared_ptr<const File>> OpenFiles::get(std::uint32_t index) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(slots_.begin(), slots_.end(),
                                  [&](const Slot& slot) { return slot.index == index; });
  if (found != slots_.end()) {
    std::rotate(found, found + 1, slots_.end());
    return slots_.back().file;
  }
  auto file = File::open(paths_[index]);
  if (!file && file.error().code == ErrorCode::resource && !slots_.empty()) {
    // The host may have used up the descriptors that we could have had: give ours back, try again.
    slots_.clear();
    file = File::open(paths_[index]);
  }
  if (!file) return std::move(file).error();
  if (file->identity() != identities_[index]) {
    return file_fault(ErrorCode::parse, paths_[index].string(),
                      "input changed while being read: it was replaced or written to after its "
                      "header was read; start again when the file is complete");
  }
  keep(index, std::make_shared<const File>(*std::move(file)));
  return slots_.back().file;
}

}  // namespace quell::io
