// Makes the system calls it is named, each in a process of its own, and prints "<name> <errno>" for each, 0 if it
// worked. Arguments are chosen so that the kernel refuses by itself what would do something.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long Clone(unsigned long flags) {
  const long child = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
  if (child == 0) _exit(0);
  if (child > 0) waitpid((pid_t)child, NULL, 0);
  return child;
}

static long Call(const char* name) {
  if (strcmp(name, "unshare") == 0) return unshare(CLONE_NEWUSER);
  if (strcmp(name, "mount") == 0) return syscall(SYS_mount, "none", "/nowhere/at/all", "tmpfs", 0, NULL);
  if (strcmp(name, "keyctl") == 0) return syscall(SYS_keyctl, 0, -3, 0, 0, 0);
  if (strcmp(name, "bpf") == 0) return syscall(SYS_bpf, -1, NULL, 0);
  if (strcmp(name, "perf_event_open") == 0) return syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0);
  if (strcmp(name, "io_uring_setup") == 0) return syscall(SYS_io_uring_setup, 0, NULL);
  if (strcmp(name, "userfaultfd") == 0) return syscall(SYS_userfaultfd, -1);
  if (strcmp(name, "kexec_load") == 0) return syscall(SYS_kexec_load, 0, 0, NULL, -1);
  if (strcmp(name, "setns") == 0) return setns(-1, 0);
  if (strcmp(name, "swapon") == 0) return syscall(SYS_swapon, "/nowhere", 0);
  if (strcmp(name, "clone") == 0) return Clone(0);
  if (strcmp(name, "clone_user") == 0) return Clone(CLONE_NEWUSER);
  if (strcmp(name, "clone3") == 0) return syscall(SYS_clone3, NULL, 0);
  if (strcmp(name, "vsock") == 0) return socket(AF_VSOCK, SOCK_STREAM, 0);
  if (strcmp(name, "unix") == 0) return socket(AF_UNIX, SOCK_STREAM, 0);
  if (strcmp(name, "personality") == 0) return syscall(SYS_personality, 0x0400000);
  if (strcmp(name, "mkdir") == 0) return syscall(SYS_mkdir, "/nowhere/at/all", 0700);
  if (strcmp(name, "unknown") == 0) return syscall(1000);
  fprintf(stderr, "%s: no such call here\n", name);
  exit(2);
}

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      const long result = Call(names[i]);
      printf("%s %d\n", names[i], result < 0 ? errno : 0);
      fflush(stdout);
      _exit(0);
    }
    waitpid(child, NULL, 0);
  }
  return 0;
}
