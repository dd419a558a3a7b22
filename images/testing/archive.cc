#include "images/testing/archive.h"

#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <sstream>

namespace husk::images::testing {
namespace {

constexpr std::size_t kBlock = 512;

void Put(std::string& header, std::size_t offset, std::size_t length, std::string_view text) {
  header.replace(offset, std::min(length, text.size()), text.substr(0, length));
}

void PutOctal(std::string& header, std::size_t offset, std::size_t length, std::uint64_t number) {
  std::stringstream digits;
  digits << std::oct << number;
  const std::string text = digits.str();
  if (text.size() < length) {
    Put(header, offset, length, std::string(length - 1 - text.size(), '0') + text);
    return;
  }
  // Base 256, as GNU writes what does not fit.
  header[offset] = static_cast<char>(0x80);
  for (std::size_t i = length - 1; i > 0; --i, number >>= 8) header[offset + i] = static_cast<char>(number & 0xff);
}

std::string Padded(std::string bytes) {
  bytes.resize((bytes.size() + kBlock - 1) / kBlock * kBlock, '\0');
  return bytes;
}

std::string Header(const ArchiveEntry& entry) {
  std::string header(kBlock, '\0');
  Put(header, 0, 100, entry.path);
  PutOctal(header, 100, 8, entry.mode);
  PutOctal(header, 108, 8, entry.user);
  PutOctal(header, 116, 8, entry.group);
  PutOctal(header, 124, 12, entry.data.size());
  PutOctal(header, 136, 12, entry.mtime);
  header[156] = entry.type;
  Put(header, 157, 100, entry.link_target);
  Put(header, 257, 8,
      std::string_view("ustar\0"
                       "00",
                       8));
  PutOctal(header, 329, 8, entry.device_major);
  PutOctal(header, 337, 8, entry.device_minor);
  Put(header, 148, 8, "        ");
  std::uint64_t sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  PutOctal(header, 148, 7, sum);
  return header;
}

}  // namespace

std::string TarEntryBytes(const ArchiveEntry& entry) {
  std::string bytes;
  if (!entry.pax.empty()) {
    std::string records;
    for (const auto& [key, value] : entry.pax) records += PaxRecord(key, value);
    bytes = TarEntryBytes({.path = "PaxHeaders/x", .type = 'x', .data = records});
  }
  return bytes + Header(entry) + Padded(entry.data);
}

std::string MakeTar(const std::vector<ArchiveEntry>& entries) {
  std::string bytes;
  for (const ArchiveEntry& entry : entries) bytes += TarEntryBytes(entry);
  return bytes + std::string(2 * kBlock, '\0');
}

ArchiveEntry File(std::string path, std::string data) {
  return {.path = std::move(path), .data = std::move(data)};
}

ArchiveEntry Directory(std::string path, std::uint32_t mode) {
  return {.path = std::move(path), .type = '5', .mode = mode};
}

ArchiveEntry Symlink(std::string path, std::string target) {
  return {.path = std::move(path), .type = '2', .link_target = std::move(target), .mode = 0777};
}

ArchiveEntry HardLink(std::string path, std::string target) {
  return {.path = std::move(path), .type = '1', .link_target = std::move(target)};
}

std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  std::size_t length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) length = std::to_string(length).size() + rest.size();
  return std::to_string(length) + rest;
}

std::string Gzip(std::string_view bytes) {
  z_stream stream{};
  constexpr int kGzipWindow = 15 + 16;
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
  std::string input(bytes);
  std::string output(deflateBound(&stream, input.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  if (deflate(&stream, Z_FINISH) != Z_STREAM_END) abort();
  output.resize(stream.total_out);
  deflateEnd(&stream);
  return output;
}

std::string Zstd(std::string_view bytes) {
  std::string output(ZSTD_compressBound(bytes.size()), '\0');
  const std::size_t size = ZSTD_compress(output.data(), output.size(), bytes.data(), bytes.size(), 3);
  if (ZSTD_isError(size) != 0) abort();
  output.resize(size);
  return output;
}

}  // namespace husk::images::testing
