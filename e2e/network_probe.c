// Two things that busybox cannot do:
//   network_probe send INTERFACE FRAME...   puts frames (in hexadecimal digits, from the Ethernet header on) on a wire
//   network_probe echo PORT                 sends every UDP datagram back, of IPv4 and IPv6
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kLongest = 2048 };

static void Stop(const char* what) {
  perror(what);
  exit(1);
}

static size_t Decode(const char* digits, unsigned char* frame) {
  size_t length = 0;
  unsigned byte = 0;
  for (; length < kLongest && sscanf(digits + 2 * length, "%2x", &byte) == 1; ++length) {
    frame[length] = (unsigned char)byte;
  }
  return length;
}

static void Send(const char* interface, char** frames, int count) {
  const int wire = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  if (wire < 0) Stop("socket");
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_halen = 6};
  address.sll_ifindex = (int)if_nametoindex(interface);
  for (int i = 0; i < count; ++i) {
    unsigned char frame[kLongest];
    const size_t length = Decode(frames[i], frame);
    if (sendto(wire, frame, length, 0, (struct sockaddr*)&address, sizeof(address)) != (ssize_t)length) Stop("sendto");
  }
  printf("sent %d\n", count);
}

static void Echo(int port) {
  const int socket_fd = socket(AF_INET6, SOCK_DGRAM, 0);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
  if (socket_fd < 0 || bind(socket_fd, (struct sockaddr*)&address, sizeof(address)) != 0) Stop("bind");
  printf("listening\n");
  fflush(stdout);
  while (1) {
    char data[kLongest];
    struct sockaddr_in6 peer;
    socklen_t size = sizeof(peer);
    const ssize_t length = recvfrom(socket_fd, data, sizeof(data), 0, (struct sockaddr*)&peer, &size);
    if (length < 0) Stop("recvfrom");
    if (sendto(socket_fd, data, (size_t)length, 0, (struct sockaddr*)&peer, size) != length) Stop("sendto");
  }
}

int main(int count, char** arguments) {
  if (count > 3 && strcmp(arguments[1], "send") == 0) {
    Send(arguments[2], arguments + 3, count - 3);
  } else if (count == 3 && strcmp(arguments[1], "echo") == 0) {
    Echo(atoi(arguments[2]));
  } else {
    fputs("usage: network_probe send INTERFACE FRAME... | echo PORT\n", stderr);
    return 2;
  }
  return 0;
}
