// Image references: what is accepted has a normal form, which means the same.
#include "images/digest.h"
#include "images/fuzz/require.h"
#include "images/reference.h"

namespace husk::images::fuzz {
namespace {

std::string NormalForm(const Reference& reference) {
  std::string text = reference.Name();
  if (!reference.tag.empty()) text += ":" + reference.tag;
  if (!reference.digest.empty()) text += "@" + reference.digest;
  return text;
}

void Run(std::string_view text) {
  const auto id = ParseImageId(text);
  Require(!id || IsDigest(*id), "an image id is a digest");
  const StatusOr<Reference> reference = ParseReference(text);
  if (!reference.ok()) return RequireSoundError(reference.status());
  Require(!id, "an image id is no reference");
  const std::string normal = NormalForm(*reference);
  for (const char c : normal) Require(c > ' ' && c <= '~', "a reference is printable");
  Require(reference->Name().size() <= 255, "a name has 255 bytes at most");
  Require(!reference->tag.empty() || IsDigest(reference->digest), "there is a tag or a digest");
  Require(reference->Name().find("..") == std::string::npos, "a reference leads nowhere else");
  const StatusOr<Reference> again = ParseReference(normal);
  Require(again.ok(), "the normal form is a reference: " + normal);
  Require(NormalForm(*again) == normal, "the normal form stays as it is: " + normal);
  const StatusOr<Reference> key = ParseReference(reference->Key());
  Require(key.ok() && key->Key() == reference->Key(), "a key finds itself: " + normal);
  Require(!ApiHost(reference->host).empty(), "there is a host to ask");
  if (IsLoopbackHost(reference->host)) {
    Require(reference->host.find_first_of("/@") == std::string::npos, "a host is only a host");
  }
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::images::fuzz::Run(husk::images::fuzz::AsText(data, size));
  return 0;
}
