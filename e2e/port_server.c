// Programs of a pod that listen on its loopback, one at each port from FIRST on, in one process:
//   port_server FIRST
// +0 echo; +1 echo, at ::1 only; +2 says how many bytes it was sent, and their Adler-32, once they have ended; +3 says
// something, ends its side, and says on its standard output how much it was sent; +4 never reads; +5 resets the
// connection at the first byte; +6 writes without end.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kEcho, kEcho6, kDigest, kEndsFirst, kDeaf, kResets, kEndless, kKinds, kBuffer = 16384 };

struct peer {
  int fd;
  int kind;
  int listens;
  int ended;
  size_t filled;
  size_t sent;
  unsigned long long count;
  unsigned long long low;
  unsigned long long high;
  char buffer[kBuffer];
};

static int loop;

static void Stop(const char* what) {
  perror(what);
  exit(1);
}

static void Watch(struct peer* peer, int operation, unsigned events) {
  struct epoll_event event = {.events = events, .data = {.ptr = peer}};
  if (epoll_ctl(loop, operation, peer->fd, &event) != 0) Stop("epoll_ctl");
}

static struct peer* Make(int fd, int kind, int listens) {
  // Most of the buffer is never touched, and then takes no memory.
  struct peer* peer = calloc(1, sizeof(*peer));
  if (peer == NULL) Stop("calloc");
  peer->fd = fd;
  peer->kind = kind;
  peer->listens = listens;
  peer->low = 1;
  return peer;
}

static void Drop(struct peer* peer) {
  close(peer->fd);
  free(peer);
}

static void Listen(int kind, int port) {
  const int family = kind == kEcho6 ? AF_INET6 : AF_INET;
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  v6.sin6_addr = in6addr_loopback;
  const int bound =
      family == AF_INET ? bind(fd, (struct sockaddr*)&v4, sizeof(v4)) : bind(fd, (struct sockaddr*)&v6, sizeof(v6));
  if (bound != 0 || listen(fd, 4096) != 0) Stop("listen");
  Watch(Make(fd, kind, 1), EPOLL_CTL_ADD, EPOLLIN);
}

static void Accept(struct peer* listener) {
  const int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0) return;
  struct peer* peer = Make(fd, listener->kind, 0);
  if (peer->kind == kDeaf) return;  // nobody will look at it again
  if (peer->kind == kEndsFirst) {
    const char words[] = "all that I say\n";
    if (write(fd, words, sizeof(words) - 1) < 0) Stop("write");
    shutdown(fd, SHUT_WR);
  }
  if (peer->kind == kEndless) {
    memset(peer->buffer, 'y', kBuffer);
    peer->filled = kBuffer;
  }
  Watch(peer, EPOLL_CTL_ADD, peer->kind == kEndless ? EPOLLOUT : EPOLLIN);
}

static void Digest(struct peer* peer, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    peer->low += (unsigned char)peer->buffer[i];
    peer->high += peer->low;
  }
  peer->low %= 65521;
  peer->high %= 65521;
  peer->count += size;
}

static void Ended(struct peer* peer) {
  char words[64];
  const int size = snprintf(words, sizeof(words), "%llu %llu\n", peer->count, peer->high << 16 | peer->low);
  if (peer->kind == kDigest && write(peer->fd, words, (size_t)size) < 0) Stop("write");
  if (peer->kind == kEndsFirst) printf("heard %s", words), fflush(stdout);
  Drop(peer);
}

static void Reset(struct peer* peer) {
  const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  Drop(peer);
}

static void Readable(struct peer* peer) {
  const ssize_t size = read(peer->fd, peer->buffer, kBuffer);
  if (size < 0 && errno == EAGAIN) return;
  if (size < 0) return Drop(peer);
  if (size == 0) return Ended(peer);
  if (peer->kind == kResets) return Reset(peer);
  if (peer->kind == kDigest || peer->kind == kEndsFirst) return Digest(peer, (size_t)size);
  peer->filled = (size_t)size;
  peer->sent = 0;
  Watch(peer, EPOLL_CTL_MOD, EPOLLOUT);
}

static void Writable(struct peer* peer) {
  const ssize_t size = write(peer->fd, peer->buffer + peer->sent, peer->filled - peer->sent);
  if (size < 0 && errno == EAGAIN) return;
  if (size < 0) return Drop(peer);
  peer->sent += (size_t)size;
  if (peer->sent < peer->filled) return;
  peer->sent = 0;
  if (peer->kind == kEndless) return;
  peer->filled = 0;
  Watch(peer, EPOLL_CTL_MOD, EPOLLIN);
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  const struct rlimit files = {.rlim_cur = 20000, .rlim_max = 20000};
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) Stop("setrlimit");
  signal(SIGPIPE, SIG_IGN);
  loop = epoll_create1(0);
  for (int kind = 0; kind < kKinds; ++kind) Listen(kind, atoi(arguments[1]) + kind);
  printf("listening\n");
  fflush(stdout);
  while (1) {
    struct epoll_event events[64];
    const int ready = epoll_wait(loop, events, 64, -1);
    for (int i = 0; i < ready; ++i) {
      struct peer* peer = events[i].data.ptr;
      if (peer->listens) {
        Accept(peer);
      } else if (peer->kind == kEndless || peer->filled > peer->sent) {
        Writable(peer);
      } else {
        Readable(peer);
      }
    }
  }
}
