"""The host's disk is full while a pod writes. One pod is booted."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from harness.daemon import Huskd, eventually

NUMBER = 36
MEBIBYTES = 96
STILL, ON = "stands still", "goes on: "
WRITE = (f"while ! test -e /begin; do sleep 0.1; done; yes 0123456789abcde | head -c {MEBIBYTES << 20} >/big && sync && "
         "echo written $(sha256sum </big); exec sleep 100000")


class SmallDisk:
    """A file system of its own, of 320 MiB, that can be filled up."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="husk-small-", dir="/var/tmp"))
        self.path, self.image = self.root / "disk", self.root / "image"
        self.path.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(320 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)

    def free(self):
        return shutil.disk_usage(self.path).free

    def fill(self, but):
        """Leaves `but` bytes free."""
        with open(self.path / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, self.free() - but)

    def clear(self):
        (self.path / "filler").unlink()

    def remove(self):
        subprocess.run(["umount", self.path], check=True)
        shutil.rmtree(self.root)


@pytest.fixture(scope="module")
def disk():
    instance = SmallDisk()
    yield instance
    instance.remove()


@pytest.fixture(scope="module")
def huskd(request, disk):
    daemon = Huskd(NUMBER)
    daemon.data = disk.path / "data"
    request.module.huskd_instance = daemon
    try:
        daemon.start()
        yield daemon
    finally:
        left = daemon.remove_everything()
    assert not left, "\n".join(left)


def test_a_pod_waits_for_space_and_goes_on(huskd, disk, image):
    pod = huskd.run_pod("waits")
    writer = pod.run("writes", image, ["/bin/sh", "-c", WRITE])
    disk.fill(but=24 << 20)
    assert writer.execute("touch", "/begin")[0] == 0

    def told(what):
        return huskd.log_path.read_text().count(what)
    eventually(lambda: told(STILL) == 1, "huskd to say that the VM stands still")
    assert pod.state() == "SANDBOX_READY"
    assert writer.state() == "CONTAINER_RUNNING"
    # A huskd that comes meanwhile finds the pod, and watches over it too.
    huskd.kill()
    huskd.start()
    assert pod.state() == "SANDBOX_READY"
    eventually(lambda: told(STILL) == 2, "the next huskd to say so")
    # It serves already, though the guest cannot answer.
    assert told("its guest has not answered yet") == 1
    assert told(ON) == 0

    disk.clear()
    log = writer.wait_for_log("written")
    whole = (b"0123456789abcde\n" * ((MEBIBYTES << 20) // 16))
    assert log.split() == ["written", hashlib.sha256(whole).hexdigest(), "-"]
    eventually(lambda: told(ON) == 1, "huskd to say that the VM goes on")
    assert (pod.state(), writer.state()) == ("SANDBOX_READY", "CONTAINER_RUNNING")
    pod.remove()
