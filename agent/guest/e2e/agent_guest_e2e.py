#!/usr/bin/env python3
"""Boots the guest image in QEMU and walks its agent through a pod's life.

usage: agent_guest_e2e.py --image DIR --proto DIR_OF_GENERATED_PYTHON
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import guest as guests  # noqa: E402

SCRATCH_LUN = 0
IMAGE_LUN = 3
NAMESPACES = ["pid", "mount", "cgroup"]


def make_disks(directory):
    scratch = directory / "scratch.img"
    with open(scratch, "wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", scratch], check=True)
    tree = directory / "tree"
    for name in ("bin", "etc", "dev", "proc", "sys", "tmp", "home/alice"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in ("sh", "cat", "echo", "id", "sleep", "head", "env", "ls", "stty", "dd", "seq", "ip", "hostname", "tail"):
        os.link(tree / "bin/busybox", tree / "bin" / applet)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nalice:x:1001:\nwheel:x:10:alice\n")
    # A link that points out of the container must not let it out.
    (tree / "etc/resolv.conf").symlink_to("../../../../tmp/resolv-target")
    image = directory / "image.erofs"
    subprocess.run(["mkfs.erofs", "-T0", image, tree], check=True, stdout=subprocess.DEVNULL)
    os.truncate(image, (image.stat().st_size + 4095) // 4096 * 4096)
    return {SCRATCH_LUN: scratch, IMAGE_LUN: image}


def oci_config(arguments, memory=None, env=()):
    resources = {"memory": {"limit": memory}} if memory else {}
    return json.dumps({
        "ociVersion": "1.0.2",
        "process": {"args": arguments, "cwd": "/", "env": ["PATH=/bin", *env]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES], "resources": resources},
    }).encode()  # fmt: skip


class Pod:
    """The steps that the tests share."""

    def __init__(self, proto, guest):
        self.proto = proto
        self.guest = guest
        self.client = guest.connect(proto)

    def reconnect(self):
        self.client.close()
        self.client = self.guest.connect(self.proto)

    def create(self, name, arguments, user="", memory=None, **spec):
        return self.client.call("CreateContainer", spec=self.proto.ContainerSpec(
            id=name, image_lun=IMAGE_LUN, user=self.proto.User(image_user=user),
            oci_config_json=oci_config(arguments, memory), **spec))  # fmt: skip

    def run(self, name, arguments, **options):
        self.create(name, arguments, **options)
        return self.client.call("StartContainer", container_id=name)

    def poll(self, name, exec_id="", offsets=None, watch=True, wait=60000):
        cursors = [
            self.proto.StreamCursor(container_id=name, exec_id=exec_id, kind=kind, offset=offset, acknowledged=offset)
            for kind, offset in (offsets or {}).items()
        ]
        watched = [self.proto.ProcessRef(container_id=name, exec_id=exec_id)] if watch else []
        return self.client.call("Poll", cursors=cursors, watch=watched, wait_milliseconds=wait)

    def drain(self, name, exec_id=""):
        """All output until both streams end, and the exit status."""
        output = {self.proto.STDOUT: b"", self.proto.STDERR: b""}
        open_streams = set(output)
        status = None
        while open_streams or status is None:
            answer = self.poll(name, exec_id, {kind: len(output[kind]) for kind in open_streams}, status is None)
            assert not answer.unknown, answer
            for chunk in answer.chunks:
                assert chunk.offset == len(output[chunk.kind]), (chunk.offset, len(output[chunk.kind]))
                output[chunk.kind] += chunk.data
                if chunk.end:
                    open_streams.discard(chunk.kind)
            for exited in answer.exits:
                status = exited
        return output[self.proto.STDOUT], output[self.proto.STDERR], status

    def finish_status(self, name):
        """The exit code of a container whose output has been read."""
        (status,) = self.poll(name).exits
        self.client.call("RemoveContainer", container_id=name)
        return status.exit_code

    def finish(self, name):
        result = self.drain(name)
        self.client.call("RemoveContainer", container_id=name)
        return result

    def fails(self, code, name, **fields):
        try:
            self.client.call(name, **fields)
        except guests.RpcError as error:
            assert error.code == code, error
            return error.message
        raise AssertionError(f"{name} should have failed")


def configure(pod):
    config = pod.proto.SandboxConfig(
        hostname="husk-pod",
        interfaces=[pod.proto.Interface(
            name="eth7", mac_address="52:54:00:aa:bb:cc", mtu=1400,
            addresses=["10.9.8.7/24", "fd00::7/64"],
            routes=[pod.proto.Route(destination="0.0.0.0/0", gateway="10.9.8.1"),
                    pod.proto.Route(destination="10.20.0.0/16", gateway="192.0.2.1"),
                    pod.proto.Route(destination="::/0", gateway="fd00::1")])],
        dns_servers=["10.0.0.53"], dns_searches=["cluster.example"], dns_options=["ndots:5"],
        sysctls={"net.core.somaxconn": "777", "kernel.shm_rmid_forced": "1"}, scratch_lun=SCRATCH_LUN)  # fmt: skip
    pod.client.call("ConfigureSandbox", config=config)
    pod.client.call("ConfigureSandbox", config=config)
    config.hostname = "other"
    pod.fails(9, "ConfigureSandbox", config=config)


def test_user_and_files(pod):
    script = "id; env; cat /etc/resolv.conf /etc/hostname /proc/sys/net/core/somaxconn; hostname; ip addr; ip route; ls -ld /dev/shm; echo oops >&2; exit 3"
    created = pod.create("files", ["sh", "-c", script], user="alice")
    assert (created.uid, created.gid, list(created.supplemental_gids)) == (1000, 1001, [10, 1001]), created
    started = pod.client.call("StartContainer", container_id="files")
    assert started.pid > 1 and started == pod.client.call("StartContainer", container_id="files")
    out, err, status = pod.finish("files")
    for expected in (
        b"uid=1000(alice) gid=1001(alice) groups=10(wheel),1001(alice)", b"HOME=/home/alice", b"nameserver 10.0.0.53", b"ndots:5",
        b"search cluster.example", b"husk-pod", b"777", b"eth7", b"52:54:00:aa:bb:cc", b"10.9.8.7/24", b"fd00::7/64",
        b"mtu 1400", b"default via 10.9.8.1", b"10.20.0.0/16 via 192.0.2.1", b"drwxrwxrwt",
    ):  # fmt: skip
        assert expected in out, (expected, out.decode())
    assert b"tentative" not in out, out.decode()
    assert err == b"oops\n", err
    assert status.exit_code == 3 and not status.oom_killed, status


def test_refusals(pod):
    message = pod.fails(3, "CreateContainer", spec=pod.proto.ContainerSpec(
        id="nobody", image_lun=IMAGE_LUN, user=pod.proto.User(username="mallory"), oci_config_json=oci_config(["sh"])))  # fmt: skip
    assert "mallory" in message
    pod.fails(3, "CreateContainer", spec=pod.proto.ContainerSpec(id="../x", image_lun=IMAGE_LUN))
    pod.create("missing", ["/no/such/program"])
    message = pod.fails(9, "StartContainer", container_id="missing")
    assert "/no/such/program" in message, message
    out, _, status = pod.finish("missing")
    assert status.exit_code == 128 and "/no/such/program" in status.start_error and out == b"", status
    unknown = pod.poll("nothing").unknown
    assert unknown[0].container_id == "nothing"


def test_stdin_exec_and_signal(pod):
    pod.run("main", ["sh", "-c", "trap 'exit 9' TERM; cat; while :; do sleep 1; done"], stdin=True)
    assert pod.client.call("WriteStdin", container_id="main", offset=0, data=b"abc").offset == 3
    assert pod.client.call("WriteStdin", container_id="main", offset=1, data=b"bcdef").offset == 6
    pod.fails(11, "WriteStdin", container_id="main", offset=9, data=b"x")
    assert pod.client.call("WriteStdin", container_id="main", offset=6, data=b"\n", close=True).offset == 7
    answer = pod.poll("main", offsets={pod.proto.STDOUT: 0})
    got = b"".join(chunk.data for chunk in answer.chunks)
    while len(got) < 7:
        got += b"".join(c.data for c in pod.poll("main", offsets={pod.proto.STDOUT: len(got)}).chunks)
    assert got == b"abcdef\n", got

    pod.client.call("Exec", container_id="main", exec_id="one", arguments=[b"sh", b"-c", b"cat; echo out; echo err >&2; exit 5"], stdin=True)
    pod.client.call("WriteStdin", container_id="main", exec_id="one", data=b"hello ", close=True)
    out, err, status = pod.drain("main", "one")
    assert (out, err, status.exit_code) == (b"hello out\n", b"err\n", 5), (out, err, status)
    pod.fails(5, "Exec", container_id="main", exec_id="two", arguments=[b"/no/such"])

    pod.client.call("Exec", container_id="main", exec_id="tty", arguments=[b"sh", b"-c", b"stty size; cat"], tty=True, stdin=True)
    pod.client.call("ResizeTerminal", container_id="main", exec_id="tty", columns=99, rows=33)
    pod.client.call("WriteStdin", container_id="main", exec_id="tty", data=b"typed\n")
    pod.client.call("WriteStdin", container_id="main", exec_id="tty", offset=6, data=b"", close=True)
    out, err, status = pod.drain("main", "tty")
    assert out.count(b"typed\r\n") == 2 and status.exit_code == 0 and err == b"", (out, err, status)

    pod.client.call("Exec", container_id="main", exec_id="slow", arguments=[b"sh", b"-c", b"sleep 1000 & sleep 1000"])
    pod.client.call("SignalExec", container_id="main", exec_id="slow", signal=signal.SIGTERM)
    _, _, status = pod.drain("main", "slow")
    assert status.exit_code == 128 + signal.SIGTERM, status
    names = {status.exec_id for status in pod.client.call("ListProcesses").processes}
    assert names == {"", "one", "two", "tty", "slow"}, names
    for exec_id in ("one", "one", "unknown"):
        pod.client.call("RemoveExec", container_id="main", exec_id=exec_id)

    pod.client.call("SignalContainer", container_id="main", signal=signal.SIGTERM)
    _, _, status = pod.finish("main")
    assert status.exit_code == 9, status


def test_reconnect(pod):
    """Output by the megabyte, read over connections that break at every kind of place."""
    total = 3_000_000
    pod.run("flood", ["sh", "-c", "seq 1 1000000 | head -c %d" % total])
    expected = "".join(f"{n}\n" for n in range(1, 500_000)).encode()[:total]
    received = b""
    round_number = 0
    ended = False
    while not ended:
        if len(received) // 150_000 > round_number:
            round_number += 1
            if round_number % 2:
                # An answer that is never read, and half a request behind it.
                pod.client.start("Poll", cursors=[pod.proto.StreamCursor(container_id="flood", kind=pod.proto.STDOUT, offset=len(received), acknowledged=len(received))])
                _, frame = pod.client.frame("WriteStdin", container_id="flood", data=b"x" * 50_000)
                pod.client.socket.sendall(pod.client.mask(frame[: 1 + round_number * 997 % len(frame)]))
            pod.reconnect()
        for chunk in pod.poll("flood", offsets={pod.proto.STDOUT: len(received)}, watch=False).chunks:
            assert chunk.offset == len(received), (chunk.offset, len(received))
            received += chunk.data
            ended = chunk.end
    assert received == expected, (len(received), len(expected))
    assert round_number > 5
    assert pod.finish_status("flood") == 0


def test_oom(pod):
    pod.run("hungry", ["sh", "-c", "tail /dev/zero; exit 7"], memory=24 << 20)
    _, _, status = pod.finish("hungry")
    assert status.oom_killed and status.exit_code != 0, status


def test_memory_that_could_grow(pod):
    """Who comes to the end of memory is held, and it is told; when no more memory comes, it meets that end."""
    pod.client.call("ResizeGuest", cpus=1, memory_can_grow=True)
    pod.run("growing", ["sh", "-c", "exec tail /dev/zero"])
    watch = [pod.proto.ProcessRef(container_id="growing")]
    for told in range(2):
        news = pod.proto.MemoryNews(shortages=told)
        answer = pod.client.call("Poll", watch=watch, wait_milliseconds=60000, memory=news)
        assert answer.memory.shortages > told and not answer.memory.surpluses and not answer.exits, answer
    _, _, status = pod.finish("growing")
    assert status.oom_killed and status.guest_out_of_memory, status
    # What is asked for after that is for a new mark.
    pod.client.call("ResizeGuest", cpus=1)
    answer = pod.client.call("Poll", wait_milliseconds=1, memory=pod.proto.MemoryNews(shortages=1 << 40))
    assert not answer.HasField("memory"), answer


def test_remove_running(pod):
    for name in ("first", "second"):
        pod.run(name, ["sleep", "1000"])
    pod.client.call("Exec", container_id="first", exec_id="e", arguments=[b"sleep", b"1000"])
    calls = [pod.client.start("RemoveContainer", container_id=name) for name in ("first", "first", "second")]
    for call in calls:
        pod.client.finish(call)
    assert not pod.client.call("ListProcesses").processes


TESTS = [test_user_and_files, test_refusals, test_stdin_exec_and_signal, test_reconnect, test_oom,
         test_memory_that_could_grow, test_remove_running]


def describe(proto, guest, pod):
    """What another connection can learn of a guest that failed a test."""
    if pod is not None:
        pod.client.close()  # QEMU serves one connection at a time
    try:
        client = guest.connect(proto, deadline=20)
        print("the agent answers:", client.hello, client.call("ListProcesses"), flush=True)
    except (OSError, guests.RpcError) as error:
        print("the agent does not answer:", error, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", required=True)
    parser.add_argument("--proto", required=True)
    options = parser.parse_args()
    sys.path.insert(0, options.proto)
    from agent.proto import agent_pb2 as proto

    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        guest = guests.Guest(options.image, directory, make_disks(directory))
        pod = None
        try:
            guest.wait_for_port()
            pod = Pod(proto, guest)
            hello = pod.client.hello
            print(f"hello after {time.monotonic() - guest.started:.2f} s, guest up {hello.uptime_nanoseconds / 1e9:.2f} s")
            assert hello.protocol_version == 1 and hello.online_cpus == 1 and hello.memory_total_bytes > 100 << 20, hello
            configure(pod)
            for test in TESTS:
                begin = time.monotonic()
                test(pod)
                print(f"{test.__name__}: {time.monotonic() - begin:.2f} s", flush=True)
            pod.client.call("Shutdown")
            guest.process.wait(60)
            assert guest.process.returncode == 0, guest.process.returncode
        except BaseException:
            describe(proto, guest, pod)
            print(guest.console.read_text(errors="replace") if guest.console.exists() else "no console", flush=True)
            raise
        finally:
            guest.stop()


if __name__ == "__main__":
    main()
