#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/client/test_guest.h"
#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class TtrpcClientTest : public ::testing::Test {
 protected:
  TtrpcClientTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-client-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    guest_ = std::make_unique<TestGuest>(directory_ + "/agent.sock");
    client_ = connector_->Connect(guest_->path());
  }
  ~TtrpcClientTest() override {
    client_.reset();
    guest_.reset();
    std::filesystem::remove_all(directory_);
  }

  static v1::StartContainerRequest Starting(const std::string& id) {
    v1::StartContainerRequest request;
    request.set_container_id(id);
    return request;
  }
  // Answers StartContainer of "42" with pid 42.
  static void AnswerPid(TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    v1::StartContainerRequest start;
    EXPECT_TRUE(start.ParseFromString(request.payload()));
    v1::StartContainerResponse response;
    response.set_pid(static_cast<std::uint32_t>(std::stoul(start.container_id())));
    peer.Answer(stream, response.SerializeAsString());
  }
  // The first connection gets `bytes` for an answer to its first call; later ones behave. The call must succeed.
  void ExpectRecoveryFrom(const std::function<void(TestGuest::Peer&, std::uint32_t stream)>& misbehave) {
    guest_->handler = [this, misbehave](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
      if (guest_->connections() == 1) {
        misbehave(peer, stream);
      } else {
        AnswerPid(peer, stream, request);
      }
    };
    guest_->Start();
    const auto started = client_->StartContainer(context_, Starting("42"));
    ASSERT_TRUE(started.ok()) << started.status();
    EXPECT_EQ(started->pid(), 42U);
    EXPECT_EQ(guest_->connections(), 2);
  }

  const Context context_ = Context::Background("test").WithTimeout(seconds(60));
  std::string directory_;
  const std::unique_ptr<AgentConnector> connector_ = NewTtrpcConnector();
  std::unique_ptr<TestGuest> guest_;
  std::unique_ptr<AgentClient> client_;
};

TEST_F(TtrpcClientTest, CallsAndItsErrors) {
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    if (request.method() == "Hello") return peer.Answer(stream, TestGuest::HelloPayload());
    EXPECT_GT(request.timeout_nano(), 0);
    peer.Fail(stream, request.method() == "Exec" ? 5 : 99, "crun:\n\x1b[31mno\x7f");
  };
  guest_->Start();
  EXPECT_EQ(client_->Hello(context_)->guest_boot_id(), "test");
  const Status missing = client_->Exec(context_, {}).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("the guest's agent: Exec: crun:  [31mno "));
  EXPECT_TRUE(absl::IsUnknown(client_->Shutdown(context_)));
  EXPECT_EQ(guest_->connections(), 1);
}

TEST_F(TtrpcClientTest, ARequestThatFitsInNoFrameIsRefused) {
  v1::WriteStdinRequest request;
  request.set_data(std::string(std::size_t{4} << 20, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(client_->WriteStdin(context_, request).status()));
}

TEST_F(TtrpcClientTest, LongSocketPaths) {
  std::string directory = directory_;
  while (directory.size() < 300) {
    directory += "/" + std::string(40, 'd');
    ASSERT_EQ(mkdir(directory.c_str(), 0700), 0);
  }
  TestGuest far(directory + "/agent.sock");
  far.Start();
  EXPECT_TRUE(connector_->Connect(far.path())->Hello(context_).ok());
  const auto bad = connector_->Connect(directory + "/" + std::string(120, 's'));
  EXPECT_FALSE(bad->Hello(context_).ok());
}

TEST_F(TtrpcClientTest, WaitsForASocketThatIsNotThereYet) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(client_->Hello(context_.WithTimeout(milliseconds(50))).status()));
  std::thread starter([&] {
    std::this_thread::sleep_for(milliseconds(50));
    guest_->Start();
  });
  EXPECT_TRUE(client_->Hello(context_).ok());
  starter.join();
}

TEST_F(TtrpcClientTest, OpensAgainUntilTheGuestHasBooted) {
  guest_->ignored_openings = 3;
  guest_->Start();
  EXPECT_TRUE(client_->Hello(context_).ok());
  EXPECT_GE(guest_->openings(), 4);
  EXPECT_EQ(guest_->connections(), 1);
}

// A guest that boots reads all openings at once and answers all: only the last answer counts.
TEST_F(TtrpcClientTest, SeveralEchoesAtOnce) {
  guest_->late_openings = 4;
  guest_->Start();
  EXPECT_TRUE(client_->Hello(context_).ok());
  EXPECT_EQ(guest_->connections(), 1);
}

TEST_F(TtrpcClientTest, StaleBytesOfAnEarlierConnectionAreSkipped) {
  v1::RpcResponse old;
  old.set_payload("old");
  const std::string frame =
      ttrpc::Encode({.stream_id = 3, .type = ttrpc::MessageType::kResponse, .payload = old.SerializeAsString()});
  guest_->stale_bytes = frame.substr(4) + std::string(kChannelMarker) + std::string(16, 'n') + frame +
                        std::string(300'000, '\xff') + std::string(kChannelMarker.substr(0, 9));
  guest_->handler = AnswerPid;
  guest_->Start();
  EXPECT_EQ(client_->StartContainer(context_, Starting("7"))->pid(), 7U);
}

TEST_F(TtrpcClientTest, ACallInFlightIsRepeatedWhenTheChannelBreaks) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t) { peer.Close(); });
}

TEST_F(TtrpcClientTest, AGT01_AFrameOfFourGigabytesEndsTheConnection) {
  ExpectRecoveryFrom(
      [](TestGuest::Peer& peer, std::uint32_t) { peer.Send("\xff\xff\xff\xff\x01\x01\x01\x01\x02\x02"); });
}

TEST_F(TtrpcClientTest, AGT01_ACutFrameAndItsEnd) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t) {
    peer.Send(std::string("\x00\x00\x10\x00", 4));
    peer.Close();
  });
}

TEST_F(TtrpcClientTest, AGT01_AMillionStreams) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t) {
    for (std::uint32_t stream = 1; stream < 2'000'000 && !peer.closed(); stream += 2) {
      peer.Send(ttrpc::Encode({.stream_id = stream + 100, .type = ttrpc::MessageType::kResponse}));
    }
  });
}

TEST_F(TtrpcClientTest, AGT01_WhatIsNoProtobufEndsTheConnection) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t stream) {
    peer.Send(ttrpc::Encode({.stream_id = stream, .type = ttrpc::MessageType::kResponse, .payload = "\xff\xff\xff"}));
  });
}

TEST_F(TtrpcClientTest, AGT01_ARequestFromTheGuestEndsTheConnection) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t stream) {
    peer.Send(ttrpc::Encode({.stream_id = stream, .type = ttrpc::MessageType::kRequest}));
  });
}

TEST_F(TtrpcClientTest, AGT02_AnUnknownStreamEndsTheConnection) {
  ExpectRecoveryFrom([](TestGuest::Peer& peer, std::uint32_t stream) { peer.Answer(stream + 2, ""); });
}

TEST_F(TtrpcClientTest, AGT02_AnAnswerThatComesTwiceEndsTheConnection) {
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    AnswerPid(peer, stream, request);
    AnswerPid(peer, stream, request);
  };
  guest_->Start();
  for (const std::string id : {"1", "2", "3"}) {
    const auto started = client_->StartContainer(context_, Starting(id));
    ASSERT_TRUE(started.ok()) << started.status();
    EXPECT_EQ(std::to_string(started->pid()), id);
  }
  EXPECT_GE(guest_->connections(), 2);
}

TEST_F(TtrpcClientTest, AGT02_AResponseOfAnotherTypeFailsItsCallOnly) {
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    peer.Answer(stream, request.method() == "Poll" ? "\xff\xff\xff" : "");
  };
  guest_->Start();
  const Status status = client_->Poll(context_, {}).status();
  EXPECT_TRUE(absl::IsInternal(status)) << status;
  EXPECT_TRUE(client_->StartContainer(context_, Starting("1")).ok());
}

TEST_F(TtrpcClientTest, AGT05_SilenceEndsWithTheContext) {
  guest_->handler = [](TestGuest::Peer&, std::uint32_t, const v1::RpcRequest&) {};
  guest_->Start();
  EXPECT_TRUE(absl::IsDeadlineExceeded(client_->Poll(context_.WithTimeout(milliseconds(300)), {}).status()));
}

TEST_F(TtrpcClientTest, AGT05_AGuestThatNeverOpens) {
  guest_->ignored_openings = 1'000'000;
  guest_->Start();
  const Status status = client_->Hello(context_.WithTimeout(milliseconds(400))).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has not answered"));
}

TEST_F(TtrpcClientTest, AGT05_OneByteAtATime) {
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest&) {
    v1::StartContainerResponse response;
    response.set_pid(9);
    v1::RpcResponse wrapped;
    wrapped.set_payload(response.SerializeAsString());
    for (const char byte : ttrpc::Encode(
             {.stream_id = stream, .type = ttrpc::MessageType::kResponse, .payload = wrapped.SerializeAsString()})) {
      peer.Send({&byte, 1});
      std::this_thread::sleep_for(milliseconds(5));
    }
  };
  guest_->Start();
  EXPECT_EQ(client_->StartContainer(context_, Starting("9"))->pid(), 9U);
}

TEST_F(TtrpcClientTest, AGT05_APortThatClosesAndOpensAllTheTime) {
  guest_->handler = [asked = 0](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) mutable {
    if (++asked % 4 == 0) {
      AnswerPid(peer, stream, request);
    } else {
      peer.Close();
    }
  };
  guest_->Start();
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(client_->StartContainer(context_, Starting(std::to_string(i)))->pid(), static_cast<unsigned>(i));
  }
}

TEST_F(TtrpcClientTest, AnotherProtocolVersionIsNamed) {
  guest_->answers_hello = false;
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest&) {
    v1::HelloResponse hello;
    hello.set_protocol_version(7);
    peer.Answer(stream, hello.SerializeAsString());
  };
  guest_->Start();
  const Status status = client_->Hello(context_.WithTimeout(milliseconds(500))).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  // Between two attempts the trouble is that of the present one.
  EXPECT_THAT(std::string(status.message()), ::testing::AnyOf(HasSubstr("version 7"), HasSubstr("not answered")));
}

TEST_F(TtrpcClientTest, CancellingReturnsAtOnceAndTheLateAnswerIsDropped) {
  std::stop_source stop;
  // The guest may still be in its handler when the last answer has come: it owns what it uses.
  guest_->handler = [stop, held = std::vector<std::uint32_t>()](TestGuest::Peer& peer, std::uint32_t stream,
                                                                const v1::RpcRequest& request) mutable {
    if (request.method() == "Poll") {
      held.push_back(stream);
      stop.request_stop();
      return;
    }
    for (const std::uint32_t late : held) peer.Answer(late, "");
    held.clear();
    AnswerPid(peer, stream, request);
  };
  guest_->Start();
  EXPECT_TRUE(absl::IsCancelled(client_->Poll(context_.WithStopToken(stop.get_token()), {}).status()));
  EXPECT_EQ(client_->StartContainer(context_, Starting("5"))->pid(), 5U);
  EXPECT_EQ(client_->StartContainer(context_, Starting("6"))->pid(), 6U);
  EXPECT_EQ(guest_->connections(), 1);
}

// Calls that were given up hold no more than a bounded place: the connection is renewed and others go through.
TEST_F(TtrpcClientTest, AGT05_UnansweredCallsDoNotFillTheChannel) {
  guest_->handler = [](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    if (request.method() != "Poll") AnswerPid(peer, stream, request);
  };
  guest_->Start();
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> callers;
    callers.reserve(100);
    for (int i = 0; i < 100; ++i) {
      callers.emplace_back([&] { EXPECT_FALSE(client_->Poll(context_.WithTimeout(milliseconds(200)), {}).ok()); });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(client_->StartContainer(context_, Starting("5"))->pid(), 5U);
  }
}

TEST_F(TtrpcClientTest, ThousandCallsAtOnce) {
  guest_->handler = AnswerPid;
  guest_->Start();
  std::vector<std::thread> callers;
  callers.reserve(1000);
  for (unsigned i = 0; i < 1000; ++i) {
    callers.emplace_back([&, i] {
      const auto started = client_->StartContainer(context_, Starting(std::to_string(i)));
      EXPECT_TRUE(started.ok()) << started.status();
      if (started.ok()) {
        EXPECT_EQ(started->pid(), i);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(guest_->connections(), 1);
}

// One request in 256 would end with the marker's first byte by chance of the mask, and the guest would wait for more.
TEST_F(TtrpcClientTest, NoRequestEndsAsTheMarkerBegins) {
  guest_->handler = AnswerPid;
  guest_->Start();
  for (unsigned i = 0; i < 3000; ++i) {
    const auto started = client_->StartContainer(context_, Starting(std::to_string(i)));
    ASSERT_TRUE(started.ok()) << i << ": " << started.status();
    ASSERT_EQ(started->pid(), i);
  }
  EXPECT_EQ(guest_->connections(), 1);
}

TEST_F(TtrpcClientTest, AVmThatIsGoneIsUnavailable) {
  for (const bool remove_socket : {true, false}) {
    guest_->Start();
    ASSERT_TRUE(client_->Hello(context_).ok());
    guest_->Stop(remove_socket);
    const Status status = client_->Hello(context_).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  }
  // It may come back, as the next process on the same path.
  guest_->Start();
  EXPECT_TRUE(client_->Hello(context_).ok());
}

TEST_F(TtrpcClientTest, ACallInFlightLearnsThatTheVmDied) {
  std::atomic<bool> asked = false;
  guest_->handler = [&](TestGuest::Peer&, std::uint32_t, const v1::RpcRequest&) { asked = true; };
  guest_->Start();
  std::thread killer([&] {
    while (!asked) std::this_thread::sleep_for(milliseconds(1));
    guest_->Stop(true);
  });
  EXPECT_TRUE(absl::IsUnavailable(client_->Poll(context_, {}).status()));
  killer.join();
}

TEST_F(TtrpcClientTest, CloseEndsCallsInFlightAndLaterOnes) {
  std::atomic<bool> asked = false;
  guest_->handler = [&](TestGuest::Peer&, std::uint32_t, const v1::RpcRequest&) { asked = true; };
  guest_->Start();
  std::thread closer([&] {
    while (!asked) std::this_thread::sleep_for(milliseconds(1));
    client_->Close();
  });
  EXPECT_TRUE(absl::IsUnavailable(client_->Poll(context_, {}).status()));
  closer.join();
  EXPECT_TRUE(absl::IsUnavailable(client_->Hello(context_).status()));
}

}  // namespace
}  // namespace husk::agent
