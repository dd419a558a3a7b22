"""A node's reboot, as huskd and the kubelet see one: all processes gone, what a tmpfs held gone, another boot id."""

import contextlib
import os
import shutil
import signal
import subprocess
import uuid

from harness import host
from harness.daemon import eventually

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class OtherBoot:
    """A mount namespace in which the kernel seems to have been booted anew, as long as it is open."""

    def __init__(self, directory):
        self._file = directory / "boot_id"
        self._process = None

    def __enter__(self):
        self.boot_id = str(uuid.uuid4())
        self._file.write_text(self.boot_id + "\n")
        self._process = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"],
                                         stdin=subprocess.DEVNULL)
        place = f"/proc/{self._process.pid}/ns/mnt"
        try:
            eventually(lambda: os.readlink(place) != os.readlink("/proc/self/ns/mnt"), "a mount namespace")
            self.wrapper = ["nsenter", f"--mount={place}", "--"]
            subprocess.run([*self.wrapper, "mount", "--bind", str(self._file), BOOT_ID], check=True)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()

    def _end(self):
        self._process.kill()
        self._process.wait()


def power_off(huskd, kubelet):
    """Ends both and all machines at once, and takes away what would not outlive it."""
    for process in (kubelet.process, huskd.process):
        process.kill()
        process.wait()
    for pid in huskd.vm_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not huskd.vm_processes(), "the machines to end")
    mine = (str(huskd.state), str(kubelet.root))
    for mount in sorted((one for one in host.mounts() if one.startswith(mine)), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(huskd.run_state)
    for link in host.links():
        if link == huskd.bridge or link.startswith("veth"):
            subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
    # The root of the kubelet's cgroups is there after a boot: whoever boots the node makes it.
    for directory in sorted(host.cgroups(huskd.cgroup_root.lstrip("/")), reverse=True):
        if not directory.endswith(huskd.cgroup_root):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def power_on(huskd, kubelet, wrapper=()):
    huskd.wrapper = kubelet.wrapper = list(wrapper)
    huskd.start()
    kubelet.start()
