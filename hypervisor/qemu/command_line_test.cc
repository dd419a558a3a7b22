#include "hypervisor/qemu/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "hypervisor/qemu/start.h"

namespace husk::hypervisor {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

CommandLineInput Small() {
  return {.qemu_binary = "/usr/bin/qemu",
          .id = "pod-1",
          .uuid = "8a6c0f2e-0000-4000-8000-000000000001",
          .vcpus = 1,
          .maximum_vcpus = 1,
          .memory_bytes = 128 * kMiB,
          .maximum_memory_bytes = 128 * kMiB,
          .qmp_descriptor = 5,
          .agent_descriptor = 6};
}

// The value that follows an option; empty if it is not there.
std::string ValueOf(const std::vector<std::string>& command_line, const std::string& option) {
  const auto found = std::find(command_line.begin(), command_line.end(), option);
  return found == command_line.end() || found + 1 == command_line.end() ? "" : *(found + 1);
}

TEST(CommandLineTest, TheSmallestVm) {
  auto command_line = BuildCommandLine(Small());
  const auto is_port = [](const std::string& argument) { return argument.starts_with("pcie-root-port,"); };
  const auto first_port = std::find_if(command_line.begin(), command_line.end(), is_port);
  ASSERT_EQ(std::count_if(command_line.begin(), command_line.end(), is_port), kSharePorts);
  EXPECT_EQ(*(first_port + 2 * 9),
            "pcie-root-port,id=share-port9,bus=pcie.0,chassis=10,slot=10,multifunction=on,io-reserve=0,addr=0x19.1");
  command_line.erase(first_port - 1, first_port - 1 + 2 * std::ptrdiff_t{kSharePorts});
  EXPECT_THAT(
      command_line,
      ElementsAre(
          "/usr/bin/qemu", "-name", "guest=pod-1", "-uuid", "8a6c0f2e-0000-4000-8000-000000000001", "-nodefaults",
          "-no-user-config", "-display", "none", "-sandbox",
          "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-no-reboot", "-action",
          "panic=exit-failure", "-machine",
          "q35,usb=off,vmport=off,smbus=off,sata=off,graphics=off,i8042=off,dump-guest-core=off,memory-backend=boot",
          "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max,erms=off,fsrm=off", "-smp",
          "cpus=1,maxcpus=1,sockets=1,cores=1,threads=1", "-object",
          "memory-backend-memfd,id=boot,size=134217728,share=on,reserve=off,dump=off", "-m", "size=131072K", "-device",
          "virtio-balloon-pci,id=balloon,free-page-reporting=on,disable-legacy=on", "-device",
          "virtio-scsi-pci,id=scsi,disable-legacy=on", "-device",
          "virtio-serial-pci,id=serial,max_ports=2,disable-legacy=on", "-chardev",
          "socket,id=agent,fd=6,server=on,wait=off", "-device",
          "virtserialport,id=agent-port,bus=serial.0,chardev=agent,name=org.husk.agent", "-chardev",
          "socket,id=qmp,fd=5,server=on,wait=off", "-mon", "chardev=qmp,mode=control", "-chardev",
          "ringbuf,id=console,size=65536", "-serial", "chardev:console", "-object", "rng-builtin,id=random", "-device",
          "virtio-rng-pci,id=rng,rng=random,disable-legacy=on", "-device", "vmgenid,id=generation,guid=auto"));
}

TEST(CommandLineTest, RoomToGrow) {
  auto input = Small();
  input.maximum_vcpus = 8;
  input.maximum_memory_bytes = 1024 * kMiB;
  const auto command_line = BuildCommandLine(input);
  // docs/adr/0118: an emulated VM has them all, and its kernel begins with one.
  EXPECT_EQ(ValueOf(command_line, "-smp"), "cpus=8,maxcpus=8,sockets=8,cores=1,threads=1");
  input.kernel = "/guest/kernel";
  input.kernel_command_line = "a=b";
  EXPECT_EQ(ValueOf(BuildCommandLine(input), "-append"), "a=b maxcpus=1");
  input.accelerator = Accelerator::kKvm;
  EXPECT_EQ(ValueOf(BuildCommandLine(input), "-smp"), "cpus=1,maxcpus=8,sockets=8,cores=1,threads=1");
  EXPECT_EQ(ValueOf(BuildCommandLine(input), "-append"), "a=b");
  EXPECT_EQ(ValueOf(command_line, "-m"), "size=131072K,maxmem=1048576K");
  EXPECT_THAT(command_line, Contains("memory-backend-memfd,id=pluggable,size=939524096,share=on,reserve=off,dump=off"));
  EXPECT_THAT(command_line, Contains("virtio-mem-pci,id=memory,memdev=pluggable,requested-size=0,disable-legacy=on"));
}

TEST(CommandLineTest, KvmWithVhost) {
  auto input = Small();
  input.accelerator = Accelerator::kKvm;
  input.taps = {{.descriptor = 9, .vhost_descriptor = 10, .mac_address = "02:00:00:00:00:01"}};
  const auto command_line = BuildCommandLine(input);
  EXPECT_EQ(ValueOf(command_line, "-accel"), "kvm");
  EXPECT_EQ(ValueOf(command_line, "-cpu"), "host");
  EXPECT_EQ(ValueOf(command_line, "-netdev"), "tap,id=network0,fd=9,vhost=on,vhostfd=10");
  EXPECT_THAT(command_line, Contains("virtio-net-pci,id=nic0,netdev=network0,mac=02:00:00:00:00:01,romfile=,"
                                     "disable-legacy=on"));
}

TEST(CommandLineTest, ScratchIsLunZero) {
  auto input = Small();
  input.scratch = CommandLineScratch{.descriptor = 7, .length = 4096};
  const auto command_line = BuildCommandLine(input);
  EXPECT_EQ(ValueOf(command_line, "-add-fd"), "fd=7,set=1");
  EXPECT_EQ(ValueOf(command_line, "-blockdev"),
            R"({"discard":"unmap","driver":"raw","file":{"discard":"unmap","driver":"file",)"
            R"("filename":"/dev/fdset/1","read-only":false},"node-name":"lun0","read-only":false,"size":4096})");
  EXPECT_THAT(command_line, Contains(R"({"bus":"scsi.0","channel":0,"drive":"lun0","driver":"scsi-hd","id":"lun0",)"
                                     R"("lun":0,"scsi-id":0})"));
}

TEST(CommandLineTest, DirectKernelBoot) {
  auto input = Small();
  EXPECT_THAT(BuildCommandLine(input), Not(Contains("-append")));
  input.kernel = "/guest/kernel";
  input.initrd = "/guest/initrd";
  input.kernel_command_line = "console=ttyS0 a=b,c";
  const auto command_line = BuildCommandLine(input);
  EXPECT_EQ(ValueOf(command_line, "-kernel"), "/guest/kernel");
  EXPECT_EQ(ValueOf(command_line, "-initrd"), "/guest/initrd");
  EXPECT_EQ(ValueOf(command_line, "-append"), "console=ttyS0 a=b,c");
}

TEST(CheckConfigTest, NamesTheFieldThatIsWrong) {
  const auto good = [] {
    return VmConfig{.id = "a",
                    .vcpus = 1,
                    .maximum_vcpus = 2,
                    .memory_bytes = 64 * kMiB,
                    .maximum_memory_bytes = 128 * kMiB,
                    .user = 1,
                    .group = 1,
                    .state_directory = "/x"};
  };
  const auto message = [](const VmConfig& config) { return std::string(CheckConfig(config).message()); };
  EXPECT_TRUE(CheckConfig(good()).ok());
  auto config = good();
  config.id = "a,sandbox=off";
  EXPECT_THAT(message(config), HasSubstr("id"));
  config = good();
  config.user = 0;
  EXPECT_THAT(message(config), HasSubstr("user"));
  config = good();
  config.maximum_vcpus = 256;
  EXPECT_THAT(message(config), HasSubstr("maximum_vcpus"));
  config = good();
  config.memory_bytes = 3 * kMiB;
  EXPECT_THAT(message(config), HasSubstr("memory_bytes"));
  config = good();
  config.maximum_memory_bytes = 32 * kMiB;
  EXPECT_THAT(message(config), HasSubstr("maximum_memory_bytes"));
  config = good();
  config.network_devices.push_back({.mac_address = "02:00:00:00:00:0,"});
  EXPECT_THAT(message(config), HasSubstr("mac_address"));
  config = good();
  config.network_devices.push_back({.mac_address = "02:00:00:00:00:00"});
  EXPECT_THAT(message(config), HasSubstr("tap"));
}

}  // namespace
}  // namespace husk::hypervisor
