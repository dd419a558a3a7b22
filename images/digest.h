// SHA-256 digests, the only algorithm that images are named by here.
#ifndef HUSK_IMAGES_DIGEST_H_
#define HUSK_IMAGES_DIGEST_H_

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace husk::images {

// Hashes a stream. Not thread safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);
  // "sha256:<64 lower-case hex digits>". Called once, last.
  std::string Finish();

 private:
  struct Deleter {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Deleter> context_;
};

// The digest of `bytes`, "sha256:<hex>".
std::string DigestOf(std::string_view bytes);

// True for "sha256:<64 lower-case hex digits>" and nothing else, so that a digest may name a file.
bool IsDigest(std::string_view text);

// The hex digits of a digest for which IsDigest() holds.
std::string DigestHex(std::string_view digest);

}  // namespace husk::images

#endif  // HUSK_IMAGES_DIGEST_H_
