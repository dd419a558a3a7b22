#include "hypervisor/qemu/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>

#include "hypervisor/qemu/accelerator.h"
#include "hypervisor/qemu/file_server.h"
#include "hypervisor/qemu/launcher/plan.h"
#include "hypervisor/qemu/qemu_hypervisor.h"
#include "hypervisor/qemu/runtime_files.h"
#include "hypervisor/qemu/share_operations.h"

namespace husk::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(IdentityTest, Parses) {
  const auto identity = ParseIdentity("pid=42\nstart_time=1234567\nboot_id=abc-def\n");
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->process.pid, 42);
  EXPECT_EQ(identity->process.start_time, 1234567U);
  EXPECT_EQ(identity->boot_id, "abc-def");
}

TEST(IdentityTest, RefusesTornAndForgedFiles) {
  for (const char* text : {"", "pid=42", "pid=42\nstart_time=1\n", "pid=0\nstart_time=1\nboot_id=a\n",
                           "pid=-1\nstart_time=1\nboot_id=a\n", "pid=1x\nstart_time=1\nboot_id=a\n",
                           "pid=99999999999\nstart_time=1\nboot_id=a\n", "pid=1\nstart_time=\nboot_id=a\n",
                           "pid=1\nstart_time=1\nboot_id=\n", "pid=1\nstart_time=1\nboot_id=a\nmore\n"}) {
    EXPECT_FALSE(ParseIdentity(text).ok()) << text;
  }
}

TEST(IdentityTest, StartTimeIsFoundBehindAnyName) {
  const std::string rest = " S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1\n";
  EXPECT_EQ(ParseStartTime("5 (qemu)" + rest).value(), 777U);
  EXPECT_EQ(ParseStartTime("5 (a) b) (c 1 2)" + rest).value(), 777U);
  EXPECT_FALSE(ParseStartTime("5 (qemu) S 1 1").ok());
  EXPECT_FALSE(ParseStartTime("").ok());
}

TEST(ProcessTest, DescribesAnEnd) {
  EXPECT_EQ(DescribeExit("QEMU", CLD_KILLED, SIGKILL, "words", "hint"), "killed by signal 9 (Killed)");
  EXPECT_EQ(DescribeExit("QEMU", CLD_DUMPED, SIGABRT, "qemu: assertion failed", ""),
            "killed by signal 6 (Aborted): qemu: assertion failed");
  EXPECT_EQ(DescribeExit("QEMU", CLD_KILLED, SIGSEGV, "", "hint"), "killed by signal 11 (Segmentation fault)");
  EXPECT_EQ(DescribeExit("QEMU", CLD_EXITED, 1, "qemu: no memory", ""), "qemu: no memory");
  EXPECT_EQ(DescribeExit("QEMU", CLD_EXITED, 0, "a warning", "the VM shut down: guest-reset"),
            "the VM shut down: guest-reset");
  EXPECT_EQ(DescribeExit("QEMU", CLD_EXITED, 0, "a warning", ""), "QEMU ended with exit code 0");
  EXPECT_EQ(DescribeExit("QEMU", 0, 0, "words", ""), "words");
  EXPECT_EQ(DescribeExit("virtiofsd", 0, 0, "", ""),
            "virtiofsd crashed or was killed; how is not known, for an earlier huskd had started it");
  EXPECT_EQ(LastWords("first\nsecond\x1b[0m\n\n"), "second [0m");
  EXPECT_EQ(LastWords(""), "");
  EXPECT_EQ(LastWords("qemu: no memory\nqemu: -device x: warning: no THP\n"), "qemu: no memory");
  EXPECT_EQ(LastWords("qemu: -device x: warning: no THP\n"), "");
}

TEST(ProcessTest, KnowsAProcessFromALaterOneWithItsPid) {
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_TRUE(absl::IsNotFound(OpenProcess(ProcessIdentity{.pid = child, .start_time = 1}).status()));
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "somebody else's child was killed";
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST(LaunchPlanTest, SurvivesTheCommandLine) {
  const launcher::Plan plan{.state_directory = 3,
                            .go = 4,
                            .new_network_namespace = true,
                            .cgroup_procs = {5, 6},
                            .user = 1000,
                            .group = 1001,
                            .supplementary_groups = {107},
                            .binds = {{.source = "/a:b", .target = "/guest/kernel"}},
                            .keep = {7},
                            .command = {"/usr/bin/qemu", "--", "-x"}};
  launcher::Plan parsed;
  std::string error;
  ASSERT_TRUE(launcher::ParsePlan(launcher::PlanArguments("launcher", plan), parsed, error)) << error;
  EXPECT_EQ(parsed.state_directory, 3);
  EXPECT_EQ(parsed.go, 4);
  EXPECT_TRUE(parsed.new_network_namespace);
  EXPECT_THAT(parsed.cgroup_procs, ElementsAre(5, 6));
  EXPECT_EQ(parsed.user, 1000U);
  EXPECT_EQ(parsed.group, 1001U);
  EXPECT_THAT(parsed.supplementary_groups, ElementsAre(107));
  ASSERT_EQ(parsed.binds.size(), 1U);
  EXPECT_EQ(parsed.binds[0].source, "/a:b");
  EXPECT_EQ(parsed.binds[0].target, "/guest/kernel");
  EXPECT_THAT(parsed.keep, ElementsAre(7));
  EXPECT_THAT(parsed.command, ElementsAre("/usr/bin/qemu", "--", "-x"));
}

TEST(LaunchPlanTest, AFileServerHasAShareAndNoUser) {
  const launcher::Plan plan{.state_directory = 3,
                            .go = 4,
                            .new_network_namespace = true,
                            .share = 5,
                            .share_read_only = true,
                            .share_alone = true,
                            .keep = {6},
                            .command = {"/virtiofsd"}};
  launcher::Plan parsed;
  std::string error;
  ASSERT_TRUE(launcher::ParsePlan(launcher::PlanArguments("launcher", plan), parsed, error)) << error;
  EXPECT_EQ(parsed.share, 5);
  EXPECT_TRUE(parsed.share_read_only);
  EXPECT_TRUE(parsed.share_alone);
  EXPECT_EQ(parsed.user, 0U);
  for (const char* bad : {"--user=1", "--group=1", "--supplementary-group=1", "--share=2", "--share-read-only=no"}) {
    auto arguments = launcher::PlanArguments("launcher", plan);
    arguments.insert(arguments.begin() + 1, bad);
    launcher::Plan refused;
    EXPECT_FALSE(launcher::ParsePlan(arguments, refused, error)) << bad;
  }
}

TEST(ShareTest, NamesSayWhereItIs) {
  std::uint32_t port = 0;
  std::string tag;
  EXPECT_TRUE(ParseShareName(ShareName(15, "v0a-b"), port, tag));
  EXPECT_EQ(port, 15U);
  EXPECT_EQ(tag, "v0a-b");
  for (const char* name :
       {"share", "share-port3", "share16-v", "share1-", "share-1-v", "share1-a/b", "lun1", "shareX-v"}) {
    EXPECT_FALSE(ParseShareName(name, port, tag)) << name;
  }
  EXPECT_TRUE(IsShareTag(std::string(36, 'x')));
  EXPECT_FALSE(IsShareTag(std::string(37, 'x')));
  EXPECT_FALSE(IsShareTag("../x"));
}

TEST(LaunchPlanTest, RefusesAnythingLessThanWhole) {
  const std::vector<std::string> good = {"launcher", "--state-directory=3", "--go=4", "--network-namespace=new",
                                         "--user=1", "--group=1",           "--",     "/qemu"};
  launcher::Plan plan;
  std::string error;
  EXPECT_TRUE(launcher::ParsePlan(good, plan, error)) << error;
  for (std::size_t missing = 1; missing < good.size(); ++missing) {
    auto arguments = good;
    arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(missing));
    launcher::Plan partial;
    EXPECT_FALSE(launcher::ParsePlan(arguments, partial, error)) << "without " << good[missing];
  }
  for (const char* bad : {"--user=0", "--user=x", "--group=0", "--keep=2", "--keep=-1", "--bind=relative:/a",
                          "--bind=/../a:/a", "--unknown=1", "--user", "--network-namespace=9"}) {
    auto arguments = good;
    arguments.insert(arguments.end() - 2, bad);
    launcher::Plan partial;
    EXPECT_FALSE(launcher::ParsePlan(arguments, partial, error)) << bad;
  }
}

TEST(RuntimeFilesTest, ReadsTheLoadersList) {
  EXPECT_THAT(ParseLoaderList("\tlinux-vdso.so.1 (0x00007fff)\n"
                              "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f08)\n"
                              "\t/lib64/ld-linux-x86-64.so.2 (0x00007f09)\n"),
              ElementsAre("/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"));
}

TEST(AcceleratorTest, FindsTheFlag) {
  EXPECT_TRUE(HasVirtualisationFlag("flags\t\t: fpu vmx sse"));
  EXPECT_TRUE(HasVirtualisationFlag("flags\t\t: fpu svm"));
  EXPECT_FALSE(HasVirtualisationFlag("flags\t\t: fpu svm_lock vmxoff"));
}

TEST(AcceleratorTest, AlwaysHasAReason) {
  const auto probe = ProbeAccelerator();
  EXPECT_THAT(probe.reason, HasSubstr("/dev/kvm"));
}

}  // namespace
}  // namespace husk::hypervisor
