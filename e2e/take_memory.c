// take_memory MEBIBYTES: takes as much, writes to all of it, says "taken", lets it go when there is a file /tmp/enough,
// says "freed", and stays.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kPauseMicroseconds = 50000 };

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const size_t size = strtoul(argv[1], NULL, 10) << 20;
  char* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  memset(memory, 0x5a, size);
  puts("taken");
  fflush(stdout);
  while (access("/tmp/enough", F_OK) != 0) usleep(kPauseMicroseconds);
  munmap(memory, size);
  puts("freed");
  fflush(stdout);
  for (;;) pause();
}
