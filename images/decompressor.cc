#include "images/decompressor.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <cstdint>
#include <utility>

#include "images/text.h"

namespace husk::images {

class Decompressor::Codec {
 public:
  Codec() = default;
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;
  virtual ~Codec() = default;
  virtual Status Write(std::string_view input, const Sink& sink) = 0;
  virtual Status Finish() = 0;
};

namespace {

// Small enough to stay in the cache between inflating, hashing and writing.
constexpr std::size_t kOutputSize = std::size_t{256} << 10;
constexpr std::size_t kMagicLength = 4;
constexpr std::string_view kGzipMagic = "\x1f\x8b";
constexpr std::string_view kZstdMagic = "\x28\xb5\x2f\xfd";
// Frames without contents, for whoever knows them: zstd:chunked ends with some, pzstd begins with one. The magic
// number's lowest four bits are free.
constexpr std::string_view kZstdSkippableMagic = "\x2a\x4d\x18";
constexpr int kMaximumWindowLog = 27;

class PlainCodec : public Decompressor::Codec {
 public:
  Status Write(std::string_view input, const Decompressor::Sink& sink) override {
    return input.empty() ? absl::OkStatus() : sink(input);
  }
  Status Finish() override { return absl::OkStatus(); }
};

class GzipCodec : public Decompressor::Codec {
 public:
  GzipCodec() : output_(std::make_unique<std::uint8_t[]>(kOutputSize)) { Reset(); }

  Status Write(std::string_view input, const Decompressor::Sink& sink) override {
    // ISA-L does not write to its input; its structure merely lacks the const.
    state_.next_in = const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(input.data()));
    state_.avail_in = static_cast<std::uint32_t>(input.size());
    bool output_full = false;
    while (state_.avail_in > 0 || output_full) {
      if (state_.block_state == ISAL_BLOCK_FINISH) {
        if (state_.avail_in == 0) break;
        Reset();
      }
      state_.next_out = output_.get();
      state_.avail_out = kOutputSize;
      between_members_ = false;
      if (const int result = isal_inflate(&state_); result < 0) {
        return absl::DataLossError(Concat("malformed gzip data (ISA-L error ", result, ")"));
      }
      output_full = state_.avail_out == 0;
      if (const std::size_t length = kOutputSize - state_.avail_out; length > 0) {
        HUSK_RETURN_IF_ERROR(sink({reinterpret_cast<const char*>(output_.get()), length}));
      }
      between_members_ = state_.block_state == ISAL_BLOCK_FINISH;
    }
    return absl::OkStatus();
  }

  Status Finish() override {
    return between_members_ ? absl::OkStatus() : absl::DataLossError("gzip data ends within a member");
  }

 private:
  // For the first member and each that is appended to it. What follows a member must be another: trailing junk fails.
  void Reset() {
    std::uint8_t* const next_in = state_.next_in;
    const std::uint32_t avail_in = state_.avail_in;
    isal_inflate_init(&state_);
    state_.crc_flag = ISAL_GZIP;
    state_.next_in = next_in;
    state_.avail_in = avail_in;
  }

  const std::unique_ptr<std::uint8_t[]> output_;
  inflate_state state_{};
  bool between_members_ = false;
};

class ZstdCodec : public Decompressor::Codec {
 public:
  ZstdCodec() : context_(ZSTD_createDCtx()), output_(std::make_unique<char[]>(kOutputSize)) {
    if (context_ != nullptr) ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMaximumWindowLog);
  }

  Status Write(std::string_view input, const Decompressor::Sink& sink) override {
    if (context_ == nullptr) return absl::ResourceExhaustedError("no memory for a zstd context");
    ZSTD_inBuffer in{input.data(), input.size(), 0};
    bool output_full = false;
    while (in.pos < in.size || output_full) {
      ZSTD_outBuffer out{output_.get(), kOutputSize, 0};
      pending_ = ZSTD_decompressStream(context_.get(), &out, &in);
      if (ZSTD_isError(pending_) != 0) {
        return absl::DataLossError(Concat("malformed zstd data: ", ZSTD_getErrorName(pending_)));
      }
      output_full = out.pos == out.size && pending_ != 0;
      if (out.pos > 0) HUSK_RETURN_IF_ERROR(sink({output_.get(), out.pos}));
    }
    return absl::OkStatus();
  }

  Status Finish() override {
    return pending_ == 0 ? absl::OkStatus() : absl::DataLossError("zstd data ends within a frame");
  }

 private:
  struct Deleter {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  const std::unique_ptr<ZSTD_DCtx, Deleter> context_;
  const std::unique_ptr<char[]> output_;
  std::size_t pending_ = 0;  // zero at the end of a frame
};

bool IsZstd(std::string_view bytes) {
  if (bytes.starts_with(kZstdMagic)) return true;
  if (bytes.size() < kMagicLength) return false;
  return (static_cast<unsigned char>(bytes[0]) & 0xf0U) == 0x50 && bytes.substr(1).starts_with(kZstdSkippableMagic);
}

}  // namespace

Decompressor::Decompressor(Sink sink) : sink_(std::move(sink)) {}

Decompressor::~Decompressor() = default;

Status Decompressor::Write(std::string_view input) {
  if (codec_ != nullptr) return codec_->Write(input, sink_);
  first_bytes_ += input;
  return first_bytes_.size() < kMagicLength ? absl::OkStatus() : Start();
}

Status Decompressor::Finish() {
  if (codec_ == nullptr) HUSK_RETURN_IF_ERROR(Start());
  return codec_->Finish();
}

Status Decompressor::Start() {
  if (first_bytes_.starts_with(kGzipMagic)) {
    codec_ = std::make_unique<GzipCodec>();
  } else if (IsZstd(first_bytes_)) {
    codec_ = std::make_unique<ZstdCodec>();
  } else {
    codec_ = std::make_unique<PlainCodec>();
  }
  const std::string first = std::exchange(first_bytes_, {});
  return codec_->Write(first, sink_);
}

}  // namespace husk::images
