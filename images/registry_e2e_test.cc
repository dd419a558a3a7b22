// Pulls from Debian's docker-registry, and looks at the result with fsck.erofs and by a kernel mount.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/xattr.h>

#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <stop_token>
#include <thread>

#include "agent/common/context.h"
#include "agent/common/subprocess.h"
#include "images/image_service.h"
#include "images/testing/disk_check.h"
#include "images/text.h"

namespace husk::images {
namespace {

using testing::TemporaryDirectory;

constexpr auto kGenerous = std::chrono::minutes(2);

std::uint16_t FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  EXPECT_EQ(bind(fd.get(), generic, length), 0);
  EXPECT_EQ(getsockname(fd.get(), generic, &length), 0);
  return ntohs(address.sin_port);
}

bool Answers(std::uint16_t port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

// docker-registry on a free loopback port, its storage below `directory`, until this goes.
class RunningRegistry {
 public:
  explicit RunningRegistry(const std::string& directory) : port_(FreePort()) {
    const std::string config = directory + "/registry.yml";
    std::ofstream(config) << "version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: " << directory
                          << "/registry}\nhttp: {addr: \"127.0.0.1:" << port_ << "\"}\n";
    const Context context = Context::Background().WithStopToken(stop_.get_token());
    thread_ = std::jthread([context, config] {
      static_cast<void>(RunSubprocess(context, {.argv = {"/usr/bin/docker-registry", "serve", config}}));
    });
    const auto deadline = Context::Clock::now() + kGenerous;
    while (!Answers(port_) && Context::Clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  ~RunningRegistry() { stop_.request_stop(); }
  RunningRegistry(const RunningRegistry&) = delete;
  RunningRegistry& operator=(const RunningRegistry&) = delete;

  [[nodiscard]] std::string host() const { return Concat("127.0.0.1:", port_); }

 private:
  const std::uint16_t port_;
  std::stop_source stop_;
  std::jthread thread_;
};

struct Pushed {
  std::set<std::string> tree;
  std::string digest;
  std::string index;
};

Pushed Push(const RunningRegistry& registry) {
  const auto output =
      testing::RunTool({"/usr/bin/python3", HUSK_PUSH_IMAGE, "http://" + registry.host(), "a/box", "1"});
  EXPECT_TRUE(output.ok()) << output.status();
  Pushed pushed;
  std::stringstream lines(output.value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('/')) pushed.tree.insert(line);
    if (line.starts_with("digest ")) pushed.digest = line.substr(7);
    if (line.starts_with("index ")) pushed.index = line.substr(6);
  }
  return pushed;
}

std::string Difference(const std::set<std::string>& expected, const std::set<std::string>& actual) {
  std::string text;
  for (const std::string& line : expected) {
    if (!actual.contains(line)) text += "missing: " + line + "\n";
  }
  for (const std::string& line : actual) {
    if (!expected.contains(line)) text += "too much: " + line + "\n";
  }
  return text;
}

// fsck.erofs extracts a file with several names several times, and loses setuid by changing the owner last.
std::set<std::string> AsExtracted(const std::set<std::string>& lines) {
  std::set<std::string> result;
  for (const std::string& line : lines) {
    std::stringstream fields(line);
    std::string kept;
    std::string field;
    for (int i = 0; fields >> field; ++i) {
      constexpr int kModeField = 2;
      constexpr int kLinksField = 6;
      if (i == kModeField && field.size() == 4) field.erase(0, 1);
      if (i != kLinksField) kept += field + " ";
    }
    result.insert(kept);
  }
  return result;
}

TEST(ImagesRegistryE2e, PullsByTagAndByDigest) {
  const TemporaryDirectory directory;
  const RunningRegistry registry(directory.path());
  const Pushed pushed = Push(registry);
  ASSERT_FALSE(pushed.tree.empty());
  const std::string name = registry.host() + "/a/box";
  auto service = NewImageService({.directory = directory.path() + "/images"});
  ASSERT_TRUE(service.ok()) << service.status();
  const Context context = Context::Background().WithTimeout(kGenerous);

  const auto by_tag = (*service)->Pull(context, name + ":1", {}, nullptr);
  ASSERT_TRUE(by_tag.ok()) << by_tag.status();
  EXPECT_EQ(by_tag->repository_tags, std::vector<std::string>{name + ":1"});
  EXPECT_EQ(by_tag->repository_digests, std::vector<std::string>{name + "@" + pushed.digest});
  EXPECT_EQ(by_tag->run.user, "1000:1000");
  EXPECT_EQ(by_tag->run.stop_signal, "SIGQUIT");
  const auto by_digest = (*service)->Pull(context, name + "@" + pushed.digest, {}, nullptr);
  ASSERT_TRUE(by_digest.ok()) << by_digest.status();
  EXPECT_EQ(by_digest->id, by_tag->id);
  const auto by_index = (*service)->Pull(context, name + ":1-index", {}, nullptr);
  ASSERT_TRUE(by_index.ok()) << by_index.status();
  EXPECT_EQ(by_index->id, by_tag->id);
  EXPECT_EQ(by_index->repository_digests.size(), 2U);

  const auto lease = (*service)->Acquire(name + "@" + pushed.index);
  ASSERT_TRUE(lease.ok()) << lease.status();
  const std::string disk = directory.path() + "/disk";
  const Status concatenated = testing::Concatenate((*lease)->disk(), disk);
  ASSERT_TRUE(concatenated.ok()) << concatenated;
  const std::string extracted = directory.path() + "/extracted";
  const Status checked = testing::FsckAndExtract(disk, extracted);
  ASSERT_TRUE(checked.ok()) << checked;
  EXPECT_EQ(Difference(AsExtracted(pushed.tree), AsExtracted(testing::DescribeTree(extracted))), "");

  std::string reason;
  if (!testing::CanMountErofs(reason)) GTEST_SKIP() << "no kernel mount: " << reason;
  const std::string mounted = directory.path() + "/mounted";
  const testing::ErofsMount mount(disk, mounted);
  ASSERT_TRUE(mount.status().ok()) << mount.status();
  EXPECT_EQ(Difference(pushed.tree, testing::DescribeTree(mounted)), "");
  std::string value(16, '\0');
  value.resize(static_cast<std::size_t>(
      std::max<ssize_t>(0, getxattr((mounted + "/n\u00e4me").c_str(), "user.note", value.data(), value.size()))));
  EXPECT_EQ(value, "kept");
}

TEST(ImagesRegistryE2e, NamesWhatIsNotThere) {
  const TemporaryDirectory directory;
  const RunningRegistry registry(directory.path());
  auto service = NewImageService({.directory = directory.path() + "/images"});
  ASSERT_TRUE(service.ok()) << service.status();
  const auto pulled =
      (*service)->Pull(Context::Background().WithTimeout(kGenerous), registry.host() + "/nothing:1", {}, nullptr);
  EXPECT_EQ(pulled.status().code(), absl::StatusCode::kNotFound) << pulled.status();
  EXPECT_NE(pulled.status().message().find("/v2/nothing/manifests/1"), std::string::npos) << pulled.status();
}

}  // namespace
}  // namespace husk::images
