// Writes to a SCSI disk by every way that root has: scsi_write MAJOR:MINOR. Says of each how it ended.
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { kSector = 512, kSenseSize = 64, kMilliseconds = 20000 };

// Not in the container's root, whose devices mean nothing.
static const char kNode[] = "/dev/disk-to-write";

// A command sent past the kernel's own idea of what may be written.
static void send_command(int device, const char* name, const unsigned char* command, unsigned char size) {
  unsigned char data[kSector], sense[kSenseSize] = {0};
  memset(data, 0xee, sizeof data);
  struct sg_io_hdr header = {
      .interface_id = 'S',
      .dxfer_direction = SG_DXFER_TO_DEV,
      .cmd_len = size,
      .mx_sb_len = sizeof sense,
      .dxfer_len = sizeof data,
      .dxferp = data,
      .cmdp = (unsigned char*)command,
      .sbp = sense,
      .timeout = kMilliseconds,
  };
  if (ioctl(device, SG_IO, &header) != 0) {
    printf("%s: not sent: %s\n", name, strerror(errno));
  } else if (header.status == 0 && header.host_status == 0 && header.driver_status == 0) {
    printf("%s: WRITTEN\n", name);
  } else {
    printf("%s: refused by the disk: status %d sense %x/%02x\n", name, header.status, sense[2] & 0xf, sense[12]);
  }
}

int main(int argc, char** argv) {
  unsigned major_number = 0, minor_number = 0;
  if (argc != 2 || sscanf(argv[1], "%u:%u", &major_number, &minor_number) != 2) return 2;
  mknod(kNode, S_IFBLK | 0600, makedev(major_number, minor_number));
  const int device = open(kNode, O_RDONLY | O_CLOEXEC);
  if (device < 0) return printf("open: %s\n", strerror(errno)), 1;
  int writable = 0;
  printf("set writable: %s\n", ioctl(device, BLKROSET, &writable) == 0 ? "done" : strerror(errno));
  const int for_writing = open(kNode, O_WRONLY | O_CLOEXEC);
  if (for_writing < 0) {
    printf("open for writing: %s\n", strerror(errno));
  } else {
    const char text[kSector] = "x";
    const int written = pwrite(for_writing, text, sizeof text, 0) == kSector && fsync(for_writing) == 0;
    printf("write: %s\n", written ? "WRITTEN" : strerror(errno));
  }
  send_command(device, "WRITE(10)", (const unsigned char[]){0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 10);
  send_command(device, "WRITE SAME", (const unsigned char[]){0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 10);
  send_command(device, "WRITE(16)", (const unsigned char[]){0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}, 16);
  return 0;
}
