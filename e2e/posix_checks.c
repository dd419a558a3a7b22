// Checks a directory for what POSIX says of file systems, in the manner of pjdfstest: posix_checks DIRECTORY [UID
// [no-devices]]. A line for each check that failed, then how many there were; exit code 1 if any failed. With a UID the
// checks of another user's permissions are made in a child process of that user.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int checks;
static int failures;

static void Check(int good, const char* what, int line) {
  ++checks;
  if (good) return;
  ++failures;
  printf("FAILED line %d: %s (errno %d: %s)\n", line, what, errno, strerror(errno));
}
#define CHECK(condition) Check((condition) ? 1 : 0, #condition, __LINE__)
#define CHECK_FAILS(call, error) \
  (errno = 0, Check((call) == -1 && errno == (error), #call " fails with " #error, __LINE__))

static void Put(const char* path, const char* text) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static int Holds(const char* path, const char* text) {
  char buffer[256] = {0};
  const int fd = open(path, O_RDONLY);
  const ssize_t count = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
  if (fd >= 0) close(fd);
  return count == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0;
}

static struct stat Of(const char* path) {
  struct stat facts;
  memset(&facts, 0, sizeof facts);
  CHECK(lstat(path, &facts) == 0);
  return facts;
}

static void Files(void) {
  const int fd = open("new", O_RDWR | O_CREAT | O_EXCL, 0640);
  CHECK(fd >= 0);
  CHECK((Of("new").st_mode & 07777) == 0640);
  CHECK_FAILS(open("new", O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
  CHECK(write(fd, "hello", 5) == 5);
  CHECK(pwrite(fd, "J", 1, 0) == 1);
  CHECK(fsync(fd) == 0);
  CHECK(fdatasync(fd) == 0);
  CHECK(Of("new").st_size == 5);
  CHECK(Holds("new", "Jello"));
  CHECK(ftruncate(fd, 2) == 0 && Of("new").st_size == 2 && Holds("new", "Je"));
  CHECK(truncate("new", 4) == 0);
  char buffer[4];
  CHECK(pread(fd, buffer, 4, 0) == 4 && memcmp(buffer, "Je\0\0", 4) == 0);
  close(fd);
  CHECK_FAILS(open("none", O_RDONLY), ENOENT);
  CHECK_FAILS(open("new/below", O_RDONLY), ENOTDIR);
  CHECK(unlink("new") == 0);
  CHECK_FAILS(unlink("new"), ENOENT);

  const int append = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int other = open("log", O_WRONLY | O_APPEND);
  CHECK(write(append, "one\n", 4) == 4 && write(other, "two\n", 4) == 4 && write(append, "three\n", 6) == 6);
  CHECK(Holds("log", "one\ntwo\nthree\n"));
  close(append);
  close(other);

  const int sparse = open("sparse", O_RDWR | O_CREAT, 0644);
  CHECK(pwrite(sparse, "end", 3, 64 << 20) == 3);
  CHECK(Of("sparse").st_size == (64 << 20) + 3);
  CHECK(Of("sparse").st_blocks < 2048);
  CHECK(pread(sparse, buffer, 4, 32 << 20) == 4 && memcmp(buffer, "\0\0\0\0", 4) == 0);
  CHECK(posix_fallocate(sparse, 0, 65536) == 0);
  close(sparse);

  const int open_file = open("unlinked", O_RDWR | O_CREAT, 0644);
  CHECK(write(open_file, "still", 5) == 5);
  CHECK(unlink("unlinked") == 0);
  struct stat facts;
  CHECK(fstat(open_file, &facts) == 0 && facts.st_nlink == 0 && facts.st_size == 5);
  CHECK(pread(open_file, buffer, 4, 1) == 4 && memcmp(buffer, "till", 4) == 0);
  CHECK(write(open_file, "more", 4) == 4);
  close(open_file);
}

static void Names(void) {
  Put("a", "a");
  Put("b", "b");
  const ino_t inode = Of("a").st_ino;
  CHECK(rename("a", "b") == 0);
  CHECK(Of("b").st_ino == inode && Holds("b", "a"));
  CHECK_FAILS(access("a", F_OK), ENOENT);
  CHECK(link("b", "c") == 0);
  CHECK(Of("c").st_ino == inode && Of("c").st_nlink == 2);
  CHECK_FAILS(link("b", "c"), EEXIST);
  CHECK(rename("b", "c") == 0 && access("b", F_OK) == 0);  // two names of one file: nothing happens
  CHECK(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_NOREPLACE) == -1 && errno == EEXIST);
  CHECK(unlink("b") == 0 && Of("c").st_nlink == 1);
  Put("d", "d");
  CHECK(renameat2(AT_FDCWD, "c", AT_FDCWD, "d", RENAME_EXCHANGE) == 0 && Holds("c", "d") && Holds("d", "a"));

  char target[64];
  CHECK(symlink("somewhere/else", "link") == 0);
  CHECK(readlink("link", target, sizeof target) == 14 && memcmp(target, "somewhere/else", 14) == 0);
  CHECK(S_ISLNK(Of("link").st_mode) && Of("link").st_size == 14);
  CHECK_FAILS(open("link", O_RDONLY), ENOENT);
  CHECK_FAILS(symlink("x", "link"), EEXIST);
  CHECK(symlink("loop", "loop") == 0);
  CHECK_FAILS(open("loop", O_RDONLY), ELOOP);
  CHECK_FAILS(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);

  char name[300];
  memset(name, 'n', sizeof name);
  name[255] = 0;
  const int fd = open(name, O_CREAT | O_WRONLY, 0644);
  CHECK(fd >= 0);
  close(fd);
  CHECK(unlink(name) == 0);
  name[255] = 'n';
  name[256] = 0;
  CHECK_FAILS(open(name, O_CREAT | O_WRONLY, 0644), ENAMETOOLONG);
  Put("\xc3\xa4 \n\"\\", "odd");
  CHECK(Holds("\xc3\xa4 \n\"\\", "odd"));
  CHECK(mkfifo("fifo", 0600) == 0 && S_ISFIFO(Of("fifo").st_mode));
}

static void Directories(void) {
  CHECK(mkdir("dir", 0750) == 0);
  CHECK(S_ISDIR(Of("dir").st_mode) && (Of("dir").st_mode & 07777) == 0750);
  CHECK_FAILS(mkdir("dir", 0750), EEXIST);
  CHECK_FAILS(unlink("dir"), EISDIR);
  CHECK(mkdir("dir/sub", 0755) == 0);
  CHECK_FAILS(rmdir("dir"), ENOTEMPTY);
  CHECK_FAILS(rename("dir", "dir/sub/dir"), EINVAL);
  Put("dir/sub/file", "deep");
  CHECK(rename("dir", "moved") == 0 && Holds("moved/sub/file", "deep"));
  CHECK(mkdir("empty", 0755) == 0 && rename("moved", "empty") == 0 && Holds("empty/sub/file", "deep"));
  CHECK(mkdir("full", 0755) == 0);
  Put("full/file", "x");
  errno = 0;
  CHECK(rename("empty", "full") == -1 && (errno == ENOTEMPTY || errno == EEXIST));
  CHECK_FAILS(rename("full/file", "empty"), EISDIR);
  CHECK_FAILS(rename("empty", "full/file"), ENOTDIR);
  CHECK_FAILS(rmdir("full/file"), ENOTDIR);
  CHECK(unlink("empty/sub/file") == 0 && rmdir("empty/sub") == 0 && rmdir("empty") == 0);
  CHECK_FAILS(rmdir("empty"), ENOENT);

  enum { kNames = 2000 };
  static char seen[kNames];
  char name[64];
  CHECK(mkdir("many", 0755) == 0);
  for (int number = 0; number < kNames; ++number) {
    snprintf(name, sizeof name, "many/file-with-a-longer-name-%d", number);
    const int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) CHECK(!"create one of many");
    close(fd);
  }
  DIR* const many = opendir("many");
  int count = 0;
  const struct dirent* entry;
  while (many != NULL && (entry = readdir(many)) != NULL) {
    int number = -1;
    if (sscanf(entry->d_name, "file-with-a-longer-name-%d", &number) != 1) continue;
    if (number >= 0 && number < kNames && !seen[number]++) ++count;
  }
  CHECK(count == kNames);
  if (many != NULL) closedir(many);
  for (int number = 0; number < kNames; ++number) {
    snprintf(name, sizeof name, "many/file-with-a-longer-name-%d", number);
    if (unlink(name) != 0) CHECK(!"unlink one of many");
  }
  CHECK(rmdir("many") == 0);
}

static void Attributes(void) {
  Put("facts", "x");
  CHECK(chmod("facts", 04711) == 0 && (Of("facts").st_mode & 07777) == 04711);
  CHECK(chown("facts", 1234, 5678) == 0 && Of("facts").st_uid == 1234 && Of("facts").st_gid == 5678);
  CHECK(lchown("facts", 0, 0) == 0 && Of("facts").st_uid == 0);
  const struct timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
  CHECK(utimensat(AT_FDCWD, "facts", times, 0) == 0);
  const struct stat facts = Of("facts");
  CHECK(facts.st_atim.tv_sec == 1000000000 && facts.st_atim.tv_nsec == 123456789);
  CHECK(facts.st_mtim.tv_sec == 1100000000 && facts.st_mtim.tv_nsec == 987654321);
  const int fd = open("facts", O_WRONLY);
  CHECK(write(fd, "y", 1) == 1 && fsync(fd) == 0);
  close(fd);
  CHECK(Of("facts").st_mtim.tv_sec > 1100000000);

  char value[16];
  CHECK(setxattr("facts", "user.husk", "value", 5, XATTR_CREATE) == 0);
  CHECK_FAILS(setxattr("facts", "user.husk", "value", 5, XATTR_CREATE), EEXIST);
  CHECK(getxattr("facts", "user.husk", value, sizeof value) == 5 && memcmp(value, "value", 5) == 0);
  char names[256];
  const ssize_t length = listxattr("facts", names, sizeof names);
  CHECK(length > 0 && memmem(names, (size_t)length, "user.husk", 10) != NULL);
  CHECK(removexattr("facts", "user.husk") == 0);
  CHECK_FAILS(getxattr("facts", "user.husk", value, sizeof value), ENODATA);

  CHECK(mkdir("setgid", 0755) == 0 && chown("setgid", 0, 4321) == 0 && chmod("setgid", 02775) == 0);
  Put("setgid/file", "x");
  CHECK(Of("setgid/file").st_gid == 4321);
  struct statvfs whole;
  CHECK(statvfs(".", &whole) == 0 && whole.f_blocks > 0 && whole.f_namemax >= 255);
}

static void Memory(void) {
  const int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0644);
  CHECK(ftruncate(fd, 3 * 4096) == 0);
  char* const memory = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  CHECK(memory != MAP_FAILED);
  if (memory != MAP_FAILED) {
    memcpy(memory + 4090, "across pages", 12);
    CHECK(msync(memory, 3 * 4096, MS_SYNC) == 0);
    char buffer[12];
    CHECK(pread(fd, buffer, 12, 4090) == 12 && memcmp(buffer, "across pages", 12) == 0);
    CHECK(pwrite(fd, "ACROSS", 6, 4090) == 6 && memcmp(memory + 4090, "ACROSS pages", 12) == 0);
    munmap(memory, 3 * 4096);
  }
  close(fd);
}

static void Locks(void) {
  Put("locked", "x");
  const int mine = open("locked", O_RDWR);
  CHECK(flock(mine, LOCK_EX) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const int other = open("locked", O_RDWR);
    if (flock(other, LOCK_EX | LOCK_NB) != -1 || errno != EWOULDBLOCK) _exit(1);
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    _exit(fcntl(other, F_SETLK, &range) == 0 ? 0 : 2);  // ranges and whole files are different locks
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(flock(mine, LOCK_UN) == 0);
  close(mine);
}

static void OtherUser(uid_t uid) {
  CHECK(mkdir("private", 0700) == 0 && mkdir("sticky", 0755) == 0 && mkdir("readable", 0755) == 0);
  CHECK(chmod("sticky", 01777) == 0);
  Put("private/file", "x");
  Put("sticky/roots", "x");
  Put("readable/file", "x");
  Put("readable/shut", "x");
  CHECK(chmod("readable/shut", 0600) == 0);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    CHECK(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
    CHECK_FAILS(open("private/file", O_RDONLY), EACCES);
    CHECK_FAILS(open("readable/shut", O_RDONLY), EACCES);
    CHECK_FAILS(open("readable/file", O_WRONLY), EACCES);
    CHECK(Holds("readable/file", "x"));
    CHECK_FAILS(open("readable/new", O_CREAT | O_WRONLY, 0644), EACCES);
    CHECK_FAILS(unlink("readable/file"), EACCES);
    CHECK(unlink("sticky/roots") == -1 && (errno == EPERM || errno == EACCES));
    Put("sticky/mine", "mine");
    CHECK(Of("sticky/mine").st_uid == uid && Of("sticky/mine").st_gid == uid);
    CHECK_FAILS(chown("sticky/mine", 0, 0), EPERM);
    CHECK_FAILS(chmod("readable/file", 0777), EPERM);
    CHECK(chmod("sticky/mine", 0600) == 0 && unlink("sticky/mine") == 0);
    fflush(stdout);
    _exit(failures != 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  checks += 16;  // the child's
}

// A device node in a directory of the host would be the host's device.
static void NoDevices(void) {
  CHECK_FAILS(mknod("block", S_IFBLK | 0600, 0x0801), EPERM);
  CHECK_FAILS(mknod("character", S_IFCHR | 0600, 0x0103), EPERM);
}

int main(int argc, char** argv) {
  if (argc < 2 || chdir(argv[1]) != 0) return 2;
  umask(022);
  Files();
  Names();
  Directories();
  Attributes();
  Memory();
  Locks();
  if (argc > 2) OtherUser((uid_t)strtoul(argv[2], NULL, 10));
  if (argc > 3) NoDevices();
  printf("%d checks, %d failed\n", checks, failures);
  return failures != 0;
}
