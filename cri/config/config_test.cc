#include "cri/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cri/config/fields.h"

namespace husk::cri {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-config-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
    return file;
  }
  std::string operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

TEST(Config, TheDefaultsArePrintedAndReadBack) {
  const Config defaults;
  const std::string text = ConfigToYaml(defaults);
  Config changed;
  changed.vm.default_vcpus = 7;
  changed.lanes.fill({.workers = 1, .queue = 1});
  changed.network.plugin_directories = {"/x"};
  changed.pinned_images = {"registry.example/base/*"};
  changed.cdi_directories.clear();
  changed.vm.allowed_annotations = {"husk.dev/default-memory"};
  ASSERT_TRUE(ApplyConfigText(text, "printed.yaml", false, &changed).ok()) << text;
  EXPECT_EQ(ConfigToYaml(changed), text);
  EXPECT_EQ(changed.vm.default_vcpus, 1U);
  EXPECT_TRUE(CheckConfig(defaults).ok());
}

TEST(Config, EveryKindOfValueIsRead) {
  Config config;
  const Status status = ApplyConfigText(
      "version: 1\n"
      "root: /data/husk\n"
      "listen: unix:///tmp/h.sock\n"
      "log: {level: debug}\n"
      "vm:\n"
      "  accelerator: tcg\n"
      "  default_memory: 512Mi\n"
      "  maximum_vcpus: 4\n"
      "  allowed_annotations: [husk.dev/default-memory, husk.dev/scratch-size]\n"
      "network:\n"
      "  cni_plugin_directories: [/a, /b]\n"
      "  default_subnet: 192.168.7.0/24\n"
      "  filter_sources: false\n"
      "cgroup: {driver: systemd, root: /machines}\n"
      "metrics: {address: '[::1]:9000'}\n"
      "lanes:\n"
      "  exec: {workers: 3, queue: 0}\n",
      "a.yaml", false, &config);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(config.root, "/data/husk");
  EXPECT_EQ(config.listen, "unix:///tmp/h.sock");
  EXPECT_EQ(config.log_level, "debug");
  EXPECT_EQ(config.vm.accelerator, AcceleratorChoice::kTcg);
  EXPECT_FALSE(config.network.filter_sources);
  EXPECT_EQ(config.vm.default_memory, std::uint64_t{512} << 20);
  EXPECT_EQ(config.vm.maximum_vcpus, 4U);
  EXPECT_THAT(config.vm.allowed_annotations, testing::ElementsAre("husk.dev/default-memory", "husk.dev/scratch-size"));
  EXPECT_THAT(config.network.plugin_directories, testing::ElementsAre("/a", "/b"));
  EXPECT_EQ(config.cgroup_driver, CgroupDriver::kSystemd);
  EXPECT_EQ(config.metrics_address, "[::1]:9000");
  EXPECT_EQ(config.lanes.at(static_cast<std::size_t>(LaneClass::kExec)).workers, 3U);
  EXPECT_EQ(config.lanes.at(static_cast<std::size_t>(LaneClass::kExec)).queue, 0U);
}

struct BadText {
  const char* text;
  const char* place;
  const char* words;
};

TEST(Config, ErrorsNameThePlaceAndWhatWouldBeRight) {
  const BadText cases[] = {
      {"root: /x\n", "f:1:1: ", "add \"version: 1\""},
      {"version: 2\n", "f:1:10: ", "version 1"},
      {"version: 1\nrot: /x\n", "f:2:1: ", "did you mean \"root\"?"},
      {"version: 1\nvm:\n  default_memry: 1Gi\n", "f:3:3: ", "did you mean \"vm.default_memory\"?"},
      {"version: 1\ndefault_memory: 1Gi\n", "f:2:1: ", "did you mean \"vm.default_memory\"?"},
      {"version: 1\nlanes: {vm: {wrkers: 1}}\n", "f:2:14: ", "did you mean \"lanes.vm.workers\"?"},
      {"version: 1\nentirely_different_thing: 1\n", "f:2:1: ", "unknown key \"entirely_different_thing\""},
      {"version: 1\nroot: relative\n", "f:2:7: ", "root: expected an absolute path"},
      {"version: 1\nroot: [/x]\n", "f:2:7: ", "expected a string"},
      {"version: 1\nvm: 3\n", "f:2:5: ", "expected keys and values below vm"},
      {"version: 1\nvm: {default_vcpus: 0}\n", "f:2:21: ", "a number from 1 to 1024, not \"0\""},
      {"version: 1\nvm: {default_vcpus: -1}\n", "f:2:21: ", "not \"-1\""},
      {"version: 1\nvm: {default_vcpus: two}\n", "f:2:21: ", "not \"two\""},
      {"version: 1\nvm: {default_vcpus: 99999999999999999999}\n", "f:2:21: ", "a number from 1 to 1024"},
      {"version: 1\nvm: {default_memory: 256Mb}\n", "f:2:22: ", "a size such as 256Mi"},
      {"version: 1\nvm: {default_memory: 1Mi}\n", "f:2:22: ", "at least 128Mi"},
      {"version: 1\nvm: {maximum_memory: 99999999Ti}\n", "f:2:22: ", "a size such as"},
      {"version: 1\nvm: {accelerator: hvf}\n", "f:2:19: ", "one of auto, kvm, tcg, not \"hvf\""},
      {"version: 1\nvm: {allowed_annotations: husk.dev/scratch-size}\n", "f:2:27: ", "a list of annotations of pods"},
      {"version: 1\nvm: {allowed_annotations: [husk.dev/scratch_size]}\n",
       "f:2:27: ", "vm.allowed_annotations: \"husk.dev/scratch_size\" is unknown; did you mean"},
      {"version: 1\ncdi: {directories: [cdi]}\n", "f:2:", "an absolute path"},
      {"version: 1\nimages: {registry_hosts: certs.d}\n", "f:2:26: ", "an absolute path"},
      {"version: 1\nnetwork: {cni_plugin_directories: /opt}\n", "f:2:35: ", "a list of absolute paths"},
      {"version: 1\nnetwork: {cni_plugin_directories: [opt]}\n", "f:2:35: ", "an absolute path"},
      {"version: 1\nimages: {pinned: app}\n", "f:2:18: ", "a list of image references"},
      {"version: 1\nimages: {pinned: [\"a b\"]}\n", "f:2:18: ", "an image reference, not \"a b\""},
      {"version: 1\nnetwork: {default_bridge: a-name-that-is-too-long}\n", "f:2:27: ", "at most 15 characters"},
      {"version: 1\nnetwork: {filter_sources: maybe}\n", "f:2:27: ", "one of true, false"},
      {"version: 1\nnetwork: {default_subnet: 10.88.0/16}\n", "f:2:27: ", "an IPv4 subnet"},
      {"version: 1\nnetwork: {default_subnet: 10.88.0.256/16}\n", "f:2:27: ", "an IPv4 subnet"},
      {"version: 1\nnetwork: {default_subnet: 10.88.0.0/31}\n", "f:2:27: ", "8 to 30 bits"},
      {"version: 1\nstreaming: {address: localhost:0}\n", "f:2:22: ", "streaming.address: expected IP:PORT"},
      {"version: 1\nstreaming: {address: \"127.0.0.1\"}\n", "f:2:22: ", "expected IP:PORT"},
      {"version: 1\nstreaming: {address: \"127.0.0.1:65536\"}\n", "f:2:22: ", "expected IP:PORT"},
      {"version: 1\nstreaming: {key: k.pem}\n", "f:2:18: ", "streaming.key: expected an absolute path"},
      {"version: 1\nmetrics: {address: \"localhost:9477\"}\n",
       "f:2:20: ", "metrics.address: expected an address and a port"},
      {"version: 1\nlisten: tcp://0.0.0.0:1\n", "f:2:9: ", "expected unix:///PATH"},
      {"version: 1\nroot: /a\nroot: /b\n", "f:3:1: ", "given twice"},
      {"version: 1\nvm: {kernel: \"/a\n", "f:", ""},
      {"version: 1\n\tvm: 1\n", "f:2:1: ", ""},
      {"- version\n", "f:1:1: ", "expected a mapping"},
      {"", "f:1:1: ", "version"},
  };
  for (const BadText& bad : cases) {
    Config config;
    const Status status = ApplyConfigText(bad.text, "f", false, &config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.text;
    EXPECT_THAT(std::string(status.message()), StartsWith(bad.place)) << bad.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.words)) << bad.text;
  }
}

TEST(Config, DropInsAreMergedInLexicalOrder) {
  const TemporaryDirectory directory;
  const std::string file = directory.Write("config.yaml", "version: 1\nroot: /main\nvm: {default_vcpus: 2}\n");
  directory.Write("conf.d/20-b.yaml", "root: /second\n");
  directory.Write("conf.d/10-a.yaml", "version: 1\nroot: /first\nstate: /first-state\n");
  directory.Write("conf.d/30-empty.yaml", "# nothing\n");
  directory.Write("conf.d/90-ignored.txt", "garbage: [");
  const StatusOr<Config> config = LoadConfig(file, true);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->root, "/second");
  EXPECT_EQ(config->state, "/first-state");
  EXPECT_EQ(config->vm.default_vcpus, 2U);

  directory.Write("conf.d/40-bad.yaml", "vm:\n  kernl: /x\n");
  const StatusOr<Config> bad = LoadConfig(file, true);
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("conf.d/40-bad.yaml:2:3: "));
}

TEST(Config, AMissingFileMeansTheDefaultsOnlyWhereAllowed) {
  const TemporaryDirectory directory;
  directory.Write("conf.d/a.yaml", "state: /elsewhere\n");
  const StatusOr<Config> config = LoadConfig(directory / "config.yaml", false);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->root, "/var/lib/husk");
  EXPECT_EQ(config->state, "/elsewhere");
  const StatusOr<Config> missing = LoadConfig(directory / "config.yaml", true);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("config.yaml: No such file"));
  const StatusOr<Config> not_a_file = LoadConfig(directory / "conf.d", true);
  EXPECT_EQ(not_a_file.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Config, KeysThatContradictEachOtherAreRefused) {
  const auto check = [](void (*change)(Config*)) {
    Config config;
    change(&config);
    return std::string(CheckConfig(config).message());
  };
  EXPECT_THAT(check([](Config* c) { c->vm.default_vcpus = 8, c->vm.maximum_vcpus = 4; }), HasSubstr("default_vcpus"));
  EXPECT_THAT(check([](Config* c) { c->vm.maximum_memory = std::uint64_t{128} << 20; }), HasSubstr("maximum_memory"));
  EXPECT_THAT(check([](Config* c) { c->vm.default_memory += 4096; }), HasSubstr("multiples of 2Mi"));
  EXPECT_THAT(check([](Config* c) { c->vm.scratch_size += 1; }), HasSubstr("multiple of 4Ki"));
  EXPECT_THAT(check([](Config* c) { c->vm.first_user = 0x7fffffff; }), HasSubstr("last user id"));
  EXPECT_THAT(check([](Config* c) { c->state = c->root; }), HasSubstr("different directories"));
  EXPECT_THAT(check([](Config* c) { c->listen = "unix:///" + std::string(200, 'x'); }), HasSubstr("107"));
}

TEST(Config, ByteSizes) {
  EXPECT_EQ(*ParseByteSize("256Mi"), std::uint64_t{256} << 20);
  EXPECT_EQ(*ParseByteSize("10M"), 10'000'000U);
  EXPECT_EQ(*ParseByteSize("4097"), 4097U);
  for (const char* bad : {"", "Mi", "-1", "1.5Gi", "1 Gi", "9223372036854775807Ki"}) {
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  }
  EXPECT_EQ(FormatByteSize(std::uint64_t{8} << 30), "8Gi");
  EXPECT_EQ(FormatByteSize(4097), "4097");
}

}  // namespace
}  // namespace husk::cri
