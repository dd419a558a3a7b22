#include "cri/convert/sysctls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace husk::cri {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string Refusal(const std::string& name, const std::string& value = "1") {
  const Status checked = CheckSysctls({{name, value}}, "f");
  EXPECT_EQ(checked.code(), absl::StatusCode::kInvalidArgument) << name;
  return std::string(checked.message());
}

TEST(Sysctls, Cri02NamespacedOnesPass) {
  for (const char* name : {"kernel.shm_rmid_forced", "kernel.shmmax", "kernel.msgmax", "kernel.sem",
                           "fs.mqueue.msg_max", "net.core.somaxconn", "net/ipv4/ip_unprivileged_port_start",
                           "net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding", "kernel/sem"}) {
    EXPECT_TRUE(CheckSysctls({{name, "1"}}, "f").ok()) << name;
  }
  EXPECT_TRUE(CheckSysctls({{"net.ipv4.ping_group_range", "0\t2147483647"}}, "f").ok());
}

TEST(Sysctls, Cri02OthersAreRefusedByName) {
  for (const char* name : {"vm.swappiness", "kernel.panic", "kernel.core_pattern", "fs.file-max", "fs.mqueue", "net",
                           "kernel.sem.x", "kernel.shm.max", "user.max_pid_namespaces", "kernel.hostname"}) {
    EXPECT_EQ(Refusal(name), std::string("f[") + name + "]: not namespaced: it would be the node's, not the pod's");
  }
}

TEST(Sysctls, Cri02WhatIsNoNameIsRefused) {
  for (const char* name :
       {"", ".", "net..core", "net.", ".net.core", "net/../kernel/panic", "net.core.a+b", "net.a=b",
        "net.core/../../kernel.panic", "net.a b", "/net/core", "net.//.kernel", "net.core.\xc3\xa4"}) {
    EXPECT_THAT(Refusal(name), HasSubstr("not the name of a sysctl")) << name;
  }
  EXPECT_EQ(Refusal("net.\x1b\xff"), "f[net.\\x1b\\xff]: not the name of a sysctl");
  EXPECT_THAT(Refusal("net." + std::string(4096, 'a')), HasSubstr("longer than 253 bytes"));
}

TEST(Sysctls, Cri02ValuesAreALineOfText) {
  EXPECT_THAT(Refusal("net.core.somaxconn", "1\n2"), StartsWith("f[net.core.somaxconn]: "));
  EXPECT_THAT(Refusal("net.core.somaxconn", std::string("1\0", 2)), StartsWith("f[net.core.somaxconn]: "));
  EXPECT_THAT(Refusal("net.core.somaxconn", std::string(5000, '1')), HasSubstr("longer than 4095 bytes"));
}

}  // namespace
}  // namespace husk::cri
