// Writes MEBIBYTES of numbered lines to standard output as fast as it can: write_lines MEBIBYTES LINE_BYTES. Each line
// has LINE_BYTES (more than 20) with its newline: 20 digits, counting from 0, and x's.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kBlock = 1 << 16, kDigits = 20 };
static char block[2 * kBlock];

static void Increment(char* digits) {
  char* digit = digits + kDigits - 1;
  while (*digit == '9') *digit-- = '0';
  ++*digit;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  long long left = strtoll(argv[1], NULL, 10) << 20;
  const size_t length = (size_t)strtol(argv[2], NULL, 10);
  if (length <= kDigits || length > kBlock) return 2;
  char line[kBlock];
  memset(line, 'x', length - 1);
  memset(line, '0', kDigits);
  line[length - 1] = '\n';
  while (left > 0) {
    size_t size = 0;
    // Whole lines; the last one ends the stream, a few bytes beyond MEBIBYTES perhaps.
    for (; size < kBlock && (long long)size < left; size += length) {
      memcpy(block + size, line, length);
      Increment(line);
    }
    for (size_t done = 0; done < size;) {
      const ssize_t count = write(STDOUT_FILENO, block + done, size - done);
      if (count <= 0) {
        perror("write");
        return 1;
      }
      done += (size_t)count;
    }
    left -= (long long)size;
  }
  return 0;
}
