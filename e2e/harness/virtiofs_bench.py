"""Throughput of volumes in one pod: a directory of the host, and an emptyDir, which is on the pod's scratch disk; and of a
directory of the host by 9p, in a QEMU without Husk."""

import pathlib
import re
import statistics
import sys

from harness import bare_vm, guest_programs, host
from harness.daemon import PATIENCE
from harness.kubelet_files import PodDirectory, mount

MEBIBYTES = 256
NINE_P_MODULES = ["virtio_pci", "9pnet_virtio", "9p"]


def parse(output):
    return {operation: float(value) for operation, value in re.findall(r"(write|read) ([0-9.]+)", output)}


class NineP:
    """A guest of the same memory and accelerator as the pod's; Debian's generic kernel, because that for clouds, which
    pods have, has no client of 9p."""

    def __init__(self, directory, huskd):
        self._directory = pathlib.Path(directory)
        self._shared = self._directory / "nine-p"
        self._shared.mkdir()
        self._kernel, modules = bare_vm.generic_kernel()
        self._initrd = self._directory / "nine-p-initrd"
        bare_vm.write_initrd(self._initrd, modules, NINE_P_MODULES, ["volume_throughput"], directory)
        self._accelerator, self._memory = bare_vm.machine_of(huskd)

    def measure(self):
        console = self._directory / "nine-p-console"
        qemu = bare_vm.start(
            self._kernel, self._initrd, ["9p", "shared", "/volume_throughput", "/9p", str(MEBIBYTES)],
            ["-fsdev", f"local,id=shared,path={self._shared},security_model=none", "-device",
             "virtio-9p-pci,fsdev=shared,mount_tag=shared"], self._accelerator, console, self._memory)
        try:
            qemu.wait(4 * PATIENCE)
        finally:
            qemu.kill()
            qemu.wait()
        seconds = parse(host.read_text(console))
        if len(seconds) != 2:
            sys.exit(f"the guest with 9p: {host.read_text(console)[-2000:]}")
        return seconds


def measure(huskd, registry, directory, rounds):
    """{volume: {"write" or "read": MiB/s}}, medians of rounds in turns. `directory`: for what is made on the host."""
    image = guest_programs.pulled_image(huskd, registry, "husk/throughput", ["volume_throughput"])
    shared = pathlib.Path(directory, "shared")
    shared.mkdir()
    config = huskd.pod_config("volumes")
    empty = PodDirectory(directory, config.metadata.uid).volume("empty-dir", "scratch")
    pod = huskd.run_pod_with(config)
    container = pod.run("main", image, ["/bin/sleep", "1000000"], mounts=[
        mount("/virtiofs", shared), mount("/scratch", empty)])

    def in_pod(name):
        code, output, errors = container.execute("/volume_throughput", f"/{name}", str(MEBIBYTES))
        if code != 0:
            sys.exit(f"volume_throughput in {name}: {output}{errors}")
        return parse(output)

    contenders = {"virtiofs": lambda: in_pod("virtiofs"), "scratch": lambda: in_pod("scratch"),
                  "9p": NineP(directory, huskd).measure}
    seconds = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender())
            print(f"round {number + 1} of {rounds}: {name} {seconds[name][-1]}", file=sys.stderr)
    pod.remove()
    return {name: {operation: MEBIBYTES / statistics.median(values[operation] for values in of_name)
                   for operation in ("write", "read")} for name, of_name in seconds.items()}
