#include "sandbox/store/database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;

class DatabaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-database-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  [[nodiscard]] std::string path() const { return directory_ + "/a.db"; }

  std::string directory_;
  const std::vector<std::string> migrations_ = {"CREATE TABLE words (word TEXT UNIQUE)",
                                                "ALTER TABLE words ADD n INTEGER"};
};

TEST_F(DatabaseTest, MigratesFromWhateverVersionItFinds) {
  {
    auto old = Database::Open(path(), {migrations_[0]});
    ASSERT_TRUE(old.ok()) << old.status();
    ASSERT_TRUE((*old)->Execute("INSERT INTO words VALUES ('kept')").ok());
  }
  auto database = Database::Open(path(), migrations_);
  ASSERT_TRUE(database.ok()) << database.status();
  auto query = (*database)->Prepare("SELECT word, n FROM words");
  ASSERT_TRUE(query.ok()) << query.status();
  ASSERT_TRUE(*query->Step());
  EXPECT_EQ(query->ColumnText(0), "kept");
}

TEST_F(DatabaseTest, RefusesANewerSchema) {
  ASSERT_TRUE(Database::Open(path(), migrations_).ok());
  const auto database = Database::Open(path(), {migrations_[0]});
  EXPECT_EQ(database.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(database.status().message()), HasSubstr("newer huskd"));
  EXPECT_THAT(std::string(database.status().message()), HasSubstr(path()));
}

TEST_F(DatabaseTest, RefusesAFileThatIsNoDatabase) {
  std::ofstream(path()) << std::string(8192, 'x');
  const auto database = Database::Open(path(), migrations_);
  EXPECT_EQ(database.status().code(), absl::StatusCode::kDataLoss) << database.status();
}

TEST_F(DatabaseTest, AFailedMigrationLeavesTheOldSchema) {
  ASSERT_TRUE(Database::Open(path(), {migrations_[0]}).ok());
  EXPECT_FALSE(Database::Open(path(), {migrations_[0], "CREATE TABLE other (a); nonsense"}).ok());
  const auto database = Database::Open(path(), migrations_);
  ASSERT_TRUE(database.ok()) << database.status();
  EXPECT_FALSE((*database)->Prepare("SELECT * FROM other").ok());
}

TEST_F(DatabaseTest, ATransactionIsAllOrNothing) {
  auto database = Database::Open(path(), migrations_);
  ASSERT_TRUE(database.ok());
  const Status status = (*database)->Transaction([&]() -> Status {
    HUSK_RETURN_IF_ERROR((*database)->Execute("INSERT INTO words VALUES ('a', 1)"));
    return (*database)->Execute("INSERT INTO words VALUES ('a', 2)");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
  auto count = (*database)->Prepare("SELECT count(*) FROM words");
  ASSERT_TRUE(count.ok());
  ASSERT_TRUE(*count->Step());
  EXPECT_EQ(count->ColumnInteger(0), 0);
}

TEST_F(DatabaseTest, TextIsBytes) {
  auto database = Database::Open(path(), migrations_);
  ASSERT_TRUE(database.ok());
  const std::string bytes("a\0b'\"", 5);
  auto insert = (*database)->Prepare("INSERT INTO words VALUES (?, ?)");
  ASSERT_TRUE(insert.ok());
  ASSERT_TRUE(insert->Text(bytes).Integer(-5).Run().ok());
  auto query = (*database)->Prepare("SELECT word, n FROM words");
  ASSERT_TRUE(query.ok());
  ASSERT_TRUE(*query->Step());
  EXPECT_EQ(query->ColumnText(0), bytes);
  EXPECT_EQ(query->ColumnInteger(1), -5);
}

}  // namespace
}  // namespace husk::sandbox
