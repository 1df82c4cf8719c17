// SPDX-License-Identifier: Apache-2.0

// Reads that the system interrupts or cuts short, and numbers taken from bytes.

#include "io/file.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "io/bounded_reader.hpp"
#include "support/files.hpp"

namespace quell::io {
namespace {

constexpr std::string_view kText = "The quick brown fox jumps over the lazy dog";

std::span<std::byte> bytes_of(std::string& text) {
  return std::as_writable_bytes(std::span<char>(text.data(), text.size()));
}

/// A system call that gives at most `most` bytes and fails with `errors` in turn before each
/// success.
struct StubbornRead {
  std::size_t most = 1;
  std::vector<int> errors = {};
  std::size_t next = 0;
  int calls = 0;

  long operator()(std::byte* buffer, std::size_t count, std::uint64_t offset) {
    ++calls;
    if (next < errors.size()) {
      errno = errors[next++];
      return -1;
    }
    next = 0;
    if (offset >= kText.size()) return 0;
    const std::size_t got =
        std::min({most, count, kText.size() - static_cast<std::size_t>(offset)});
    std::memcpy(buffer, kText.data() + offset, got);
    return static_cast<long>(got);
  }
};

TEST(ReadFully, JoinsShortReads) {
  for (const std::size_t most : {1u, 2u, 7u, 1000u}) {
    StubbornRead system{.most = most};
    std::string out(20, '\0');
    const ReadOutcome outcome = read_fully(system, 4, bytes_of(out));
    EXPECT_EQ(outcome.bytes, 20u);
    EXPECT_EQ(outcome.error, 0);
    EXPECT_EQ(out, kText.substr(4, 20));
  }
}

TEST(ReadFully, RetriesAfterSignals) {
  StubbornRead system{.most = 3, .errors = {EINTR, EINTR, EAGAIN}};
  std::string out(kText.size(), '\0');
  EXPECT_EQ(read_fully(system, 0, bytes_of(out)).bytes, kText.size());
  EXPECT_EQ(out, kText);
}

TEST(ReadFully, GivesUpOnASystemThatNeverGetsFurther) {
  StubbornRead system{.errors = std::vector<int>(100'000, EINTR)};
  std::string out(4, '\0');
  const ReadOutcome outcome = read_fully(system, 0, bytes_of(out));
  EXPECT_EQ(outcome.error, EINTR);
  EXPECT_LT(system.calls, 10'000);
}

TEST(ReadFully, ReportsErrorsAndNeverFillsWithZeros) {
  StubbornRead system{.errors = {EIO}};
  std::string out(4, '?');
  const ReadOutcome outcome = read_fully(system, 0, bytes_of(out));
  EXPECT_EQ(outcome.error, EIO);
  EXPECT_EQ(outcome.bytes, 0u);
  EXPECT_EQ(out, "????");
}

TEST(ReadFully, StopsAtTheEnd) {
  StubbornRead system{.most = 10};
  std::string out(100, '?');
  const ReadOutcome outcome = read_fully(system, 40, bytes_of(out));
  EXPECT_EQ(outcome.bytes, kText.size() - 40);
  EXPECT_EQ(outcome.error, 0);
}

TEST(File, RefusesRangesOutsideOfIt) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "0123456789");
  const auto file = File::open(folder / "f");
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->size(), 10u);
  std::string out(4, '\0');
  EXPECT_TRUE(file->read_at(6, bytes_of(out)).has_value());
  EXPECT_EQ(out, "6789");
  const auto beyond = file->read_at(7, bytes_of(out));
  ASSERT_FALSE(beyond.has_value());
  EXPECT_NE(beyond.error().message.find("bytes 7 to 11 were asked for, but the file has 10"),
            std::string::npos);
  EXPECT_FALSE(file->read_at(~std::uint64_t{0}, bytes_of(out)).has_value());
  EXPECT_TRUE(file->read_at(10, {}).has_value());
}

TEST(File, NoticesThatItChanged) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "0123456789");
  const auto file = File::open(folder / "f");
  ASSERT_TRUE(file.has_value());
  EXPECT_TRUE(file->check_unchanged().has_value());
  test::write_bytes(folder / "f", "01234567890123456789");
  const auto changed = file->check_unchanged();
  ASSERT_FALSE(changed.has_value());
  EXPECT_NE(changed.error().message.find("had 10 bytes when opened and has 20 now"),
            std::string::npos);
}

TEST(File, WithoutPermissionIsAResourceError) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "f", "x");
  std::filesystem::permissions(folder / "f", std::filesystem::perms::none);
  const auto file = File::open(folder / "f");
  if (file.has_value()) GTEST_SKIP() << "this user may read everything";
  EXPECT_EQ(file.error().code, ErrorCode::resource);
  EXPECT_NE(file.error().message.find("cannot be opened for reading"), std::string::npos);
}

TEST(BoundedReader, ReadsLittleEndianNumbersWithinItsBytes) {
  std::string text = "\x01\x02\x03\x04\x05\x06\x07\x08\xff";
  BoundedReader reader(bytes_of(text));
  EXPECT_EQ(reader.number<std::uint8_t>(), 0x01);
  EXPECT_EQ(reader.number<std::uint16_t>(), 0x0302);
  EXPECT_EQ(reader.number<std::uint32_t>(), 0x07060504u);
  EXPECT_EQ(reader.remaining(), 2u);
  EXPECT_EQ(reader.number<std::uint32_t>(), std::nullopt);
  EXPECT_EQ(reader.remaining(), 2u) << "a refused read takes nothing";
  EXPECT_EQ(reader.text(3), std::nullopt);
  EXPECT_EQ(reader.bytes(~std::uint64_t{0}), std::nullopt);
  EXPECT_EQ(reader.text(2), "\x08\xff");
  EXPECT_EQ(reader.text(0), "");
  EXPECT_EQ(reader.number<std::uint8_t>(), std::nullopt);
}

}  // namespace
}  // namespace quell::io
