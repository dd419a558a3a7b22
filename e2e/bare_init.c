// The init of a guest without Husk, for comparisons: what follows "--" on the kernel's command line is its arguments.
//   pipe PROGRAM ARGUMENTS...         PROGRAM's output goes through a pipe, and from there to the virtio-serial port
//   run PROGRAM ARGUMENTS...          runs PROGRAM, whose output is the console's
//   9p TAG PROGRAM ARGUMENTS...       mounts the 9p file system TAG at /9p, then runs PROGRAM, whose output is the
//   console's
// Before that it loads the modules that /etc/husk/modules names. Afterwards the machine is switched off.
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[1 << 16];

static void Stop(const char* what) {
  perror(what);
  sync();
  reboot(RB_POWER_OFF);
  exit(1);
}

static void LoadModules(void) {
  FILE* list = fopen("/etc/husk/modules", "r");
  if (list == NULL) Stop("/etc/husk/modules");
  char path[256];
  while (fgets(path, sizeof path, list) != NULL) {
    path[strcspn(path, "\n")] = '\0';
    const int module = open(path, O_RDONLY | O_CLOEXEC);
    if (module < 0 || syscall(SYS_finit_module, module, "", 0) != 0) Stop(path);
    close(module);
  }
  fclose(list);
}

static int OpenPort(void) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    glob_t found;
    if (glob("/dev/vport*", 0, NULL, &found) == 0) {
      const int port = open(found.gl_pathv[0], O_WRONLY);
      if (port >= 0) return port;
    }
    usleep(10000);
  }
  Stop("no virtio-serial port");
  return -1;
}

static pid_t Run(char** command, int output) {
  const pid_t child = fork();
  if (child < 0) Stop("fork");
  if (child > 0) return child;
  if (output >= 0) dup2(output, STDOUT_FILENO);
  execv(command[0], command);
  perror(command[0]);
  _exit(127);
}

static void Pipe(char** command) {
  const int port = OpenPort();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Stop("pipe2");
  Run(command, ends[1]);
  close(ends[1]);
  for (;;) {
    const ssize_t size = read(ends[0], buffer, sizeof buffer);
    if (size < 0) Stop("read");
    if (size == 0) break;
    for (ssize_t done = 0; done < size;) {
      const ssize_t count = write(port, buffer + done, (size_t)(size - done));
      if (count <= 0) Stop("write to the port");
      done += count;
    }
  }
  // The last bytes may still be on their way to the host.
  sleep(1);
}

static void RunToItsEnd(char** command) {
  int status = 0;
  waitpid(Run(command, -1), &status, 0);
  printf("ended %d\n", status);
}

static void NineP(const char* tag, char** command) {
  mkdir("/9p", 0755);
  if (mount(tag, "/9p", "9p", 0, "trans=virtio,version=9p2000.L,msize=512000,cache=mmap") != 0) Stop("mount 9p");
  RunToItsEnd(command);
}

int main(int argc, char** argv) {
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  LoadModules();
  if (argc > 2 && strcmp(argv[1], "pipe") == 0) Pipe(argv + 2);
  if (argc > 2 && strcmp(argv[1], "run") == 0) RunToItsEnd(argv + 2);
  if (argc > 3 && strcmp(argv[1], "9p") == 0) NineP(argv[2], argv + 3);
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  return 1;
}
