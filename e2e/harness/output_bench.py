"""How fast a container's standard output gets into its log, and the same bytes from a pipe through virtio-serial into a
file, by a QEMU without Husk."""

import pathlib
import statistics
import subprocess
import sys
import threading
import time

from harness import bare_vm, guest_programs, host
from harness.daemon import PATIENCE, eventually

MODULES = ["virtio_pci", "virtio_console"]
LINES = {"100b_lines": 100, "16k_lines": 16384}
RECORD_HEAD = len("2026-01-02T03:04:05.000000006Z stdout F ")


class Memory:
    """Samples a process's resident memory from its start to stop()."""

    def __init__(self, pid):
        self.first = host.resident_bytes(pid)
        self.highest = self.first
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.05):
            self.highest = max(self.highest, host.resident_bytes(self._pid))

    def stop(self):
        self._stop.set()
        self._thread.join()

    def growth(self):
        return self.highest - self.first


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def mebibytes_per_second(path, length, mebibytes, patience):
    """Of the file's way from its first bytes to `length`."""
    eventually(lambda: size(path) > 0, f"bytes in {path}", interval=0.002)
    start = time.monotonic()
    eventually(lambda: size(path) >= length, lambda: f"{length} bytes in {path}: {size(path)}", patience, 0.005)
    return mebibytes / (time.monotonic() - start)


def lines_of(mebibytes, line):
    return -(-(mebibytes << 20) // line)


def through_bare_qemu(directory, initrd, accelerator, mebibytes, line, patience):
    output, console = directory / "output", directory / "console"
    output.unlink(missing_ok=True)
    qemu = bare_vm.start(
        bare_vm.GUEST / "kernel", initrd, ["pipe", "/write_lines", str(mebibytes), str(line)],
        ["-device", "virtio-serial-pci,id=serial,disable-legacy=on", "-chardev", f"file,id=out,path={output}", "-device",
         "virtserialport,bus=serial.0,chardev=out"], accelerator, console)
    try:
        rate = mebibytes_per_second(output, lines_of(mebibytes, line) * line, mebibytes, patience)
        qemu.wait(PATIENCE)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        sys.exit(f"the bare QEMU: {error}\n{host.read_text(console)[-2000:]}")
    finally:
        qemu.kill()
        qemu.wait()
        output.unlink(missing_ok=True)
    return rate


def through_husk(pod, image, number, mebibytes, line, patience):
    container = pod.run(f"writer{number}", image, ["/write_lines", str(mebibytes), str(line)])
    count = lines_of(mebibytes, line)
    rate = mebibytes_per_second(container.log_path, count * (line + RECORD_HEAD), mebibytes, patience)
    container.wait()
    with open(container.log_path, "rb") as log:
        for index, record in enumerate(log):
            if int(record[RECORD_HEAD:RECORD_HEAD + 20]) != index:
                sys.exit(f"record {index} of {container.log_path} is {record[:80]!r}")
    if index + 1 != count:
        sys.exit(f"{index + 1} records of {count} in {container.log_path}")
    pod.client.RemoveContainer(container_id=container.id)
    container.log_path.unlink()
    return rate


def measure(huskd, registry, directory, rounds, mebibytes):
    """({kind of lines: (MiB/s with Husk, MiB/s without)}, the growth of huskd's memory in bytes): medians of rounds in
    turns."""
    directory = pathlib.Path(directory)
    initrd = directory / "bare-initrd"
    bare_vm.write_initrd(initrd, bare_vm.GUEST / "kernel.parts" / "modules", MODULES, ["write_lines"], directory)
    image = guest_programs.pulled_image(huskd, registry, "husk/lines", ["write_lines"])
    pod = huskd.run_pod("output")
    # Warm: the first container of a pod reads its image.
    through_husk(pod, image, 0, 1, 100, PATIENCE)
    accelerator, _ = bare_vm.machine_of(huskd)
    patience = PATIENCE + mebibytes
    rates = {name: ([], []) for name in LINES}
    memory = Memory(huskd.pid)
    number = 0
    for turn in range(rounds):
        for name, line in LINES.items():
            number += 1
            rates[name][0].append(through_husk(pod, image, number, mebibytes, line, patience))
            rates[name][1].append(through_bare_qemu(directory, initrd, accelerator, mebibytes, line, patience))
            print(f"round {turn + 1} of {rounds}: {name} {rates[name][0][-1]:.1f} and {rates[name][1][-1]:.1f} MiB/s",
                  file=sys.stderr)
    memory.stop()
    pod.remove()
    return {name: tuple(map(statistics.median, values)) for name, values in rates.items()}, memory.growth()
