"""What containers mount: the kubelet's files, kept live; empty directories; the termination message. One pod is booted."""

import hashlib
import os

import grpc
import pytest

from harness import host
from harness.daemon import eventually
from harness.kubelet_files import WATCH, WATCH_LARGE, PodDirectory, large_generation, mount, run_to_its_end, tmpfs


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("volumes")
    yield pod
    pod.remove()


@pytest.fixture(scope="module")
def files(huskd, pod):
    return PodDirectory(huskd.root / "kubelet", pod.config.metadata.uid)


def shell(container, script):
    code, output, errors = container.execute("/bin/sh", "-c", script)
    assert code == 0, errors
    return output


def test_a_config_map_is_swapped_whole(pod, files, image, huskd):
    volume = files.volume("configmap", "settings")
    files.write(volume, {"a": b"0", "b": b"0"})
    watcher = pod.run("watcher", image, ["/bin/sh", "-c", WATCH], mounts=[mount("/config", volume, True)])
    watcher.wait_for_log("saw 0\n")
    for generation in range(1, 21):
        files.write(volume, {"a": b"%d" % generation, "b": b"%d" % generation})
        watcher.wait_for_log(f"saw {generation}\n")
    # Many at once, of which the guest may see only the last.
    for generation in range(21, 41):
        files.write(volume, {"a": b"%d" % generation, "b": b"%d" % generation})
    watcher.wait_for_log("saw 40\n")
    huskd.kill()
    files.write(volume, {"a": b"41", "b": b"41"})
    huskd.start()
    watcher.wait_for_log("saw 41\n")
    files.write(volume, {"a": b"42", "b": b"42", "stop": b""})
    watcher.wait()
    assert "HALF" not in watcher.log()
    assert "Read-only" in pod.run("writer", image, ["/bin/sh", "-c", "echo x > /config/new"],
                                  mounts=[mount("/config", volume, True)]).wait_for_log("\n", "stderr")


def test_a_volume_of_two_hundred_mebibytes(pod, files, image):
    volume = files.volume("projected", "large")
    content = {f"f{index:03}": hashlib.sha256(b"%d" % index).digest() * 32768 for index in range(200)}
    files.write(volume, content)
    reader = pod.run("reader", image, ["/bin/sleep", "100000"], mounts=[mount("/large", volume, True)])

    def expected():
        return "".join(f"{hashlib.sha256(data).hexdigest()}  /large/{name}\n" for name, data in sorted(content.items()))
    assert shell(reader, "sha256sum /large/f*") == expected()
    content = {name: data[::-1] for name, data in content.items()}
    del content["f100"]
    files.write(volume, content)
    new = os.readlink(volume / "..data")
    eventually(lambda: shell(reader, "readlink /large/..data").strip() == new, "the new ..data in the guest")
    assert shell(reader, "sha256sum /large/..data/f* | sed s,..data/,,") == expected()
    # What is gone on the host goes: the old directory, and a link to what is no more.
    os.unlink(volume / "f100")
    eventually(lambda: shell(reader, "ls -A /large").split() == sorted([new, "..data", *content]), "what is gone to go")
    pod.client.StopContainer(container_id=reader.id, timeout=0)


def test_a_large_volume_is_swapped_whole(pod, files, image, huskd):
    volume = files.volume("configmap", "sized")
    files.write(volume, large_generation(0))
    watcher = pod.run("large", image, ["/bin/sh", "-c", WATCH_LARGE], mounts=[mount("/large", volume, True)])
    watcher.wait_for_log("saw 0\n")
    for generation in range(1, 5):
        files.write(volume, large_generation(generation))
        watcher.wait_for_log(f"saw {generation}\n")
    # Many at once, of which the guest may see only the last.
    for generation in range(5, 8):
        files.write(volume, large_generation(generation))
    watcher.wait_for_log("saw 7\n")
    # A swap needs no huskd, and the next one leaves the volume as it is.
    huskd.kill()
    files.write(volume, large_generation(8))
    huskd.start()
    watcher.wait_for_log("saw 8\n")
    second = pod.run("second-large", image, ["/bin/sh", "-c", "echo x > /large/new"],
                     mounts=[mount("/large", volume)])
    assert "Read-only" in second.wait_for_log("\n", "stderr")
    files.write(volume, {**large_generation(9), "stop": b""})
    watcher.wait()
    assert "HALF" not in watcher.log()
    # What is gone on the host is held open by nobody.
    eventually(lambda: not [target for pid in huskd.vm_processes() for target in host.open_files(pid)
                            if "generation" in target and "(deleted)" in target], "removed files to be closed")


def test_owners_modes_and_single_files(pod, files, image):
    secret = files.volume("secret", "token")
    files.write(secret, {"token": b"hush"})
    inside = secret / os.readlink(secret / "..data") / "token"
    os.chown(inside, 0, 4242)
    inside.chmod(0o440)
    hosts = files.path / "etc-hosts"
    hosts.write_text("10.1.2.3 example\n")
    container = pod.run("owners", image, ["/bin/sleep", "100000"],
                        mounts=[mount("/secret", secret, True), mount("/etc/hosts", hosts),
                                mount("/one/file", inside, True)])
    assert shell(container, "stat -L -c '%u %g %a' /secret/token").strip() == "0 4242 440"
    assert shell(container, "cat /secret/token /one/file") == "hushhush"
    assert shell(container, "cat /etc/hosts") == "10.1.2.3 example\n"
    hosts.write_text("10.1.2.4 example\n")
    eventually(lambda: shell(container, "cat /etc/hosts") == "10.1.2.4 example\n", "the new /etc/hosts")


def test_empty_directories(pod, files, image):
    disk = files.volume("empty-dir", "scratch")
    os.chown(disk, 0, 2000)
    disk.chmod(0o2770)
    memory = files.volume("empty-dir", "memory")
    with tmpfs(memory, "size=4m"), files.sub_path(disk, "part/inner", "second") as sub_path:
        first = pod.run("first", image, ["/bin/sleep", "100000"], mounts=[mount("/disk", disk), mount("/memory", memory)])
        second = pod.run("second", image, ["/bin/sleep", "100000"],
                         mounts=[mount("/part", sub_path), mount("/memory", memory, True)])
    assert shell(first, "stat -c '%u %g %a' /disk").strip() == "0 2000 2770"
    shell(first, "echo by the first > /disk/part/inner/file; echo m > /memory/file")
    assert shell(second, "cat /part/file /memory/file") == "by the first\nm\n"
    assert shell(second, "echo x > /memory/x 2>/dev/null || echo refused") == "refused\n"
    assert "tmpfs /memory" in shell(first, "cat /proc/mounts | cut -d' ' -f1,2,3 | sed s,^volume,tmpfs,")
    assert "full" in shell(first, "dd if=/dev/zero of=/memory/big bs=1M count=8 2>/dev/null || echo full")
    assert not list(disk.glob("*/*/file")), "nothing of it is on the host"


def test_the_termination_message_is_there_before_the_exit(pod, files, image):
    for attempt in range(10):
        message, container = run_to_its_end(pod, files, image, attempt)
        assert message == b"%04096d" % attempt
        assert container.status().exit_code == 3
        pod.client.RemoveContainer(container_id=container.id)


@pytest.mark.parametrize("path, words", [
    ("/no/such/place", "/no/such/place: does not exist"), ("relative", "is no absolute path"), ("", "is no absolute path")])
def test_what_cannot_be_mounted_is_refused(pod, image, path, words):
    with pytest.raises(grpc.RpcError) as error:
        pod.create("refused", image, ["/bin/true"], mounts=[mount("/data", path)])
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.value.details()
    assert not [item for item in pod.client.ListContainers(filter={"pod_sandbox_id": pod.id}).containers
                if item.metadata.name == "refused"]
