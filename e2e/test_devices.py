"""Block devices of the host in containers, devices that the guest has itself, and images as volumes."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import grpc
import pytest
import yaml

from harness import host
from harness.daemon import eventually
from harness.registry import sample_image

MEBIBYTE = 1 << 20

CDI = pathlib.Path("/var/tmp/husk-e2e-cdi")
HUSKD_CONFIGURATION = {"cdi": {"directories": [str(CDI / "static"), str(CDI / "dynamic")]}}


class LoopDevice:
    """A block device of the host, over a file."""

    def __init__(self, directory, name, size=8 * MEBIBYTE):
        self.file = pathlib.Path(directory, name)
        self.file.write_bytes(b"\0" * size)
        self.path = subprocess.run(["losetup", "--find", "--show", self.file], check=True, capture_output=True,
                                   text=True).stdout.strip()

    def read(self, offset, size):
        subprocess.run(["blockdev", "--flushbufs", self.path], check=True)
        with open(self.path, "rb") as device:
            device.seek(offset)
            return device.read(size)

    def write(self, offset, data):
        with open(self.path, "r+b", buffering=0) as device:
            device.seek(offset)
            device.write(data)
            os.fsync(device.fileno())

    def users(self):
        """Processes that have it open."""
        def has_it(pid):
            with contextlib.suppress(OSError):
                return self.path in host.open_files(pid)
            return False
        return [pid for pid in host.process_ids() if has_it(pid)]

    def access_modes(self):
        """How its users have opened it."""
        modes = set()
        for pid in self.users():
            for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(entry) == self.path:
                    flags = host.read_text(f"/proc/{pid}/fdinfo/{entry.name}").split("flags:")[1].split()[0]
                    modes.add(int(flags, 8) & os.O_ACCMODE)
        return modes

    def detach(self):
        subprocess.run(["losetup", "--detach", self.path], check=False)


@pytest.fixture(scope="module")
def directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix="husk-devices-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def disk(directory):
    device = LoopDevice(directory, "disk.img")
    yield device
    device.detach()


@pytest.fixture(scope="module")
def other_disk(directory):
    device = LoopDevice(directory, "other.img")
    yield device
    device.detach()


@pytest.fixture(scope="module")
def pod(huskd, image):
    made = huskd.run_pod("devices")
    yield made
    with contextlib.suppress(grpc.RpcError):
        made.remove()


def device(host_path, container_path, permissions="rwm"):
    return {"host_path": str(host_path), "container_path": container_path, "permissions": permissions}


def sleeper(pod, name, image, **fields):
    return pod.run(name, image, ["/bin/sleep", "1000000"], **fields)


def shell(container, script):
    code, output, errors = container.execute("/bin/sh", "-c", script)
    return code, output + errors


def refusal(pod, image, name="refused", **fields):
    with pytest.raises(grpc.RpcError) as refused:
        pod.create(name, image, ["/bin/true"], **fields)
    assert not [c for c in pod.client.ListContainers().containers if c.metadata.name == name]
    return refused.value


def test_block_devices(pod, image, disk, other_disk, directory):
    """cri-semantics: volumeDevices. Written, read, denied, shared by two containers, and let go by the last."""
    link = directory / "as-the-kubelet-names-it"
    link.symlink_to(disk.path)
    disk.write(0, b"of the host".ljust(512, b"."))
    writer = sleeper(pod, "writer", image, devices=[
        device(link, "/dev/xvda"), device(other_disk.path, "/dev/deep/er/xvdb", "r")])
    code, output = shell(writer, "head -c 11 /dev/xvda; ls -l /dev/xvda /dev/deep/er/xvdb; cat /sys/class/block/*/size")
    assert code == 0 and output.startswith("of the host"), output
    assert str(disk.file.stat().st_size // 512) in output.split(), output
    code, output = shell(writer, "printf 'of the guest' | dd of=/dev/xvda bs=512 seek=1 conv=fsync,sync")
    assert code == 0, output
    assert disk.read(512, 12) == b"of the guest"
    # Read-only: kept by the device's rule in the guest, and by the host, which opened it so.
    assert other_disk.access_modes() == {os.O_RDONLY} and disk.access_modes() == {os.O_RDWR}
    code, output = shell(writer, "dd if=/dev/zero of=/dev/deep/er/xvdb bs=512 count=1")
    assert code != 0 and "not permitted" in output.lower(), output

    # Another container of the pod: the same disk of the VM, by another name; and what it was not given stays closed.
    before = shell(writer, "ls /sys/class/block")[1]
    reader = sleeper(pod, "reader", image, devices=[device(disk.path, "/dev/sda", "rw")])
    code, output = shell(reader, "head -c 524 /dev/sda | tail -c 12")
    assert (code, output) == (0, "of the guest"), output
    assert shell(writer, "ls /sys/class/block")[1] == before
    code, output = shell(reader, "cd /tmp && mknod mine b 8 0 && head -c 1 mine")
    assert code != 0, output

    assert disk.users()
    pod.client.RemoveContainer(container_id=writer.id)
    assert not other_disk.users()
    assert shell(reader, "head -c 11 /dev/sda") == (0, "of the host")
    pod.client.RemoveContainer(container_id=reader.id)
    assert not disk.users()


def test_block_devices_outlive_huskd(huskd, pod, image, disk):
    """Also what was written while no huskd was there; and a disk that is in use is found again, not plugged in twice."""
    script = "n=0; while true; do n=$((n+1)); printf %08d $n | dd of=/dev/xvda bs=512 seek=8 conv=fsync,sync 2>/dev/null; done"
    counter = pod.run("counter", image, ["/bin/sh", "-c", script], devices=[device(disk.path, "/dev/xvda")])

    def count():
        text = disk.read(8 * 512, 8)
        return int(text) if text.strip(b"\0") else 0
    eventually(lambda: count() > 0, "the first number on the disk")
    huskd.kill()
    there = count()
    eventually(lambda: count() > there, "writing to go on without huskd")
    huskd.start()
    assert counter.state() == "CONTAINER_RUNNING"
    disks = shell(counter, "ls /sys/class/block")[1]
    second = sleeper(pod, "second", image, devices=[device(disk.path, "/dev/xvdb")])
    assert shell(second, "ls /sys/class/block")[1] == disks
    assert shell(second, "dd if=/dev/xvdb bs=512 skip=8 count=1 2>/dev/null | head -c 8")[0] == 0
    pod.client.RemoveContainer(container_id=counter.id)
    assert disk.users()
    pod.client.RemoveContainer(container_id=second.id)
    assert not disk.users()


def test_a_pods_end_lets_go_of_its_disks(huskd, image, disk):
    """What a container wrote and did not sync is on the device when it has ended."""
    before = huskd.snapshot()
    pod = huskd.run_pod("ends")
    container = pod.run("main", image, ["/bin/sh", "-c", "printf unsynced | dd of=/dev/xvda bs=512 seek=16 conv=sync"],
                        devices=[device(disk.path, "/dev/xvda")])
    assert container.wait().exit_code == 0
    assert disk.users()
    pod.remove()
    assert not disk.users()
    assert disk.read(16 * 512, 8) == b"unsynced"
    eventually(lambda: huskd.snapshot()["processes"] == before["processes"], "the pod's processes to go")


def test_devices_of_the_guest(pod, image):
    """What the guest's kernel has: /dev/fuse and /dev/net/tun, usable; and nothing more than was given."""
    container = sleeper(pod, "guest-devices", image, devices=[
        device("/dev/fuse", "/dev/fuse"), device("/dev/net/tun", "/dev/net/tun"),
        device("/dev/null", "/dev/black-hole", "rw"), device("/dev/zero", "/dev/zeros", "r")])
    code, output = shell(container, "ls -l /dev/fuse /dev/net/tun; exec 3<>/dev/fuse; exec 4<>/dev/net/tun; echo x > /dev/black-hole;"
                                    "head -c 2 /dev/zeros | wc -c")
    assert code == 0, output
    assert "10, 229" in output.replace("10,229", "10, 229").replace("  ", " "), output
    assert output.split()[-1] == "2"
    plain = sleeper(pod, "plain", image)
    assert shell(plain, "ls /dev/fuse")[0] != 0
    assert shell(plain, "cd /tmp && mknod fuse c 10 229 && exec 3<>fuse")[0] != 0


def test_devices_that_cannot_be_given_are_named(pod, image, directory):
    plain = directory / "plain"
    plain.write_text("x")
    fields = {"/dev/loop-control": "host_path /dev/loop-control", "/dev/no-such-device": "there is no such device",
              str(plain): f"{plain} is no device"}
    for path, words in fields.items():
        error = refusal(pod, image, devices=[device(path, "/dev/x")])
        assert words in error.details(), error.details()
        assert error.details().startswith("device /dev/x: "), error.details()
    # Of the guest's kernel, but not there.
    error = refusal(pod, image, devices=[device("/dev/ppp", "/dev/ppp")])
    assert "the virtual machine has no device /dev/ppp" in error.details()
    for broken, words in ((device("/dev/null", "/dev/x", "rx"), "permissions"), (device("/dev/null", "x"), "container_path"),
                          (device("/dev/null", "/dev/../x"), "container_path"), (device("/dev/null", "/dev/x", ""), "permissions")):
        error = refusal(pod, image, devices=[broken])
        assert words in error.details() and error.code() == grpc.StatusCode.INVALID_ARGUMENT, error.details()


def test_cri_04_host_paths(huskd, pod, image, disk, directory):
    """bad-inputs CRI-04: a block device, a dangling symlink, and a path that is swapped while it is in use."""
    def mount(path):
        return [{"container_path": "/v", "host_path": str(path)}]
    error = refusal(pod, image, mounts=mount(disk.path))
    assert f"host_path {disk.path}: is a block device" in error.details(), error.details()
    dangling = directory / "dangling"
    dangling.symlink_to(directory / "nowhere")
    error = refusal(pod, image, mounts=mount(dangling))
    assert f"host_path {dangling}: is a symlink to {directory}/nowhere, which does not exist" in error.details()

    swapped = directory / "swapped"
    (swapped / "inside").mkdir(parents=True)
    (swapped / "file").write_text("the first\n")
    container = sleeper(pod, "swapped", image, mounts=mount(swapped))
    swapped.rename(directory / "moved")
    swapped.symlink_to("/etc")
    assert shell(container, "cat /v/file; ls /v") == (0, "the first\nfile\ninside\n")
    assert shell(container, "echo guest > /v/new")[0] == 0
    assert (directory / "moved" / "new").read_text() == "guest\n"
    assert not pathlib.Path("/etc/new").exists()
    pod.client.RemoveContainer(container_id=container.id)


@pytest.fixture(scope="module")
def model(registry, huskd):
    """An image that is no program: directories, links, a file."""
    layer = sample_image.layer_tar([
        sample_image.Entry("weights"), sample_image.Entry("weights/part", b"the weights\n", 0o644),
        sample_image.Entry("weights/run", b"#!/bin/sh\necho ran\n"),
        sample_image.Entry("latest", symlink="/weights"), sample_image.Entry("outside", symlink="../../../../etc"),
    ])
    reference = registry.push("husk/model", layers=[layer])
    huskd.pull(reference)
    return reference


def image_mount(reference, container_path="/model", sub_path=""):
    return {"container_path": container_path, "image": {"image": reference}, "image_sub_path": sub_path, "readonly": True}


def test_image_volumes(huskd, pod, image, model):
    """cri-semantics: image volumes with sub-path, read-only, not executable; in use they are there though removed."""
    identity = huskd.client.ImageStatus(image={"image": model}).image.id
    container = sleeper(pod, "reader", image, mounts=[
        image_mount(model), image_mount(identity, "/part", "weights"), image_mount(model, "/linked", "latest")])
    assert shell(container, "cat /model/weights/part /part/part /linked/part") == (0, "the weights\n" * 3)
    for script in ("echo x > /model/x", "echo x > /part/part", "/part/run"):
        assert shell(container, script)[0] != 0, script
    mounts = {mount.container_path: mount for mount in container.status().mounts}
    assert mounts["/part"].image.image == identity and mounts["/part"].image_sub_path == "weights"
    assert mounts["/part"].readonly

    huskd.client.RemoveImage(image={"image": model})
    assert not huskd.client.ImageStatus(image={"image": model}).HasField("image")
    assert shell(container, "cat /model/weights/part") == (0, "the weights\n")
    huskd.kill()
    huskd.start()
    assert shell(container, "cat /model/weights/part") == (0, "the weights\n")
    pod.client.RemoveContainer(container_id=container.id)


def test_image_volumes_that_cannot_be(huskd, pod, image, model, registry):
    huskd.pull(model)
    watcher = sleeper(pod, "watcher", image)
    disks = shell(watcher, "ls /sys/class/block")[1]
    absent = f"{registry.address}/husk/absent:1"
    cases = {"not there": image_mount(absent), "no directory": image_mount(model, sub_path="weights/part"),
             "missing": image_mount(model, sub_path="missing"), "escape": image_mount(model, sub_path="../weights"),
             "absolute": image_mount(model, sub_path="/weights"), "link": image_mount(model, sub_path="outside")}
    for case, mount in cases.items():
        error = refusal(pod, image, mounts=[mount])
        assert error.details().startswith("ImageVolumeMountFailed: "), (case, error.details())
        name = absent if case == "not there" else mount["image_sub_path"]
        assert name in error.details(), (case, error.details())
    # Nothing is left plugged in of what was refused.
    assert shell(watcher, "ls /sys/class/block")[1] == disks
    pod.client.RemoveContainer(container_id=watcher.id)


@pytest.fixture
def cdi():
    """Writes specifications of devices of example.com/thing."""
    def write(directory, name, devices, edits=None):
        specification = {"cdiVersion": "0.6.0", "kind": "example.com/thing", "containerEdits": edits or {},
                         "devices": [{"name": key, "containerEdits": value} for key, value in devices.items()]}
        dump = json.dumps if name.endswith(".json") else yaml.safe_dump
        (CDI / directory).mkdir(parents=True, exist_ok=True)
        (CDI / directory / name).write_text(dump(specification))
    yield write
    shutil.rmtree(CDI, ignore_errors=True)


def test_cdi_devices(huskd, pod, image, cdi, disk, other_disk, directory):
    """cri-semantics: CDI devices: the later directory wins, every edit, a restart, and what is refused, by name."""
    libraries = directory / "libraries"
    libraries.mkdir()
    (libraries / "library").write_text("of the host\n")
    cdi("static", "disk.yaml", {"data": {"env": ["WHO=static"], "deviceNodes": [{"path": "/dev/never"}]}, "fuse": {
        "deviceNodes": [{"path": "/dev/fuse", "fileMode": 0o600}]}})
    minor = int(disk.path.removeprefix("/dev/loop"))
    cdi("dynamic", "disk.json", {
        "data": {"env": ["WHO=dynamic"], "additionalGids": [4711],
                 "deviceNodes": [{"path": "/dev/data", "hostPath": disk.path, "type": "b", "major": 7, "minor": minor,
                                  "fileMode": 0o640, "gid": 4711}],
                 "mounts": [{"hostPath": str(libraries), "containerPath": "/lib/vendor",
                             "options": ["ro", "nosuid", "nodev", "bind"]}]},
        "hooked": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]},
        "wrong": {"deviceNodes": [{"path": "/dev/data", "hostPath": other_disk.path, "major": 259}]},
    }, edits={"env": ["ALL=1"]})

    def names(*devices):
        return [{"name": f"example.com/thing={device}"} for device in devices]
    disk.write(0, b"by CDI".ljust(512, b"."))
    container = sleeper(pod, "cdi", image, CDI_devices=names("data", "fuse"))
    script = "echo $WHO $ALL; head -c 6 /dev/data; echo; cat /lib/vendor/library; stat -c '%a %g' /dev/data /dev/fuse; id -G"
    assert shell(container, script) == (0, "dynamic 1\nby CDI\nof the host\n640 4711\n600 0\n0 4711\n")
    assert shell(container, "echo x > /lib/vendor/x")[0] != 0
    assert shell(container, "ls /dev/never")[0] != 0
    # Not a mount that the kubelet asked for.
    assert not container.status().mounts
    huskd.kill()
    huskd.start()
    assert shell(container, script)[0] == 0
    pod.client.RemoveContainer(container_id=container.id)
    assert not disk.users()

    for device, words in {"hooked": "hooks: ", "wrong": f"device {other_disk.path} is 7:",
                          "absent": f"no specification in {CDI}/static, {CDI}/dynamic defines it"}.items():
        error = refusal(pod, image, CDI_devices=names(device))
        assert f"CDI device example.com/thing={device}" in error.details() and words in error.details(), error.details()
    error = refusal(pod, image, CDI_devices=[{"name": "no name"}])
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and '"no name"' in error.details()
