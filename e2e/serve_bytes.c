// serve_bytes PORT: for each connection, of either address family, one line and what it asks for, then the next line:
//   give COUNT    so many bytes
//   take COUNT    reads so many bytes, then answers "ok\n"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[1 << 18];

static void Require(int ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static int Listen(int port) {
  const int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Require(listener >= 0, "socket");
  const int no = 0, yes = 1;
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  Require(bind(listener, (struct sockaddr*)&address, sizeof address) == 0, "bind");
  Require(listen(listener, 16) == 0, "listen");
  return listener;
}

// One byte a time, so that nothing behind the line is taken.
static int ReadLine(int from, char* line, size_t size) {
  for (size_t length = 0; length + 1 < size; ++length) {
    if (read(from, line + length, 1) != 1) return 0;
    line[length + 1] = '\0';
    if (line[length] == '\n') return 1;
  }
  return 0;
}

static size_t Piece(long long left) {
  return left < (long long)sizeof buffer ? (size_t)left : sizeof buffer;
}

static int Give(int to, long long left) {
  while (left > 0) {
    const ssize_t count = write(to, buffer, Piece(left));
    if (count <= 0) return 0;
    left -= count;
  }
  return 1;
}

static int Take(int from, long long left) {
  while (left > 0) {
    const ssize_t count = read(from, buffer, Piece(left));
    if (count <= 0) return 0;
    left -= count;
  }
  return write(from, "ok\n", 3) == 3;
}

static void Serve(int connection) {
  char line[64];
  int going = 1;
  while (going && ReadLine(connection, line, sizeof line)) {
    long long count = 0;
    if (sscanf(line, "give %lld", &count) == 1) {
      going = Give(connection, count);
    } else if (sscanf(line, "take %lld", &count) == 1) {
      going = Take(connection, count);
    } else {
      going = 0;
    }
  }
}

int main(int argc, char** argv) {
  Require(argc == 2, "usage: serve_bytes PORT");
  signal(SIGCHLD, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  const int listener = Listen(atoi(argv[1]));
  printf("listening\n");
  fflush(stdout);
  for (;;) {
    const int connection = accept(listener, NULL, NULL);
    if (connection < 0 && errno == EINTR) continue;
    Require(connection >= 0, "accept");
    if (fork() == 0) {
      close(listener);
      Serve(connection);
      _exit(0);
    }
    close(connection);
  }
}
