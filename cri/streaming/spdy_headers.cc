#include "cri/streaming/spdy_headers.h"

#include <zlib.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/streaming/big_endian.h"

namespace husk::cri {
namespace {

// The dictionary of the protocol's third version: words with their lengths in front, then one long text.
constexpr std::array<std::string_view, 65> kDictionaryWords = {"options",
                                                               "head",
                                                               "post",
                                                               "put",
                                                               "delete",
                                                               "trace",
                                                               "accept",
                                                               "accept-charset",
                                                               "accept-encoding",
                                                               "accept-language",
                                                               "accept-ranges",
                                                               "age",
                                                               "allow",
                                                               "authorization",
                                                               "cache-control",
                                                               "connection",
                                                               "content-base",
                                                               "content-encoding",
                                                               "content-language",
                                                               "content-length",
                                                               "content-location",
                                                               "content-md5",
                                                               "content-range",
                                                               "content-type",
                                                               "date",
                                                               "etag",
                                                               "expect",
                                                               "expires",
                                                               "from",
                                                               "host",
                                                               "if-match",
                                                               "if-modified-since",
                                                               "if-none-match",
                                                               "if-range",
                                                               "if-unmodified-since",
                                                               "last-modified",
                                                               "location",
                                                               "max-forwards",
                                                               "pragma",
                                                               "proxy-authenticate",
                                                               "proxy-authorization",
                                                               "range",
                                                               "referer",
                                                               "retry-after",
                                                               "server",
                                                               "te",
                                                               "trailer",
                                                               "transfer-encoding",
                                                               "upgrade",
                                                               "user-agent",
                                                               "vary",
                                                               "via",
                                                               "warning",
                                                               "www-authenticate",
                                                               "method",
                                                               "get",
                                                               "status",
                                                               "200 OK",
                                                               "version",
                                                               "HTTP/1.1",
                                                               "url",
                                                               "public",
                                                               "set-cookie",
                                                               "keep-alive",
                                                               "origin"};
constexpr std::string_view kDictionaryText =
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

const std::string& Dictionary() {
  static const std::string dictionary = [] {
    std::string bytes;
    for (const std::string_view word : kDictionaryWords) {
      AppendBigEndian(word.size(), 4, &bytes);
      bytes.append(word);
    }
    bytes.append(kDictionaryText);
    return bytes;
  }();
  return dictionary;
}

Bytef* AsZlibBytes(std::string_view bytes) {
  // zlib does not write there, but old versions of its interface lack the const.
  return const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data()));  // NOLINT
}

uInt ZlibSize(std::size_t size) {
  return static_cast<uInt>(size);
}

StatusOr<std::string> TakeField(std::string_view block, std::size_t* position, const char* what) {
  if (block.size() - *position < 4) return absl::InvalidArgumentError("a SPDY header block ends too early");
  const std::uint64_t size = ReadBigEndian(block, *position, 4);
  *position += 4;
  if (size > kMaximumSpdyField) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the ", what, " of a SPDY header has ", size, " bytes; at most ", kMaximumSpdyField, " may be"));
  }
  if (size > block.size() - *position) return absl::InvalidArgumentError("a SPDY header block ends too early");
  std::string field(block.substr(*position, size));
  *position += size;
  return field;
}

StatusOr<WireHeaders> ParseBlock(std::string_view block) {
  if (block.size() < 4) return absl::InvalidArgumentError("a SPDY header block ends too early");
  const std::uint64_t count = ReadBigEndian(block, 0, 4);
  if (count > kMaximumSpdyHeaders) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a SPDY header block has ", count, " headers; at most ", kMaximumSpdyHeaders, " may be"));
  }
  WireHeaders headers;
  std::size_t position = 4;
  for (std::uint64_t index = 0; index < count; ++index) {
    HUSK_ASSIGN_OR_RETURN(std::string name, TakeField(block, &position, "name"));
    HUSK_ASSIGN_OR_RETURN(std::string value, TakeField(block, &position, "value"));
    headers.emplace_back(std::move(name), std::move(value));
  }
  if (position != block.size()) return absl::InvalidArgumentError("a SPDY header block has bytes after its headers");
  return headers;
}

}  // namespace

// zlib keeps the address of its z_stream, so it must not move.
struct SpdyHeaderReader::Stream {
  z_stream zlib{};
};
struct SpdyHeaderWriter::Stream {
  z_stream zlib{};
};

SpdyHeaderReader::SpdyHeaderReader() : stream_(std::make_unique<Stream>()) {
  inflateInit(&stream_->zlib);
}
SpdyHeaderReader::~SpdyHeaderReader() {
  inflateEnd(&stream_->zlib);
}

StatusOr<std::string> SpdyHeaderReader::Inflate(std::string_view block) {
  z_stream& zlib = stream_->zlib;
  zlib.next_in = AsZlibBytes(block);
  zlib.avail_in = ZlibSize(block.size());
  std::string result;
  std::array<char, 16384> buffer;  // NOLINT: inflate fills it
  while (true) {
    zlib.next_out = reinterpret_cast<Bytef*>(buffer.data());  // NOLINT
    zlib.avail_out = ZlibSize(buffer.size());
    int code = inflate(&zlib, Z_SYNC_FLUSH);
    if (code == Z_NEED_DICT) {
      const std::string& dictionary = Dictionary();
      code = inflateSetDictionary(&zlib, AsZlibBytes(dictionary), ZlibSize(dictionary.size()));
      if (code != Z_OK) return absl::InvalidArgumentError("a SPDY header block wants an unknown dictionary");
      continue;
    }
    // Z_BUF_ERROR: nothing was left to do, which is no error. Z_STREAM_END would end it for later blocks as well.
    if (code != Z_OK && code != Z_BUF_ERROR) return absl::InvalidArgumentError("a SPDY header block is damaged");
    const std::size_t produced = buffer.size() - zlib.avail_out;
    if (produced > kMaximumSpdyBlock - result.size()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a SPDY header block inflates to more than ", kMaximumSpdyBlock, " bytes"));
    }
    result.append(buffer.data(), produced);
    if (zlib.avail_out > 0) break;
  }
  if (zlib.avail_in > 0) return absl::InvalidArgumentError("a SPDY header block is damaged");
  return result;
}

StatusOr<WireHeaders> SpdyHeaderReader::Read(std::string_view block) {
  HUSK_ASSIGN_OR_RETURN(const std::string inflated, Inflate(block));
  return ParseBlock(inflated);
}

SpdyHeaderWriter::SpdyHeaderWriter() : stream_(std::make_unique<Stream>()) {
  deflateInit(&stream_->zlib, Z_BEST_SPEED);
  deflateSetDictionary(&stream_->zlib, AsZlibBytes(Dictionary()), ZlibSize(Dictionary().size()));
}
SpdyHeaderWriter::~SpdyHeaderWriter() {
  deflateEnd(&stream_->zlib);
}

std::string SpdyHeaderWriter::Write(const WireHeaders& headers) {
  std::string block;
  AppendBigEndian(headers.size(), 4, &block);
  for (const auto& [name, value] : headers) {
    AppendBigEndian(name.size(), 4, &block);
    block.append(name);
    AppendBigEndian(value.size(), 4, &block);
    block.append(value);
  }
  z_stream& zlib = stream_->zlib;
  zlib.next_in = AsZlibBytes(block);
  zlib.avail_in = ZlibSize(block.size());
  std::string result;
  std::array<char, 16384> buffer;  // NOLINT: deflate fills it
  do {
    zlib.next_out = reinterpret_cast<Bytef*>(buffer.data());  // NOLINT
    zlib.avail_out = ZlibSize(buffer.size());
    deflate(&zlib, Z_SYNC_FLUSH);
    result.append(buffer.data(), buffer.size() - zlib.avail_out);
  } while (zlib.avail_out == 0);
  return result;
}

}  // namespace husk::cri
