// What exec, and tar through it, cost without Husk: runs crun in a guest whose init is bare_init, for `bench streams`.
// It obeys lines from the virtio-serial port "control", and answers each with one line:
//   exec           runs `crun exec streams /bin/true`; answers "ok NANOSECONDS", of this guest's clock
//   take BYTES     so many bytes of the port "data" go through a pipe to `tar xf -` in /data; "ok 0"
//   give           what `tar cf -` makes of /data goes through a pipe to the port "data"; "ok BYTES"
// Each line that fails is answered with "failed" and what went wrong. The container is the one of /bundle.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CRUN "/usr/bin/crun", "--root", "/run/crun", "--cgroup-manager=cgroupfs"

static char* const kRun[] = {CRUN, "run", "--detach", "--bundle", "/bundle", "streams", NULL};
static char* const kExec[] = {CRUN, "exec", "streams", "/bin/true", NULL};
static char* const kTake[] = {"/bundle/rootfs/bin/busybox", "tar", "xf", "-", "-C", "/data", NULL};
static char* const kGive[] = {"/bundle/rootfs/bin/busybox", "tar", "cf", "-", "-C", "/data", ".", NULL};

static char buffer[1 << 16];

static void Require(int ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void Mount(const char* type, const char* target) {
  mkdir(target, 0755);
  Require(mount(type, target, type, 0, NULL) == 0, target);
}

// crun pivots, which the initramfs does not allow; a mount on top of it does.
static void SetUp(void) {
  mkdir("/sysroot", 0755);
  Require(mount("/", "/sysroot", NULL, MS_BIND, NULL) == 0, "bind the root");
  Require(chdir("/sysroot") == 0 && mount(".", "/", NULL, MS_MOVE, NULL) == 0, "move the root");
  Require(chroot(".") == 0 && chdir("/") == 0, "enter the root");
  Mount("proc", "/proc");
  Mount("sysfs", "/sys");
  Mount("devtmpfs", "/dev");
  Mount("devpts", "/dev/pts");
  Mount("mqueue", "/dev/mqueue");
  Mount("tmpfs", "/run");
  Mount("tmpfs", "/data");
  Mount("cgroup2", "/sys/fs/cgroup");
}

static int OpenPort(const char* name) {
  for (int attempt = 0; attempt < 1000; ++attempt, usleep(10000)) {
    DIR* const ports = opendir("/sys/class/virtio-ports");
    for (struct dirent* entry; ports != NULL && (entry = readdir(ports)) != NULL;) {
      char path[512], found[64] = "";
      snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
      FILE* const file = fopen(path, "r");
      if (file == NULL) continue;
      if (fgets(found, sizeof found, file) != NULL) found[strcspn(found, "\n")] = '\0';
      fclose(file);
      if (strcmp(found, name) != 0) continue;
      snprintf(path, sizeof path, "/dev/%s", entry->d_name);
      const int port = open(path, O_RDWR | O_CLOEXEC);
      closedir(ports);
      Require(port >= 0, path);
      return port;
    }
    if (ports != NULL) closedir(ports);
  }
  fprintf(stderr, "no virtio-serial port %s\n", name);
  exit(1);
}

// `end`: which of its standard streams is `descriptor`; -1: none.
static pid_t Start(char* const* command, int end, int descriptor) {
  const pid_t child = vfork();
  Require(child >= 0, "vfork");
  if (child > 0) return child;
  if (end >= 0) dup2(descriptor, end);
  execv(command[0], command);
  _exit(127);
}

static int Succeeds(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static long long Now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int WriteAll(int to, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = write(to, bytes, size);
    if (count <= 0) return 0;
    bytes += count;
    size -= (size_t)count;
  }
  return 1;
}

// Up to `limit` bytes; how many there were, or -1.
static long long Copy(int from, int to, long long limit) {
  long long done = 0;
  while (done < limit) {
    const long long left = limit - done;
    const ssize_t count = read(from, buffer, left < (long long)sizeof buffer ? (size_t)left : sizeof buffer);
    if (count < 0) return -1;
    if (count == 0) break;
    if (!WriteAll(to, buffer, (size_t)count)) return -1;
    done += count;
  }
  return done;
}

static int Exec(long long* result) {
  const long long begin = Now();
  const int done = Succeeds(Start(kExec, -1, -1));
  *result = Now() - begin;
  return done;
}

static int Take(int data, long long bytes) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return 0;
  const pid_t tar = Start(kTake, STDIN_FILENO, ends[0]);
  close(ends[0]);
  const int whole = Copy(data, ends[1], bytes) == bytes;
  close(ends[1]);
  return Succeeds(tar) && whole;
}

static int Give(int data, long long* result) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return 0;
  const pid_t tar = Start(kGive, STDOUT_FILENO, ends[1]);
  close(ends[1]);
  *result = Copy(ends[0], data, 1LL << 62);
  close(ends[0]);
  return Succeeds(tar) && *result >= 0;
}

int main(void) {
  SetUp();
  const int control = OpenPort("control");
  const int data = OpenPort("data");
  Require(Succeeds(Start(kRun, -1, -1)), "crun run");
  FILE* const lines = fdopen(control, "r");
  char line[256];
  while (fgets(line, sizeof line, lines) != NULL) {
    long long result = 0, bytes = 0;
    int done = 0;
    errno = 0;
    if (strcmp(line, "exec\n") == 0) done = Exec(&result);
    if (sscanf(line, "take %lld", &bytes) == 1) done = Take(data, bytes);
    if (strcmp(line, "give\n") == 0) done = Give(data, &result);
    if (done) {
      dprintf(control, "ok %lld\n", result);
    } else {
      dprintf(control, "failed: %s\n", strerror(errno));
    }
  }
  return 0;
}
