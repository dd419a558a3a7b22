// Uses huge pages.
// usage: huge_pages map MIB_OF_A_PAGE PAGES   maps so many at once, touches one after the other, and says how many it
// got
//        huge_pages write|read FILE MIB CHARACTER   fills a file of a hugetlbfs by mapping it, or looks for that in it
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

static sigjmp_buf at_bus_error;

static void BusError(int signal) {
  (void)signal;
  siglongjmp(at_bus_error, 1);
}

static int Fail(const char* what) {
  printf("%s: ", what);
  fflush(stdout);
  perror(NULL);
  return 1;
}

static int Map(size_t mebibytes, size_t pages) {
  const size_t page = mebibytes << 20;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (__builtin_ctzll(page) << MAP_HUGE_SHIFT);
  volatile char* const memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return Fail("mmap");
  signal(SIGBUS, BusError);
  volatile size_t touched = 0;
  if (sigsetjmp(at_bus_error, 1) == 0) {
    for (; touched < pages; ++touched) memory[touched * page] = 1;
    printf("touched %zu\n", touched);
    return 0;
  }
  printf("SIGBUS after %zu\n", touched);
  return 1;
}

static int File(int writes, const char* path, size_t mebibytes, char character) {
  const size_t size = mebibytes << 20;
  const int file = open(path, writes ? O_RDWR | O_CREAT : O_RDWR, 0666);
  if (file < 0) return Fail("open");
  if (writes && ftruncate(file, (off_t)size) != 0) return Fail("ftruncate");
  char* const memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) return Fail("mmap");
  if (writes) memset(memory, character, size);
  for (size_t i = 0; i < size; i += 4096) {
    if (memory[i] != character) {
      printf("there is %d at %zu\n", memory[i], i);
      return 1;
    }
  }
  puts("as it shall be");
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "map") == 0) return Map(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10));
  if (argc == 5) return File(strcmp(argv[1], "write") == 0, argv[2], strtoul(argv[3], NULL, 10), argv[4][0]);
  return 2;
}
