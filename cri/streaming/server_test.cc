#include "cri/streaming/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "cri/streaming/big_endian.h"
#include "cri/streaming/spdy_headers.h"

namespace husk::cri {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kPatience = 30'000;

// A blocking client of 127.0.0.1.
class Client {
 public:
  explicit Client(const std::string& address) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  }
  void Send(const std::string& bytes) const {
    EXPECT_EQ(send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Sends again and again, until nothing has got through for a moment.
  void Fill(const std::string& bytes) const {
    pollfd ready{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
    while (poll(&ready, 1, 1000) > 0) {
      if (send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) break;
    }
  }
  // Reads until `enough` says so or the server closes.
  template <typename Predicate>
  std::string ReadUntil(Predicate enough) {
    while (!enough(received_)) {
      pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, kPatience) <= 0) {
        ADD_FAILURE() << "nothing came; so far: " << received_;
        break;
      }
      std::string bytes(65536, '\0');
      const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), 0);
      if (count <= 0) break;
      received_.append(bytes, 0, static_cast<std::size_t>(count));
    }
    return received_;
  }
  std::string ReadUntilText(const std::string& text) {
    return ReadUntil([&](const std::string& bytes) { return bytes.find(text) != std::string::npos; });
  }
  std::string ReadToEnd() {
    return ReadUntil([](const std::string&) { return false; });
  }
  void Close() { socket_.Reset(); }
  [[nodiscard]] int descriptor() const { return socket_.get(); }

 private:
  UniqueFd socket_;
  std::string received_;
};

// What a SPDY client sends.
class SpdyClient {
 public:
  static std::string Head(const std::string& path, const std::string& protocol = "v4.channel.k8s.io") {
    return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: husk\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
                        "X-Stream-Protocol-Version: ", protocol, "\r\n\r\n");
  }
  std::string Open(std::uint64_t id, const std::string& type) { return Open(id, {{"streamtype", type}}); }
  std::string Open(std::uint64_t id, const WireHeaders& headers) {
    std::string payload;
    AppendBigEndian(id, 4, &payload);
    AppendBigEndian(0, 6, &payload);
    payload += headers_.Write(headers);
    std::string frame;
    AppendBigEndian(0x80030001, 4, &frame);
    AppendBigEndian(payload.size(), 4, &frame);
    return frame + payload;
  }
  static std::string Data(std::uint64_t id, const std::string& bytes, bool end = false) {
    std::string frame;
    AppendBigEndian(id, 4, &frame);
    AppendBigEndian(end ? 1 : 0, 1, &frame);
    AppendBigEndian(bytes.size(), 3, &frame);
    return frame + bytes;
  }

 private:
  SpdyHeaderWriter headers_;
};

std::string WebSocketHead(const std::string& path, const std::string& protocol) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: husk\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
                      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                      "Sec-WebSocket-Protocol: ", protocol, "\r\n\r\n");
}

// With a mask of zeros.
std::string WebSocketFrame(int opcode, const std::string& payload) {
  return std::string(1, static_cast<char>(0x80 | opcode)) + static_cast<char>(0x80 | payload.size()) +
         std::string(4, '\0') + payload;
}

class ServerTest : public ::testing::Test {
 protected:
  void Start(StreamOperation operation) {
    auto server = StreamingServer::Start(options_, std::move(operation), EchoPorts);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // The path of a URL for `request`.
  std::string Path(const StreamRequest& request) {
    const auto url = server_->UrlFor(request);
    EXPECT_TRUE(url.ok()) << url.status();
    const std::string begin = "http://" + server_->address();
    EXPECT_THAT(*url, StartsWith(begin));
    return url->substr(begin.size());
  }
  static StatusOr<std::int32_t> Echo(const Context& context, const StreamRequest& request,
                                     sandbox::ClientStreams& streams) {
    HUSK_RETURN_IF_ERROR(streams.Write(context, sandbox::OutputKind::kStandardOutput, request.container_id + ": "));
    while (true) {
      HUSK_ASSIGN_OR_RETURN(const std::string bytes, streams.ReadInput(context));
      if (bytes.empty()) return 42;
      HUSK_RETURN_IF_ERROR(streams.Write(context, sandbox::OutputKind::kStandardOutput, bytes));
    }
  }

  // A guest whose ports give back what they are sent; at port 9 nobody listens.
  static Status EchoPorts(const Context& context, const StreamRequest& /*request*/, sandbox::PortExchange& exchange) {
    while (true) {
      HUSK_ASSIGN_OR_RETURN(const sandbox::PortExchange::Batch batch, exchange.Next(context));
      if (batch.empty()) return absl::OkStatus();
      for (const auto& opening : batch.openings) {
        if (opening.port == 9) {
          exchange.Failed(opening.connection, absl::UnavailableError("nobody listens"));
        } else {
          exchange.Writable(opening.connection);
        }
      }
      for (const auto& piece : batch.pieces) {
        HUSK_RETURN_IF_ERROR(exchange.AwaitRoom(context));
        const auto told = exchange.Output(piece.connection, piece.offset, piece.bytes, piece.end);
        exchange.Taken(piece, piece.offset + piece.bytes.size());
        if (!told.ok() && !absl::IsNotFound(told.status())) return told.status();
      }
    }
  }

  StreamingOptions options_;
  const StreamRequest forward_{.kind = StreamRequest::Kind::kPortForward, .pod_id = "p"};
  const StreamRequest echo_{.container_id = "c", .command = {"cat"}, .standard_input = true, .standard_output = true};
  std::unique_ptr<StreamingServer> server_;
};

TEST_F(ServerTest, SpdyWithBytesThatCameWithTheHeaders) {
  Start(Echo);
  Client client(server_->address());
  SpdyClient spdy;
  // One by one: a header block depends on those before it.
  std::string opening = SpdyClient::Head(Path(echo_));
  opening += spdy.Open(1, "error");
  opening += spdy.Open(3, "stdin");
  opening += spdy.Open(5, "stdout");
  client.Send(opening + SpdyClient::Data(3, "hello") + SpdyClient::Data(3, "", true));
  const std::string answer = client.ReadUntil([](const std::string& bytes) {
    return bytes.size() > 16 && bytes.compare(bytes.size() - 16, 4, std::string("\x80\x03\x00\x07", 4)) == 0;
  });
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 101 "));
  EXPECT_THAT(answer, HasSubstr("c: "));
  EXPECT_THAT(answer, HasSubstr("hello"));
  // The status, then the ends of the streams, then GOAWAY.
  const std::size_t status = answer.find("NonZeroExitCode");
  ASSERT_NE(status, std::string::npos);
  EXPECT_GT(status, answer.find("hello"));
  const std::string ends =
      SpdyClient::Data(1, "", true) + SpdyClient::Data(3, "", true) + SpdyClient::Data(5, "", true);
  EXPECT_EQ(answer.find(ends), answer.size() - 16 - ends.size());
}

TEST_F(ServerTest, WebSocketWithHalfClose) {
  Start(Echo);
  Client client(server_->address());
  client.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io") + WebSocketFrame(2, std::string("\0hello", 6)) +
              WebSocketFrame(9, "are you there?"));
  const std::string open = client.ReadUntilText("hello");
  EXPECT_THAT(open, HasSubstr(std::string("\x82\x01\x01", 3)));  // the empty message
  EXPECT_THAT(client.ReadUntilText("are you there?"), HasSubstr("\x8a\x0e"));
  client.Send(WebSocketFrame(2, std::string("\xff\0", 2)));
  EXPECT_THAT(client.ReadUntilText("\x88\x02"), HasSubstr("\"ExitCode\""));
  client.Send(WebSocketFrame(8, ""));
  EXPECT_THAT(client.ReadToEnd(), EndsWith("\x88\x02\x03\xe8"));
}

TEST_F(ServerTest, AUrlWorksOnceAndForItsKind) {
  Start(Echo);
  const std::string path = Path(echo_);
  Client first(server_->address());
  first.Send(WebSocketHead(path, "v5.channel.k8s.io"));
  EXPECT_THAT(first.ReadUntilText("c: "), StartsWith("HTTP/1.1 101 "));
  const std::string attach = "/attach" + Path(echo_).substr(5);
  for (const std::string& bad : {path, attach, std::string("/exec/unknown"), std::string("/")}) {
    Client other(server_->address());
    other.Send(WebSocketHead(bad, "v5.channel.k8s.io"));
    EXPECT_THAT(other.ReadToEnd(), StartsWith("HTTP/1.1 404 ")) << bad;
  }
}

TEST_F(ServerTest, ABadProtocolIsRefused) {
  Start(Echo);
  Client client(server_->address());
  client.Send(SpdyClient::Head(Path(echo_), "v9.channel.k8s.io"));
  EXPECT_THAT(client.ReadToEnd(), StartsWith("HTTP/1.1 403 "));
  Client noise(server_->address());
  noise.Send("\x16\x03\x01 no http\r\n\r\n");
  EXPECT_THAT(noise.ReadToEnd(), StartsWith("HTTP/1.1 400 "));
}

TEST_F(ServerTest, AClientThatSaysNothingIsCutOff) {
  options_.head_timeout = std::chrono::milliseconds(50);
  Start(Echo);
  Client client(server_->address());
  client.Send("GET /exec/");
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_F(ServerTest, StreamsThatDoNotComeAreNotWaitedForLong) {
  options_.streams_timeout = std::chrono::milliseconds(50);
  Start(Echo);
  Client client(server_->address());
  SpdyClient spdy;
  client.Send(SpdyClient::Head(Path(echo_)) + spdy.Open(1, "error"));
  EXPECT_THAT(client.ReadUntilText("\"Failure\""), HasSubstr("did not open its streams in time: stdin, stdout"));
}

TEST_F(ServerTest, NoLimitAppliesToASessionThatIsIdle) {
  options_.head_timeout = options_.streams_timeout = std::chrono::milliseconds(500);
  Start(Echo);
  SpdyClient spdy;
  std::string opening = SpdyClient::Head(Path(echo_));
  opening += spdy.Open(1, "error");
  opening += spdy.Open(3, "stdin");
  opening += spdy.Open(5, "stdout");
  const std::string head = WebSocketHead(Path(echo_), "v5.channel.k8s.io");
  Client first(server_->address());
  first.Send(opening);
  Client second(server_->address());
  second.Send(head);
  first.ReadUntilText("c: ");
  second.ReadUntilText("c: ");
  usleep(700'000);
  first.Send(SpdyClient::Data(3, "still here"));
  EXPECT_THAT(first.ReadUntilText("still here"), HasSubstr("still here"));
  second.Send(WebSocketFrame(2, std::string("\0here too", 9)));
  EXPECT_THAT(second.ReadUntilText("here too"), HasSubstr("here too"));
}

TEST_F(ServerTest, AClientThatGoesEndsItsCommand) {
  std::atomic<bool> cancelled = false;
  Start([&](const Context& context, const StreamRequest&, sandbox::ClientStreams& streams) -> StatusOr<std::int32_t> {
    const Status status = streams.NextSize(context).status();
    cancelled = absl::IsCancelled(status);
    return status;
  });
  Client client(server_->address());
  client.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  client.ReadUntilText("\r\n\r\n");
  client.Close();
  for (int count = 0; count < kPatience / 10 && !cancelled; ++count) usleep(10'000);
  EXPECT_TRUE(cancelled);
}

TEST_F(ServerTest, AClientThatGoesIsNoticedThoughNothingIsReadFromIt) {
  std::atomic<bool> cancelled = false;
  Start([&](const Context& context, const StreamRequest&, sandbox::ClientStreams& streams) -> StatusOr<std::int32_t> {
    const Status status = streams.NextSize(context).status();
    cancelled = absl::IsCancelled(status);
    return status;
  });
  Client client(server_->address());
  client.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  client.ReadUntilText("\r\n\r\n");
  const std::string frame = WebSocketFrame(2, std::string(125, '\0'));
  std::string much;
  while (much.size() < 400'000) much += frame;
  // More than both kernels hold, so that not even its FIN gets through.
  client.Fill(much);
  client.Close();
  for (int count = 0; count < kPatience / 10 && !cancelled; ++count) usleep(10'000);
  EXPECT_TRUE(cancelled);
}

TEST_F(ServerTest, AClientThatDoesNotReadStallsOnlyItself) {
  Start([](const Context& context, const StreamRequest& request,
           sandbox::ClientStreams& streams) -> StatusOr<std::int32_t> {
    if (request.container_id == "quick") return 0;
    while (true) {
      HUSK_RETURN_IF_ERROR(streams.Write(context, sandbox::OutputKind::kStandardOutput, std::string(100'000, 'x')));
    }
  });
  Client stalled(server_->address());
  stalled.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  stalled.ReadUntilText("xxx");
  StreamRequest quick = echo_;
  quick.container_id = "quick";
  Client client(server_->address());
  client.Send(WebSocketHead(Path(quick), "v5.channel.k8s.io"));
  EXPECT_THAT(client.ReadUntilText("\"status\""), HasSubstr("Success"));
  server_->Stop();
}

TEST_F(ServerTest, SessionsAreBounded) {
  options_.maximum_sessions = 1;
  Start(Echo);
  Client first(server_->address());
  first.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  first.ReadUntilText("c: ");
  Client second(server_->address());
  second.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  EXPECT_THAT(second.ReadUntilText("\"Failure\""), HasSubstr("1 streaming sessions are open"));
}

TEST_F(ServerTest, StopEndsCommandsThatWait) {
  Start(Echo);
  Client client(server_->address());
  client.Send(WebSocketHead(Path(echo_), "v5.channel.k8s.io"));
  client.ReadUntilText("c: ");
  server_->Stop();
  client.ReadToEnd();
}

// A self-signed certificate and its key, as PEM files.
void WriteCertificate(const std::string& certificate_file, const std::string& key_file) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"),
                                                                EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  ASSERT_GT(X509_sign(certificate.get(), key.get(), EVP_sha256()), 0);
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new_file(certificate_file.c_str(), "w"), BIO_free);
  const std::unique_ptr<BIO, decltype(&BIO_free)> key_out(BIO_new_file(key_file.c_str(), "w"), BIO_free);
  ASSERT_EQ(PEM_write_bio_X509(out.get(), certificate.get()), 1);
  ASSERT_EQ(PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr), 1);
}

TEST_F(ServerTest, ForwardsPortsOverSpdy) {
  Start(Echo);
  Client client(server_->address());
  SpdyClient spdy;
  const auto open = [&spdy](std::uint64_t id, const char* type, const char* port, const char* request_id) {
    return spdy.Open(id, {{"streamtype", type}, {"port", port}, {"requestid", request_id}});
  };
  std::string opening = SpdyClient::Head(Path(forward_), "portforward.k8s.io");
  opening += open(1, "error", "80", "0");
  opening += open(3, "data", "80", "0");
  client.Send(opening + SpdyClient::Data(3, "hello", true));
  // Both directions and the stream of errors end.
  client.ReadUntilText(SpdyClient::Data(3, "hello"));
  client.ReadUntilText(SpdyClient::Data(3, "", true));
  client.ReadUntilText(SpdyClient::Data(1, "", true));
  // One that fails does not end the session.
  std::string failing = open(5, "error", "9", "1");
  failing += open(7, "data", "9", "1");
  client.Send(failing);
  client.ReadUntilText(SpdyClient::Data(5, "nobody listens"));
  std::string another = open(9, "data", "81", "2");
  another += open(11, "error", "81", "2");
  client.Send(another + SpdyClient::Data(9, "again"));
  client.ReadUntilText(SpdyClient::Data(9, "again"));
}

TEST_F(ServerTest, AForwardedConnectionNeedsBothStreamsInTime) {
  options_.streams_timeout = std::chrono::milliseconds(100);
  Start(Echo);
  Client client(server_->address());
  SpdyClient spdy;
  client.Send(SpdyClient::Head(Path(forward_), "portforward.k8s.io") +
              spdy.Open(1, {{"streamtype", "error"}, {"port", "80"}, {"requestid", "0"}}));
  client.ReadUntilText("the stream with streamtype data did not come in time");
}

TEST_F(ServerTest, ForwardsPortsOverWebSocket) {
  Start(Echo);
  Client client(server_->address());
  // Port 300 is 0x012c.
  client.Send(WebSocketHead(Path(forward_) + "?port=300&port=9", "v4.channel.k8s.io") +
              WebSocketFrame(2, std::string("\0hello", 6)));
  const std::string answer = client.ReadUntilText("hello");
  for (const std::string& begin :
       {std::string("\0\x2c\x01", 3), std::string("\x01\x2c\x01"), std::string("\x02\x09\0", 3)}) {
    EXPECT_NE(answer.find(std::string("\x82\x03") + begin), std::string::npos);
  }
  client.ReadUntilText("\x03nobody listens");
}

TEST_F(ServerTest, WebSocketNeedsPorts) {
  Start(Echo);
  for (const char* query : {"", "?port=0", "?port=65536", "?port=x", "?other=80"}) {
    Client client(server_->address());
    client.Send(WebSocketHead(Path(forward_) + query, "v4.channel.k8s.io"));
    EXPECT_THAT(client.ReadToEnd(), StartsWith("HTTP/1.1 400 ")) << query;
  }
}

TEST_F(ServerTest, AForwardingEndsWithItsClient) {
  Start(Echo);
  {
    Client client(server_->address());
    client.Send(SpdyClient::Head(Path(forward_), "portforward.k8s.io"));
    client.ReadUntilText("HTTP/1.1 101 ");
  }
  server_->Stop();  // waits for the session
}

class TlsTest : public ServerTest {
 protected:
  TlsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-tls-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    options_.certificate_file = directory_ / "certificate.pem";
    options_.key_file = directory_ / "key.pem";
    WriteCertificate(options_.certificate_file, options_.key_file);
  }
  ~TlsTest() override { std::filesystem::remove_all(directory_); }
  std::filesystem::path directory_;
};

TEST_F(TlsTest, StreamsGoOverTls) {
  Start(Echo);
  const std::string url = server_->UrlFor(echo_).value();
  const std::string begin = "https://" + server_->address();
  ASSERT_THAT(url, StartsWith(begin));
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
  const Client client(server_->address());
  SSL_set_fd(tls.get(), client.descriptor());
  ASSERT_EQ(SSL_connect(tls.get()), 1);
  const std::string request = WebSocketHead(url.substr(begin.size()), "v5.channel.k8s.io");
  ASSERT_EQ(SSL_write(tls.get(), request.data(), static_cast<int>(request.size())), static_cast<int>(request.size()));
  std::string answer;
  while (answer.find("c: ") == std::string::npos) {
    std::array<char, 4096> bytes{};
    const int count = SSL_read(tls.get(), bytes.data(), bytes.size());
    ASSERT_GT(count, 0) << answer;
    answer.append(bytes.data(), static_cast<std::size_t>(count));
  }
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 101 "));
  // Without TLS nobody gets in.
  Client plain(server_->address());
  plain.Send(WebSocketHead("/exec/x", "v5.channel.k8s.io"));
  EXPECT_THAT(plain.ReadToEnd(), testing::Not(HasSubstr("HTTP/1.1 ")));
}

TEST_F(TlsTest, AKeyThatIsNotTheCertificatesIsRefused) {
  WriteCertificate(directory_ / "other.pem", options_.key_file);
  const auto server = StreamingServer::Start(options_, Echo, EchoPorts);
  EXPECT_THAT(std::string(server.status().message()), StartsWith("key: "));
}

TEST(ServerOptionsTest, ErrorsNameTheOption) {
  const auto start = [](const StreamingOptions& options) {
    const auto server = StreamingServer::Start(options, nullptr, nullptr);
    return server.ok() ? std::string() : std::string(server.status().message());
  };
  for (const char* address :
       {"", "127.0.0.1", "localhost:0", "127.0.0.1:x", "127.0.0.1:65536", "::1:0", "[127.0.0.1]:0"}) {
    EXPECT_THAT(start({.address = address}), StartsWith("address: ")) << address;
  }
  EXPECT_THAT(start({.certificate_file = "/c"}), StartsWith("certificate: "));
  EXPECT_THAT(start({.key_file = "/k"}), StartsWith("certificate: "));
  EXPECT_THAT(start({.certificate_file = "/does/not/exist", .key_file = "/k"}),
              HasSubstr("certificate: cannot use /does/not/exist"));
  EXPECT_EQ(start({.address = "[::1]:0"}), "");
  EXPECT_EQ(start({.address = "0.0.0.0:0"}), "");
}

}  // namespace
}  // namespace husk::cri
