#include "hypervisor/qemu/disk_stall.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <thread>

namespace husk::hypervisor {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(20);
constexpr auto kStopped = "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"action\": \"stop\", \"nospace\": true}}\n";
constexpr auto kReported = "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"action\": \"report\", \"nospace\": true}}\n";

// QEMU's end of the socket, played by the test.
class DiskStallTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> fds{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    qemu_.Reset(fds[1]);
    std::thread qemu([this] {
      Say("{\"QMP\": {}}\n");
      EXPECT_NE(Hear(), "");
      Say("{\"return\": {}, \"id\": 1}\n");
    });
    auto client = QmpClient::Connect(context_, io_thread_, UniqueFd(fds[0]),
                                     [stall = stall_](const QmpEvent& event) { stall->Handle(event); });
    qemu.join();
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *client;
    stall_->SetClient(client_);
  }

  void Say(const std::string& text) const {
    ASSERT_EQ(send(qemu_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  // One line.
  std::string Hear() const {
    std::string line;
    for (char byte = 0; byte != '\n' && recv(qemu_.get(), &byte, 1, 0) == 1;) line += byte;
    return line;
  }

  const Context context_ = Context::Background().WithTimeout(std::chrono::minutes(1));
  IoThread io_thread_;
  UniqueFd qemu_;
  std::shared_ptr<DiskStall> stall_ = std::make_shared<DiskStall>(io_thread_, "test", kInterval);
  std::shared_ptr<QmpClient> client_;
};

TEST_F(DiskStallTest, AStoppedVmIsAskedToGoOnUntilItDoes) {
  Say(kStopped);
  EXPECT_EQ(Hear(), "{\"execute\":\"cont\",\"id\":2}\n");
  // Still no space: QEMU tells so after each try.
  Say("{\"return\": {}, \"id\": 2}\n");
  Say(kStopped);
  EXPECT_EQ(Hear(), "{\"execute\":\"cont\",\"id\":3}\n");
  Say("{\"return\": {}, \"id\": 3}\n");
}

TEST_F(DiskStallTest, AVmThatIsFoundStoppedIsAskedToGoOn) {
  stall_->Begin();
  EXPECT_EQ(Hear(), "{\"execute\":\"cont\",\"id\":2}\n");
}

TEST_F(DiskStallTest, ErrorsThatTheGuestIsToldOfStopNothing) {
  Say(kReported);
  Say("{\"event\": \"STOP\"}\n");  // someone else's
  std::this_thread::sleep_for(5 * kInterval);
  // The next thing that QEMU hears is this, not "cont".
  std::thread caller([this] { EXPECT_TRUE(client_->Execute(context_, "query-status").ok()); });
  EXPECT_EQ(Hear(), "{\"execute\":\"query-status\",\"id\":2}\n");
  Say("{\"return\": {}, \"id\": 2}\n");
  caller.join();
}

TEST_F(DiskStallTest, ABrokenConnectionIsLeftAlone) {
  Say(kStopped);
  qemu_.Reset();
  while (client_->status().ok()) std::this_thread::yield();
  std::this_thread::sleep_for(5 * kInterval);
  EXPECT_TRUE(absl::IsUnavailable(client_->Execute(context_, "query-status").status()));
}

}  // namespace
}  // namespace husk::hypervisor
