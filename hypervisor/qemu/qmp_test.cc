#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <fcntl.h>

#include <array>
#include <cstring>
#include <future>
#include <thread>

#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/qmp_client.h"
#include "hypervisor/qemu/qmp_codec.h"

namespace husk::hypervisor {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

StatusOr<std::vector<QmpMessage>> Decode(std::string_view bytes) {
  QmpDecoder decoder;
  std::vector<QmpMessage> messages;
  HUSK_RETURN_IF_ERROR(decoder.Feed(bytes, messages));
  return messages;
}

TEST(QmpCodecTest, TellsMessagesApart) {
  const auto messages = Decode(
      "{\"QMP\": {}}\r\n"
      "\n"
      "{\"return\": [1], \"id\": 7}\n"
      "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no\\u0007 lun\"}, \"id\": 8}\n"
      "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n");
  ASSERT_TRUE(messages.ok()) << messages.status();
  ASSERT_EQ(messages->size(), 4U);
  EXPECT_TRUE(std::holds_alternative<QmpGreeting>(messages->at(0)));
  EXPECT_EQ(std::get<QmpReply>(messages->at(1)).id, 7U);
  EXPECT_EQ(std::get<QmpReply>(messages->at(1)).result.value()[0], 1);
  const auto& error = std::get<QmpReply>(messages->at(2)).result.status();
  EXPECT_TRUE(absl::IsNotFound(error));
  EXPECT_EQ(error.message(), "no  lun");
  EXPECT_EQ(std::get<QmpEvent>(messages->at(3)).data["reason"], "guest-reset");
}

TEST(QmpCodecTest, TakesBytesAsTheyCome) {
  QmpDecoder decoder;
  std::vector<QmpMessage> messages;
  for (const char byte : std::string("{\"return\": {}, \"id\": 1}\n{\"event\": \"X\"}\n")) {
    ASSERT_TRUE(decoder.Feed(std::string_view(&byte, 1), messages).ok());
  }
  EXPECT_EQ(messages.size(), 2U);
}

TEST(QmpCodecTest, RefusesWhatIsNoQmp) {
  for (const char* line :
       {"garbage\n", "[]\n", "{}\n", "1\n", "{\"return\": 1}\n", "{\"return\": 1, \"id\": \"1\"}\n",
        "{\"return\": 1, \"id\": -1}\n", "{\"id\": 1}\n", "{\"error\": \"x\", \"id\": 1}\n", "{\"a\": \xff}\n"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Decode(line).status())) << line;
  }
  // Members of the wrong type where text is expected.
  EXPECT_TRUE(Decode("{\"event\": 1, \"data\": 2}\n").ok());
  EXPECT_TRUE(Decode("{\"error\": {\"class\": 1, \"desc\": []}, \"id\": 1}\n").ok());
}

TEST(QmpCodecTest, SurvivesDepth) {
  const std::string open(1 << 20, '[');
  const std::string close(1 << 20, ']');
  EXPECT_TRUE(absl::IsInvalidArgument(Decode(open + "\n").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Decode(open + close + "\n").status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(Decode("{\"event\": \"a\", \"data\": {\"b\": " + open + close + "}}\n").status()));
  // Brackets in text are no depth.
  EXPECT_TRUE(Decode("{\"event\": \"\\\"" + open + "\"}\n").ok());
}

TEST(QmpCodecTest, BoundsALine) {
  QmpDecoder decoder;
  std::vector<QmpMessage> messages;
  const std::string part(kMaximumQmpLine / 2, ' ');
  EXPECT_TRUE(decoder.Feed(part, messages).ok());
  EXPECT_TRUE(decoder.Feed(part, messages).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(decoder.Feed(" ", messages)));
}

TEST(QmpCodecTest, EncodesAnything) {
  EXPECT_EQ(EncodeQmpCommand(3, "query-status", nullptr), "{\"execute\":\"query-status\",\"id\":3}\n");
  EXPECT_EQ(EncodeQmpCommand(4, "x", {{"path", "a\n\xff"}}),
            "{\"arguments\":{\"path\":\"a\\n\xEF\xBF\xBD\"},\"execute\":\"x\",\"id\":4}\n");
  EXPECT_EQ(Printable(std::string(600, 'x') + "\n").size(), 512U);
}

// QEMU's end of the socket, played by the test.
class QmpClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> fds{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    ours_.Reset(fds[0]);
    qemu_.Reset(fds[1]);
  }

  void Say(const std::string& text) const {
    ASSERT_EQ(send(qemu_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  // One line; a descriptor that came along goes to `descriptor`.
  std::string Hear(UniqueFd* descriptor = nullptr) const {
    std::string line;
    while (!line.ends_with('\n')) {
      char byte = 0;
      iovec vector{.iov_base = &byte, .iov_len = 1};
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
      msghdr message{};
      message.msg_iov = &vector;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      if (recvmsg(qemu_.get(), &message, MSG_CMSG_CLOEXEC) != 1) break;
      line += byte;
      const cmsghdr* header = CMSG_FIRSTHDR(&message);
      if (header == nullptr || descriptor == nullptr) continue;
      int received = -1;
      std::memcpy(&received, CMSG_DATA(header), sizeof received);
      descriptor->Reset(received);
    }
    return line;
  }

  std::shared_ptr<QmpClient> Connect(QmpClient::EventHandler on_event = nullptr) {
    std::thread qemu([this] {
      Say("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n");
      EXPECT_EQ(Hear(), "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
      Say("{\"return\": {}, \"id\": 1}\n");
    });
    auto client = QmpClient::Connect(context_, io_thread_, std::move(ours_), std::move(on_event));
    qemu.join();
    EXPECT_TRUE(client.ok()) << client.status();
    return client.ok() ? *client : nullptr;
  }

  const Context context_ = Context::Background().WithTimeout(std::chrono::minutes(1));
  IoThread io_thread_;
  UniqueFd ours_;
  UniqueFd qemu_;
};

TEST_F(QmpClientTest, RunsCommandsOneAtATime) {
  const auto client = Connect();
  ASSERT_NE(client, nullptr);
  auto first = std::async(std::launch::async, [&] { return client->Execute(context_, "first"); });
  EXPECT_EQ(Hear(), "{\"execute\":\"first\",\"id\":2}\n");
  auto second = std::async(std::launch::async, [&] { return client->Execute(context_, "second", {{"a", 1}}); });
  Say("{\"event\": \"NOISE\"}\n");
  std::array<char, 1> nothing{};
  EXPECT_EQ(recv(qemu_.get(), nothing.data(), 1, MSG_DONTWAIT), -1);
  Say("{\"return\": \"one\", \"id\": 2}\n");
  EXPECT_EQ(Hear(), "{\"arguments\":{\"a\":1},\"execute\":\"second\",\"id\":3}\n");
  Say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"two\"}, \"id\": 3}\n");
  EXPECT_EQ(first.get().value(), "one");
  EXPECT_EQ(second.get().status(), absl::InternalError("QMP second: two"));
}

TEST_F(QmpClientTest, PassesADescriptor) {
  const auto client = Connect();
  ASSERT_NE(client, nullptr);
  std::array<int, 2> pipe_fds{};
  ASSERT_EQ(pipe2(pipe_fds.data(), O_CLOEXEC), 0);
  const UniqueFd read_end(pipe_fds[0]);
  auto reply = std::async(std::launch::async, [&] {
    return client->Execute(context_, "add-fd", {{"opaque", "x"}}, UniqueFd(pipe_fds[1]));
  });
  UniqueFd received;
  Hear(&received);
  Say("{\"return\": {\"fdset-id\": 0}, \"id\": 2}\n");
  ASSERT_TRUE(reply.get().ok());
  ASSERT_TRUE(received.valid());
  EXPECT_EQ(write(received.get(), "y", 1), 1);
  received.Reset();
  std::array<char, 2> buffer{};
  EXPECT_EQ(read(read_end.get(), buffer.data(), 1), 1);
  EXPECT_EQ(read(read_end.get(), buffer.data(), 1), 0) << "a copy is still open";
}

TEST_F(QmpClientTest, AnAbandonedCommandsReplyIsDropped) {
  const auto client = Connect();
  ASSERT_NE(client, nullptr);
  std::stop_source stop;
  auto first = std::async(std::launch::async,
                          [&] { return client->Execute(context_.WithStopToken(stop.get_token()), "first").status(); });
  Hear();
  stop.request_stop();
  EXPECT_TRUE(absl::IsCancelled(first.get()));
  auto second = std::async(std::launch::async, [&] { return client->Execute(context_, "second"); });
  Say("{\"return\": 1, \"id\": 2}\n");
  EXPECT_EQ(Hear(), "{\"execute\":\"second\",\"id\":3}\n");
  Say("{\"return\": 2, \"id\": 3}\n");
  EXPECT_EQ(second.get().value(), 2);
}

TEST_F(QmpClientTest, EventsReachThoseWhoExpectThem) {
  std::promise<std::string> seen;
  const auto client = Connect([&seen](const QmpEvent& event) {
    if (event.name == "LAST") seen.set_value(event.name);
  });
  ASSERT_NE(client, nullptr);
  const auto deleted = client->Expect([](const QmpEvent& event) { return event.name == "DEVICE_DELETED"; });
  const auto never = client->Expect([](const QmpEvent& event) { return event.name == "NEVER"; });
  Say("{\"event\": \"DEVICE_DELETED\", \"data\": {}}\n{\"event\": \"LAST\"}\n");
  EXPECT_TRUE(deleted->Wait(context_).ok());
  EXPECT_EQ(seen.get_future().get(), "LAST");
  qemu_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(never->Wait(context_)));
  EXPECT_TRUE(absl::IsUnavailable(client->Execute(context_, "late").status()));
}

TEST_F(QmpClientTest, GarbageBreaksTheConnection) {
  const auto client = Connect();
  ASSERT_NE(client, nullptr);
  auto reply = std::async(std::launch::async, [&] { return client->Execute(context_, "x").status(); });
  Hear();
  Say("}{\n");
  EXPECT_TRUE(absl::IsUnavailable(reply.get()));
  EXPECT_THAT(Hear(), IsEmpty()) << "our end is closed";
}

TEST_F(QmpClientTest, AReplyToNothingBreaksTheConnection) {
  const auto client = Connect();
  ASSERT_NE(client, nullptr);
  Say("{\"return\": {}, \"id\": 99}\n");
  EXPECT_THAT(Hear(), IsEmpty());
  EXPECT_THAT(std::string(client->status().message()), HasSubstr("a reply to no command"));
}

TEST_F(QmpClientTest, SilenceEndsWithTheContext) {
  const auto client =
      QmpClient::Connect(context_.WithTimeout(std::chrono::milliseconds(20)), io_thread_, std::move(ours_), nullptr);
  EXPECT_TRUE(absl::IsDeadlineExceeded(client.status()));
  EXPECT_THAT(Hear(), IsEmpty());
}

}  // namespace
}  // namespace husk::hypervisor
