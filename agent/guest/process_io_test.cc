#include "agent/guest/process_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace husk::agent {
namespace {

using std::chrono::milliseconds;

class InputStreamTest : public ::testing::Test {
 protected:
  InputStreamTest() {
    signal(SIGPIPE, SIG_IGN);
    loop_ = EventLoop::Create().value();
    input_.emplace(*loop_);
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    process_ = UniqueFd(ends[0]);
    EXPECT_TRUE(input_->Open(UniqueFd(ends[1]), /*terminal=*/false).ok());
  }
  void Write(std::uint64_t offset, std::string data, bool close = false) {
    input_->Write(offset, std::move(data), close, [this](const StatusOr<std::uint64_t>& taken) {
      answers_.push_back(taken.ok() ? static_cast<std::int64_t>(*taken) : -1);
    });
  }
  // Lets the loop do what there is to do.
  void Turn() {
    loop_->After(milliseconds(20), [this] { loop_->Stop(); });
    loop_->Run();
  }
  // What the process reads until there is nothing more.
  std::string Read() {
    std::string all(1 << 20, '\0');
    std::size_t size = 0;
    for (ssize_t count = 0; (count = read(process_.get(), all.data() + size, all.size() - size)) > 0;) {
      size += static_cast<std::size_t>(count);
    }
    all.resize(size);
    return all;
  }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd process_;
  std::optional<InputStream> input_;
  std::vector<std::int64_t> answers_;
};

TEST_F(InputStreamTest, OneAnswerWhenAllBytesAreInThePipe) {
  std::string data;
  for (int number = 0; data.size() < 300'000; ++number) data += std::to_string(number) + "\n";
  Write(0, data);
  Turn();
  EXPECT_TRUE(answers_.empty()) << "a pipe holds 64 KiB";
  std::string got;
  for (int turn = 0; turn < 100 && answers_.empty(); ++turn) {
    const std::string piece = Read();
    EXPECT_FALSE(piece.empty());
    got += piece;
    Turn();
  }
  EXPECT_EQ(answers_, std::vector<std::int64_t>{static_cast<std::int64_t>(data.size())});
  got += Read();
  EXPECT_TRUE(got == data);
}

TEST_F(InputStreamTest, ARepetitionAfterABrokenConnectionGoesOnWhereItStood) {
  const std::string data(100'000, 'x');
  Write(0, data);
  input_->ForgetWaiting();
  Write(0, data + "end", /*close=*/true);
  std::string got = Read();
  Turn();
  got += Read();
  EXPECT_TRUE(got == data + "end") << got.size();
  EXPECT_EQ(answers_, std::vector<std::int64_t>{100'003});
}

TEST_F(InputStreamTest, ThoseThatWaitAreAnsweredWhenNobodyReadsAnyMore) {
  Write(0, std::string(100'000, 'x'));
  Write(0, std::string(100'004, 'x'));
  Write(0, std::string(100'015, 'x'), /*close=*/true);
  Turn();
  EXPECT_TRUE(answers_.empty());
  process_.Reset();
  Turn();
  EXPECT_EQ(answers_, (std::vector<std::int64_t>{100'000, 100'004, 100'015}));
  Write(100'015, "late");
  EXPECT_EQ(answers_.back(), 100'019);
}

TEST_F(InputStreamTest, AGapIsRefused) {
  Write(1, "x");
  EXPECT_EQ(answers_, std::vector<std::int64_t>{-1});
}

}  // namespace
}  // namespace husk::agent
