// Prints what a tree of files is, a line an entry, sorted by nobody: for comparing a guest's view with another tool's.
// usage: file_facts ROOT [PATH_TO_LEAVE_OUT...]   (paths as they are printed)
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static char** left_out;

static void PrintText(const char* text, size_t length) {
  for (size_t i = 0; i < length; ++i) {
    const unsigned char c = (unsigned char)text[i];
    if (c <= ' ' || c >= 0x7f || c == '%') {
      printf("%%%02x", c);
    } else {
      putchar(c);
    }
  }
}

// FNV-1a, 64 bits: a difference shows, and no library is needed.
static uint64_t HashOf(const char* path) {
  uint64_t hash = 14695981039346656037u;
  const int fd = open(path, O_RDONLY | O_NOFOLLOW);
  if (fd < 0) return 0;
  static unsigned char bytes[1 << 16];
  ssize_t count;
  while ((count = read(fd, bytes, sizeof bytes)) > 0) {
    for (ssize_t i = 0; i < count; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  }
  close(fd);
  return count < 0 ? 0 : hash;
}

static int CompareNames(const void* a, const void* b) {
  return strcmp(*(char* const*)a, *(char* const*)b);
}

static void PrintXattrs(const char* path) {
  static char names[1 << 16];
  static char value[1 << 16];
  const ssize_t length = llistxattr(path, names, sizeof names);
  char* sorted[256];
  size_t count = 0;
  for (ssize_t i = 0; i < length && count < 256; i += (ssize_t)strlen(names + i) + 1) sorted[count++] = names + i;
  qsort(sorted, count, sizeof *sorted, CompareNames);
  for (size_t i = 0; i < count; ++i) {
    const ssize_t size = lgetxattr(path, sorted[i], value, sizeof value);
    printf(" %s=", sorted[i]);
    for (ssize_t k = 0; k < size; ++k) printf("%02x", (unsigned char)value[k]);
  }
}

static void PrintEntry(const char* path, const char* shown, const struct stat* facts) {
  PrintText(shown, strlen(shown));
  printf(" mode=%o uid=%u gid=%u", facts->st_mode, facts->st_uid, facts->st_gid);
  if (!S_ISDIR(facts->st_mode)) {
    printf(" links=%ju mtime=%jd.%09ld", (uintmax_t)facts->st_nlink, (intmax_t)facts->st_mtim.tv_sec,
           facts->st_mtim.tv_nsec);
  }
  if (S_ISREG(facts->st_mode)) printf(" size=%jd hash=%016" PRIx64, (intmax_t)facts->st_size, HashOf(path));
  if (S_ISCHR(facts->st_mode) || S_ISBLK(facts->st_mode)) {
    printf(" device=%u:%u", major(facts->st_rdev), minor(facts->st_rdev));
  }
  if (S_ISLNK(facts->st_mode)) {
    char target[4096];
    const ssize_t length = readlink(path, target, sizeof target);
    printf(" target=");
    PrintText(target, length < 0 ? 0 : (size_t)length);
  }
  PrintXattrs(path);
  putchar('\n');
}

static void Walk(const char* path, const char* shown) {
  for (char** leave = left_out; *leave != NULL; ++leave) {
    if (strcmp(*leave, shown) == 0) return;
  }
  struct stat facts;
  if (lstat(path, &facts) != 0) {
    printf("%s: cannot be read\n", shown);
    return;
  }
  PrintEntry(path, shown, &facts);
  if (!S_ISDIR(facts.st_mode)) return;
  DIR* const directory = opendir(path);
  if (directory == NULL) return;
  const struct dirent* entry;
  while ((entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char* below;
    char* below_shown;
    if (asprintf(&below, "%s/%s", path, entry->d_name) < 0) exit(1);
    if (asprintf(&below_shown, "%s/%s", strcmp(shown, "/") == 0 ? "" : shown, entry->d_name) < 0) exit(1);
    Walk(below, below_shown);
    free(below);
    free(below_shown);
  }
  closedir(directory);
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  left_out = argv + 2;
  Walk(argv[1], "/");
  return 0;
}
