// Writes a file of MEBIBYTES in DIRECTORY from its start to its end, with fsync, forgets what is cached of it, and
// reads it back, verifying every byte: volume_throughput DIRECTORY MEBIBYTES. Prints "write SECONDS" and "read
// SECONDS".
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { kBlock = 1 << 20 };
static uint64_t block[kBlock / sizeof(uint64_t)];

static double Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void Stop(const char* what) {
  perror(what);
  exit(1);
}

static void WriteAll(int fd, long blocks) {
  for (long number = 0; number < blocks; ++number) {
    block[0] = (uint64_t)number;
    for (size_t done = 0; done < kBlock;) {
      const ssize_t count = write(fd, (const char*)block + done, kBlock - done);
      if (count <= 0) Stop("write");
      done += (size_t)count;
    }
  }
  if (fsync(fd) != 0) Stop("fsync");
}

static void ReadAll(int fd, long blocks) {
  for (long number = 0; number < blocks; ++number) {
    for (size_t done = 0; done < kBlock;) {
      const ssize_t count = read(fd, (char*)block + done, kBlock - done);
      if (count <= 0) Stop("read");
      done += (size_t)count;
    }
    if (block[0] != (uint64_t)number) Stop("the wrong block");
    for (size_t i = 1; i < kBlock / sizeof(uint64_t); ++i) {
      if (block[i] != i * 0x9e3779b97f4a7c15u) Stop("wrong bytes");
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 3 || chdir(argv[1]) != 0) return 2;
  const long blocks = strtol(argv[2], NULL, 10);
  for (size_t i = 0; i < kBlock / sizeof(uint64_t); ++i) block[i] = i * 0x9e3779b97f4a7c15u;
  const int fd = open("throughput", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) Stop("open");
  double start = Now();
  WriteAll(fd, blocks);
  printf("write %.3f\n", Now() - start);
  if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) Stop("fadvise");
  if (lseek(fd, 0, SEEK_SET) != 0) Stop("lseek");
  start = Now();
  ReadAll(fd, blocks);
  printf("read %.3f\n", Now() - start);
  if (unlink("throughput") != 0) Stop("unlink");
  return 0;
}
