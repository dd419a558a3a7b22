#include "images/fuzz/tar_mutator.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "images/testing/archive.h"
#include "images/text.h"

namespace husk::images::fuzz {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kSizeOffset = 124;
constexpr std::size_t kSizeLength = 12;
constexpr std::size_t kChecksumOffset = 148;
constexpr std::size_t kChecksumLength = 8;
constexpr std::size_t kTypeOffset = 156;
constexpr std::size_t kMagicOffset = 257;

bool IsHeader(const std::uint8_t* block) {
  return std::memcmp(block + kMagicOffset, "ustar", 5) == 0;
}

// `length` bytes: octal digits and a NUL.
void PutOctal(std::uint8_t* field, std::size_t length, std::size_t number) {
  field[--length] = 0;
  for (; length > 0; number /= 8) field[--length] = static_cast<std::uint8_t>('0' + number % 8);
}

void MendChecksum(std::uint8_t* header) {
  std::memset(header + kChecksumOffset, ' ', kChecksumLength);
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) sum += header[i];
  PutOctal(header + kChecksumOffset, kChecksumLength - 1, sum);
}

void MendRecords(std::uint8_t* header, std::uint8_t* payload) {
  std::string_view text(reinterpret_cast<const char*>(payload), kBlock);
  text = text.substr(0, text.find('\0'));
  std::string records;
  for (const std::string_view line : SplitNonEmpty(text, '\n')) {
    const std::string_view record = line.substr(std::min(line.find(' '), line.size() - 1) + 1);
    const std::size_t equals = std::min(record.find('='), record.size());
    const std::string_view value = record.substr(std::min(equals + 1, record.size()));
    records += testing::PaxRecord(std::string(record.substr(0, equals)), std::string(value));
  }
  if (records.size() > kBlock) return;
  std::memset(payload, 0, kBlock);
  std::copy(records.begin(), records.end(), payload);
  PutOctal(header + kSizeOffset, kSizeLength, records.size());
}

}  // namespace

std::size_t MoveTarBlock(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned int seed) {
  const std::size_t blocks = size > 0 ? (size - 1) / kBlock : 0;
  if (blocks < 2 || seed % 4 != 0) return 0;
  std::uint8_t* const archive = data + 1;
  std::uint8_t* const from = archive + seed / 8 % blocks * kBlock;
  std::uint8_t* const to = archive + seed / 8 / blocks % blocks * kBlock;
  std::uint8_t* const end = data + size;
  if ((seed & 4) != 0) {
    std::memmove(from, from + kBlock, static_cast<std::size_t>(end - from) - kBlock);
    return size - kBlock;
  }
  if (size + kBlock > max_size) return 0;
  std::uint8_t copy[kBlock];
  std::memcpy(copy, from, kBlock);
  std::memmove(to + kBlock, to, static_cast<std::size_t>(end - to));
  std::memcpy(to, copy, kBlock);
  return size + kBlock;
}

void MendTar(std::uint8_t* archive, std::size_t size) {
  for (std::size_t at = 0; at + kBlock <= size; at += kBlock) {
    std::uint8_t* const header = archive + at;
    if (!IsHeader(header)) continue;
    const bool pax = header[kTypeOffset] == 'x' || header[kTypeOffset] == 'g';
    // A map of a sparse file, a value with newlines and the like are not records any more once they are changed.
    if (pax && at + 2 * kBlock <= size && !IsHeader(header + kBlock)) MendRecords(header, header + kBlock);
    MendChecksum(header);
  }
}

}  // namespace husk::images::fuzz
