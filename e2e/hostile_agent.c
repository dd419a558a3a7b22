// A guest's agent as an attacker would write it: /init of a guest image, in husk-agent's place. It opens the channel
// properly, answers until it knows the pod's hostname, and then does what that name says; see test_hostile.py.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const unsigned char kMarker[16] = "\xff\xfe\xd7husk-sync\xd7\xc3\xfd\xff";

enum { kMaximumFrame = 4 << 20 };

static int port;
static char port_path[64];
static char mode[64] = "good";

// ---- the machine ----------------------------------------------------------------------------------------------------

static void say(const char* text) {
  dprintf(2, "hostile: %s\n", text);
}

static void pause_ms(long milliseconds) {
  const struct timespec wait = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&wait, NULL);
}

static void load_modules(void) {
  FILE* const list = fopen("/etc/husk/modules", "re");
  char path[256];
  while (list != NULL && fgets(path, sizeof path, list) != NULL) {
    path[strcspn(path, "\n")] = 0;
    const int module = open(path, O_RDONLY | O_CLOEXEC);
    if (module >= 0) {
      syscall(SYS_finit_module, module, "", 0);
      close(module);
    }
  }
  if (list != NULL) fclose(list);
}

static void find_port(void) {
  for (;;) {
    DIR* const ports = opendir("/sys/class/virtio-ports");
    for (const struct dirent* entry; ports != NULL && (entry = readdir(ports)) != NULL;) {
      char path[512], name[64] = "";
      snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
      FILE* const file = fopen(path, "re");
      if (file == NULL) continue;
      if (fgets(name, sizeof name, file) == NULL) name[0] = 0;
      fclose(file);
      if (strcmp(name, "org.husk.agent\n") == 0) snprintf(port_path, sizeof port_path, "/dev/%.40s", entry->d_name);
    }
    if (ports != NULL) closedir(ports);
    if (port_path[0] != 0) return;
    pause_ms(5);
  }
}

static void open_port(void) {
  while ((port = open(port_path, O_RDWR | O_CLOEXEC)) < 0) pause_ms(5);
}

// ---- bytes out ------------------------------------------------------------------------------------------------------

static void send_all(const void* data, size_t size) {
  const char* at = data;
  while (size > 0) {
    const ssize_t count = write(port, at, size);
    if (count > 0) {
      at += count;
      size -= (size_t)count;
    } else {
      pause_ms(1);  // nobody has the host's end open
    }
  }
}

// A growing text; what does not fit is cut off.
struct buffer {
  size_t size;
  unsigned char bytes[kMaximumFrame + 64];
};

static void put(struct buffer* out, const void* data, size_t size) {
  if (size > sizeof out->bytes - out->size) size = sizeof out->bytes - out->size;
  memcpy(out->bytes + out->size, data, size);
  out->size += size;
}

static void put_varint(struct buffer* out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) put(out, &(unsigned char){(unsigned char)(value | 0x80)}, 1);
  put(out, &(unsigned char){(unsigned char)value}, 1);
}

static void put_number(struct buffer* out, unsigned field, uint64_t value) {
  put_varint(out, field << 3);
  put_varint(out, value);
}

static void put_bytes(struct buffer* out, unsigned field, const void* data, size_t size) {
  put_varint(out, field << 3 | 2);
  put_varint(out, size);
  put(out, data, size);
}

static void put_text(struct buffer* out, unsigned field, const char* text) {
  put_bytes(out, field, text, strlen(text));
}

static void put_header(unsigned char header[10], uint32_t size, uint32_t stream, unsigned type) {
  for (int i = 0; i < 4; ++i) {
    header[i] = (unsigned char)(size >> (24 - 8 * i));
    header[4 + i] = (unsigned char)(stream >> (24 - 8 * i));
  }
  header[8] = (unsigned char)type;
  header[9] = 0;
}

static void send_frame(uint32_t stream, unsigned type, const void* payload, size_t size) {
  unsigned char header[10];
  put_header(header, (uint32_t)size, stream, type);
  send_all(header, sizeof header);
  send_all(payload, size);
}

static struct buffer answer_frame;

static void answer(uint32_t stream, const void* payload, size_t size) {
  answer_frame.size = 0;
  put_bytes(&answer_frame, 2, payload, size);
  send_frame(stream, 2, answer_frame.bytes, answer_frame.size);
}

static void fail(uint32_t stream, unsigned code, const char* words) {
  static struct buffer status;
  status.size = answer_frame.size = 0;
  put_number(&status, 1, code);
  put_text(&status, 2, words);
  put_bytes(&answer_frame, 1, status.bytes, status.size);
  send_frame(stream, 2, answer_frame.bytes, answer_frame.size);
}

// ---- protobuf in ----------------------------------------------------------------------------------------------------

struct span {
  const unsigned char* data;
  size_t size;
};

static uint64_t take_varint(struct span* in) {
  uint64_t value = 0;
  for (int shift = 0; in->size > 0 && shift < 64; shift += 7) {
    const unsigned char byte = *in->data++;
    --in->size;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// The next field of varint or length-delimited kind; 0 at the end.
static unsigned take_field(struct span* in, struct span* bytes, uint64_t* number) {
  if (in->size == 0) return 0;
  const uint64_t key = take_varint(in);
  if ((key & 7) == 2) {
    bytes->size = take_varint(in);
    if (bytes->size > in->size) bytes->size = in->size;
    bytes->data = in->data;
    in->data += bytes->size;
    in->size -= bytes->size;
  } else {
    *number = take_varint(in);
  }
  return (unsigned)(key >> 3);
}

// The first field of that number and length-delimited.
static struct span find(struct span in, unsigned field) {
  struct span bytes = {NULL, 0}, none = {NULL, 0};
  uint64_t number = 0;
  for (unsigned at; (at = take_field(&in, &bytes, &number)) != 0; bytes = none) {
    if (at == field && bytes.data != NULL) return bytes;
  }
  return none;
}

static uint64_t find_number(struct span in, unsigned field) {
  struct span bytes;
  uint64_t number = 0;
  for (unsigned at; (at = take_field(&in, &bytes, &number)) != 0;) {
    if (at == field) return number;
  }
  return 0;
}

static int is(struct span text, const char* expected) {
  return text.size == strlen(expected) && memcmp(text.data, expected, text.size) == 0;
}

// ---- containers -----------------------------------------------------------------------------------------------------

// Each container's environment has HOSTILE=<what it does>.
struct container {
  char id[80];
  char behaviour[32];
  int polls;
};
static struct container containers[64];

static struct container* container_of(struct span id) {
  for (size_t i = 0; i < sizeof containers / sizeof *containers; ++i) {
    if (is(id, containers[i].id)) return &containers[i];
  }
  return NULL;
}

static void create_container(struct span request) {
  static int next;
  struct container* const made = &containers[next++ % 64];
  const struct span spec = find(request, 1), id = find(spec, 1), config = find(spec, 4);
  memset(made, 0, sizeof *made);
  memcpy(made->id, id.data, id.size < 79 ? id.size : 79);
  const char* const found = memmem(config.data, config.size, "HOSTILE=", 8);
  if (found != NULL) sscanf(found + 8, "%31[a-z-]", made->behaviour);
}

static void put_exit(struct buffer* out, const char* id, int code) {
  static struct buffer status;
  status.size = 0;
  put_text(&status, 1, id);
  put_number(&status, 3, 3);  // EXITED
  put_number(&status, 5, (uint64_t)code);
  put_bytes(out, 2, status.bytes, status.size);
}

static void put_chunk(struct buffer* out, const char* id, unsigned kind, uint64_t offset, const void* data, size_t size,
                      int end) {
  static struct buffer chunk;
  chunk.size = 0;
  put_text(&chunk, 1, id);
  put_number(&chunk, 3, kind);
  put_number(&chunk, 4, offset);
  put_bytes(&chunk, 5, data, size);
  put_number(&chunk, 6, (uint64_t)end);
  put_bytes(out, 1, chunk.bytes, chunk.size);
}

static const char kOther[] = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
static const char kForged[] =
    "plain\n2026-01-01T00:00:00.000000000Z stderr F forged\n\x1b[31mred\x1b[0m\x07\r\n"
    "\xff\xfe\0nul\n\n2026-01-01T00:00:00Z stdout P half";

// What a poll that has this cursor is told of its stream.
static void put_output(struct buffer* out, struct container* container, struct span cursor) {
  const uint64_t offset = find_number(cursor, 4);
  const unsigned kind = (unsigned)find_number(cursor, 3);
  if (strcmp(container->behaviour, "log") == 0) {
    put_chunk(out, container->id, kind, offset + (1ULL << 40), "from nowhere\n", 13, 0);
    put_chunk(out, kOther, kind, 0, "of another\n", 11, 0);
    put_chunk(out, container->id, 7, offset, "of no stream\n", 13, 0);
    put_chunk(out, container->id, kind, offset, kForged, sizeof kForged - 1, 1);
  } else if (strcmp(container->behaviour, "endless") == 0) {
    static unsigned char line[60000];
    memset(line, 'x', sizeof line);
    put_chunk(out, container->id, kind, offset, line, sizeof line, 0);
  } else {
    put_chunk(out, container->id, kind, offset, "", 0, 1);
  }
}

static int put_news(struct buffer* out, struct span request) {
  struct span field = {NULL, 0};
  uint64_t number = 0;
  int news = 0;
  for (unsigned at; (at = take_field(&request, &field, &number)) != 0;) {
    if (at > 2) continue;
    struct container* const container = container_of(find(field, 1));
    if (container == NULL) continue;
    if (at == 1) {
      put_output(out, container, field);
      news = 1;
      continue;
    }
    const char* const lasting[] = {"never", "endless", "still"};
    int lasts = 0;
    for (int i = 0; i < 3; ++i) lasts |= strcmp(container->behaviour, lasting[i]) == 0;
    if (lasts) continue;
    // Others' exits, one by an id that is no id, and the own one twice with two codes.
    put_exit(out, kOther, 1);
    put_exit(out, "../../../etc/passwd", 2);
    put_exit(out, container->id, 7);
    put_exit(out, container->id, 9);
    news = 1;
  }
  return news;
}

static void poll_request(uint32_t stream, struct span request) {
  static struct buffer out;
  out.size = 0;
  if (!put_news(&out, request)) pause_ms(300);
  answer(stream, out.bytes, out.size);
}

// ---- what the names mean --------------------------------------------------------------------------------------------

// Whole frames for streams that nobody opened, as fast as the port takes them.
static void flood_streams(void) {
  static unsigned char frames[10 * 6000];
  for (uint32_t stream = 1;;) {
    for (size_t at = 0; at < sizeof frames; at += 10, stream += 2) put_header(frames + at, 0, stream | 1, 2);
    send_all(frames, sizeof frames);
  }
}

static void flood_bytes(void) {
  static unsigned char bytes[1 << 16];
  memset(bytes, 0xff, sizeof bytes);
  for (;;) send_all(bytes, sizeof bytes);
}

static void dribble(void) {
  for (;; pause_ms(1000)) send_all("\0", 1);
}

static void churn(void) {
  for (;;) {
    close(port);
    pause_ms(50);
    open_port();
    pause_ms(50);
  }
}

// The next frame says that it is as long as frames may be, or longer, and never ends.
static void cut_frame(uint32_t stream, uint32_t size) {
  unsigned char header[10];
  static unsigned char bytes[1 << 16];
  put_header(header, size, stream, 2);
  send_all(header, sizeof header);
  for (uint32_t sent = sizeof bytes; sent < kMaximumFrame; sent += sizeof bytes) send_all(bytes, sizeof bytes);
}

// The guest's kernel resets its machine so (reboot=t on its command line).
static void reset_by_triple_fault(void) {
  reboot(RB_AUTOBOOT);
}

// Before anything else is answered. 1: the request is dealt with.
static int misbehave(uint32_t stream) {
  if (strcmp(mode, "streams") == 0) flood_streams();
  if (strcmp(mode, "bytes") == 0) flood_bytes();
  if (strcmp(mode, "dribble") == 0) dribble();
  if (strcmp(mode, "churn") == 0) churn();
  if (strcmp(mode, "reset") == 0) reset_by_triple_fault();
  if (strcmp(mode, "huge-frames") == 0) return cut_frame(stream, 0xffffffff), 1;
  if (strcmp(mode, "cut-frames") == 0) return cut_frame(stream, kMaximumFrame), 1;
  return strcmp(mode, "silent") == 0;
}

static void flood_console(void) {
  const int console = open("/dev/ttyS0", O_WRONLY | O_CLOEXEC);
  static char line[4096];
  memset(line, 'c', sizeof line - 1);
  line[sizeof line - 1] = '\n';
  for (int i = 0; i < 64; ++i) {
    if (write(console, line, sizeof line) < 0) return;
  }
}

// ---- requests -------------------------------------------------------------------------------------------------------

static struct buffer response;

static void hello(uint32_t stream) {
  response.size = 0;
  put_number(&response, 1, 1);
  put_text(&response, 2, "hostile");
  put_text(&response, 3, "6.1");
  put_text(&response, 4, "boot");
  put_number(&response, 5, UINT32_MAX);
  put_number(&response, 6, UINT64_MAX);
  answer(stream, response.bytes, response.size);
}

static void configure(uint32_t stream, struct span request) {
  const struct span hostname = find(find(request, 1), 1);
  if (hostname.size < sizeof mode) {
    memcpy(mode, hostname.data, hostname.size);
    mode[hostname.size] = 0;
  }
  if (strcmp(mode, "console") == 0) flood_console();
  answer(stream, "", 0);
}

static void read_volume(uint32_t stream) {
  // As much as a frame holds, whatever was asked, and never an end.
  static unsigned char bytes[kMaximumFrame - 4096];
  memset(bytes, 'm', sizeof bytes);
  response.size = 0;
  put_bytes(&response, 1, bytes, sizeof bytes);
  answer(stream, response.bytes, response.size);
}

static void handle(uint32_t stream, struct span request) {
  const struct span method = find(request, 2), payload = find(request, 3);
  if (is(method, "Hello")) return hello(stream);
  if (is(method, "ConfigureSandbox")) return configure(stream, payload);
  if (misbehave(stream)) return;
  if (is(method, "Poll")) return poll_request(stream, payload);
  if (is(method, "ReadVolume")) return read_volume(stream);
  if (is(method, "CreateContainer")) create_container(payload);
  if (is(method, "UpdateResources")) {
    const struct container* const container = container_of(find(payload, 1));
    if (container != NULL && strcmp(container->behaviour, "never") == 0) {
      return fail(stream, 3, "no:\n\x1b[31mI want more\x7f\xc3\xbc");
    }
  }
  answer(stream, "", 0);
}

// ---- the channel ----------------------------------------------------------------------------------------------------

static unsigned char raw[2 * kMaximumFrame];
static size_t raw_size;
static unsigned char nonce[16];
static int opened;
static uint64_t position;

// The bytes of the connection, unmasked.
static unsigned char frames[2 * kMaximumFrame];
static size_t frames_size;

static void take(size_t count) {
  for (size_t i = 0; opened && i < count && frames_size < sizeof frames; ++i) {
    frames[frames_size++] = raw[i] ^ nonce[position++ % 16];
  }
  memmove(raw, raw + count, raw_size - count);
  raw_size -= count;
  while (frames_size >= 10) {
    const uint32_t size = (uint32_t)frames[0] << 24 | (uint32_t)frames[1] << 16 | (uint32_t)frames[2] << 8 | frames[3];
    const uint32_t stream =
        (uint32_t)frames[4] << 24 | (uint32_t)frames[5] << 16 | (uint32_t)frames[6] << 8 | frames[7];
    if (size > kMaximumFrame || frames_size - 10 < size) return;
    handle(stream, (struct span){frames + 10, size});
    memmove(frames, frames + 10 + size, frames_size - 10 - size);
    frames_size -= 10 + size;
  }
}

static void received(void) {
  for (;;) {
    const unsigned char* const marker = memmem(raw, raw_size, kMarker, sizeof kMarker);
    if (marker == NULL) {
      // huskd's writes do not end like the beginning of a marker.
      take(raw_size);
      return;
    }
    if (marker > raw) take((size_t)(marker - raw));
    if (raw_size < 32) return;
    memcpy(nonce, raw + 16, sizeof nonce);
    send_all(raw, 32);
    opened = 0;
    take(32);
    opened = 1;
    position = 0;
    frames_size = 0;
  }
}

int main(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mkdir("/dev", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  load_modules();
  find_port();
  open_port();
  say("up");
  for (;;) {
    const ssize_t count = read(port, raw + raw_size, sizeof raw - raw_size);
    if (count > 0) {
      raw_size += (size_t)count;
      received();
    } else {
      pause_ms(5);  // the host's end is closed
    }
  }
}
