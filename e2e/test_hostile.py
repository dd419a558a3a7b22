"""Guests that attack: an agent of an attacker's own in real VMs beside an honest pod, and root in an honest guest.

harness/hostile_guest.py has the attackers. Two honest pods and a hostile one for each way of attack are booted."""

import contextlib
import hashlib
import os
import pathlib
import re
import statistics
import time

import grpc
import pytest

from harness import guest_programs, host, hostile_guest, logs
from harness.daemon import eventually
from harness.kubelet_files import PodDirectory, mount

MEBIBYTE = 1 << 20
SLEEP = ["/bin/sleep", "100000"]
HUSKD_CONFIGURATION = {"vm": hostile_guest.CONFIGURATION}

# What huskd may grow by, whatever guests do.
MEMORY_BOUND = 64 * MEBIBYTE


@pytest.fixture(scope="module")
def image(registry, huskd):
    return guest_programs.pulled_image(huskd, registry, "husk/hostile", ["scsi_write"])


@pytest.fixture(scope="module")
def honest(huskd, image):
    """A pod that nobody attacks, with a container to run commands in."""
    pod = huskd.run_pod("honest")
    container = pod.run("worker", image, SLEEP)
    yield container
    pod.remove()


def memory(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+) kB", host.read_text(f"/proc/{pid}/status"), re.MULTILINE).group(1)) * 1024


@contextlib.contextmanager
def bounded_memory(huskd):
    """huskd's resident memory does not grow by more than the bound, not for a moment."""
    pathlib.Path(f"/proc/{huskd.pid}/clear_refs").write_text("5")
    before = memory(huskd.pid, "VmRSS")
    yield
    growth = memory(huskd.pid, "VmHWM") - before
    print(f"huskd grew by {growth / MEBIBYTE:.1f} MiB at most")
    assert growth <= MEMORY_BOUND


def honest_calls(container, statuses=100, commands=3):
    """The kubelet's calls for an honest pod; the median seconds of a status and of a command."""
    client, times = container.pod.client, {"status": [], "command": []}

    def timed(kind, call):
        started = time.monotonic()
        call()
        times[kind].append(time.monotonic() - started)
    for number in range(statuses):
        timed("status", lambda: client.PodSandboxStatus(pod_sandbox_id=container.pod.id))
        assert container.state() == "CONTAINER_RUNNING"
        if number % (statuses // commands) == 0:
            timed("command", lambda: container.execute("/bin/true"))
    assert container.execute("/bin/echo", "well")[:2] == (0, "well\n")
    return {kind: statistics.median(values) for kind, values in times.items()}


def test_vmm_03_qemu_has_no_rights_and_nothing_of_the_host(huskd, honest):
    machines = [pid for pid in huskd.vm_processes() if honest.pod.id in host.read_text(f"/proc/{pid}/cgroup")]
    assert len(machines) == 1
    status = dict(line.partition(":")[::2] for line in host.read_text(f"/proc/{machines[0]}/status").splitlines())
    users = status["Uid"].split()
    assert len(set(users)) == 1 and int(users[0]) in huskd.users
    assert len(set(status["Gid"].split())) == 1 and int(status["Gid"].split()[0]) in huskd.users
    assert status["Groups"].split() == []
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    directory = f"/proc/{machines[0]}/fd"
    targets = {os.readlink(f"{directory}/{number}") for number in os.listdir(directory)}
    own = re.compile(rf"socket:\[|anon_inode:|/memfd:|/dev/null$|/dev/net/tun$|/dev/vhost-net$|/dev/kvm$"
                     rf"|{huskd.root}.*|{huskd.state}.*")
    assert [target for target in targets if not own.match(target)] == []
    files = [target for target in targets if target.startswith((str(huskd.root), str(huskd.state)))]
    foreign = [file for file in files if honest.pod.id not in file and not file.startswith(f"{huskd.data}/images/")]
    assert foreign == [], "files of its own pod, and of images"
    # Another pod's uid would be the same right.
    assert users[0] not in {str(host.user(pid)) for pid in huskd.vm_processes() if pid != machines[0]}


def image_files(huskd):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((huskd.data / "images").rglob("*")) if path.is_file() and "index" not in path.name
            and not path.name.endswith((".db", ".db-wal", ".db-shm"))}


def test_vmm_01_writes_to_an_image_disk_are_refused_by_the_disk(huskd, honest, image):
    """Root with every right in the guest writes to the image's disk, by its node and by SCSI commands of its own."""
    before = image_files(huskd)
    assert before
    right = honest.execute("/bin/sha256sum", "/bin/busybox", "/scsi_write")
    pod = huskd.run_pod("vandal")
    vandal = pod.run("root", image, SLEEP, linux={"security_context": {"privileged": True}})
    code, disks, err = vandal.execute("/bin/sh", "-c", "cd /sys/block; for d in sd*; do echo $d $(cat $d/dev $d/ro); done")
    assert code == 0, err
    read_only = [line.split()[1] for line in disks.splitlines() if line.split()[2] == "1"]
    assert len(read_only) == 1, disks
    code, out, err = vandal.execute("/scsi_write", read_only[0])
    print(out)
    assert code == 0, out + err
    assert "WRITTEN" not in out
    # SCSI's own words: DATA PROTECT, write protected. The command has reached the disk that QEMU shows.
    assert re.search(r"^WRITE\(10\): refused by the disk: status 2 sense 7/27$", out, re.MULTILINE), out
    assert vandal.execute("/bin/sha256sum", "/bin/busybox", "/scsi_write") == right
    pod.remove()
    assert image_files(huskd) == before
    assert honest.execute("/bin/sha256sum", "/bin/busybox", "/scsi_write") == right
    again = huskd.run_pod("reader")
    assert again.run("reader", image, SLEEP).execute("/bin/sha256sum", "/bin/busybox", "/scsi_write") == right
    again.remove()


@pytest.mark.parametrize("mode", [
    "huge-frames",  # AGT-01: each answer is a frame of 4 GiB
    "cut-frames",  # AGT-01: of 4 MiB, the last bytes of which never come
    "streams",  # AGT-01: answers for a million streams and more
    "bytes",  # AGT-01: bytes as fast as the port takes them
    "silent",  # AGT-05
    "dribble",  # AGT-05: a byte a second
    "churn",  # AGT-05: the port closes and opens ten times a second
])
def test_agt_01_agt_05_a_hostile_channel_is_its_own_pods_trouble(huskd, honest, image, mode):
    quiet = honest_calls(honest)
    with hostile_guest.hostile_pod(huskd, mode) as pod, bounded_memory(huskd):
        config = pod.container_config("victim", image, SLEEP)
        call = huskd.client.future("CreateContainer", pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        loud = honest_calls(honest)
        print(f"{mode}: medians of honest calls in seconds {loud}, beside none {quiet}")
        # The honest pod's calls have overtaken the hostile one's, which still waits for its guest.
        assert not call.done()
        assert pod.state() == "SANDBOX_READY"
        pod.stop()
        with pytest.raises(grpc.RpcError):
            call.result()
        assert pod.state() == "SANDBOX_NOTREADY"
    assert honest.state() == "CONTAINER_RUNNING"


def behaving(pod, image, behaviour, **fields):
    return pod.create(behaviour, image, SLEEP, envs=[{"key": "HOSTILE", "value": behaviour}], **fields)


def files_of(huskd):
    return {path for path in host.tree(huskd.root) | host.tree(huskd.run_state) if not os.path.isdir(path)}


@pytest.fixture(scope="module")
def liar(huskd, image):
    """A pod whose agent speaks the protocol well and says what is not true."""
    with hostile_guest.hostile_pod(huskd, "liar") as pod:
        pod.files_before = files_of(huskd)
        yield pod


FORGED = ("plain\n2026-01-01T00:00:00.000000000Z stderr F forged\n\x1b[31mred\x1b[0m\x07\r\n"
          "\ufffd\ufffd\0nul\n\n2026-01-01T00:00:00Z stdout P half")


def test_agt_02_agt_04_exits_and_output_of_others_twice_and_forged(huskd, honest, image, liar):
    """Exits for other containers and for no id, an own one twice; output that forges records, of others, with gaps."""
    container = behaving(liar, image, "log").start()
    status = container.wait()
    assert status.exit_code == 7, "the first of two exits"
    assert status.reason == "Error"
    assert status.finished_at >= status.started_at >= status.created_at
    # records() fails for a line that is no record.
    streams = {stream for stream, _, _ in logs.records(container.log_path)}
    assert streams == {"stdout", "stderr"}
    assert container.log("stdout") == FORGED
    assert container.log("stderr") == FORGED
    assert honest.state() == "CONTAINER_RUNNING"
    assert [file.name for file in container.log_path.parent.iterdir()] == ["0.log"]


def test_agt_02_an_exit_that_never_comes(huskd, image, liar):
    """The kill is answered, and the container goes on for ever: the call says so, and the pod can be ended all the same."""
    container = behaving(liar, image, "never").start()
    with pytest.raises(grpc.RpcError) as error:
        huskd.client.StopContainer(container_id=container.id, timeout=1, deadline=20)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert container.state() == "CONTAINER_RUNNING"


def test_agt_03_a_termination_message_without_end(huskd, honest, image, liar):
    """Copy-out is cut, goes to the one file, and is over before the exit shows."""
    files = PodDirectory(huskd.root, liar.config.metadata.uid)
    log = files.termination_log("message")
    witness = files.path / "witness"
    witness.write_text("untouched")
    with bounded_memory(huskd):
        container = behaving(liar, image, "message", mounts=[mount("/dev/termination-log", log)]).start()
        assert container.wait().exit_code == 7
    content = log.read_bytes()
    # The kubelet reads 4096 bytes of it.
    assert 4096 <= len(content) <= 65536
    assert set(content) == {ord("m")}
    assert witness.read_text() == "untouched"
    assert sorted(path.name for path in files.path.rglob("*") if path.is_file()) == [log.name, "witness"]


def test_agt_03_nothing_is_written_outside_the_pods_directories(huskd, liar):
    """After all that the liar has said: what is new is in its pod's directories, its logs, and where it was mounted."""
    own = (liar.id, liar.config.log_directory, f"/pods/{liar.config.metadata.uid}")
    strange = [path for path in files_of(huskd) - liar.files_before if not any(part in path for part in own)]
    assert strange == []


def test_agt_04_output_without_end_or_newlines(huskd, honest, image, liar):
    with bounded_memory(huskd):
        container = behaving(liar, image, "endless").start()
        eventually(lambda: container.log_path.exists() and container.log_path.stat().st_size > 2 * MEBIBYTE,
                   "two MiB of output")
        honest_calls(honest, statuses=30)
    assert container.state() == "CONTAINER_RUNNING"
    for stream, _, content in logs.records(container.log_path):
        assert stream in ("stdout", "stderr") and len(content) <= 16384


def host_limit(pod, *names):
    for directory in host.cgroups(f"husk-{pod.id}"):
        for name in names:
            with contextlib.suppress(OSError):
                return pathlib.Path(directory, name).read_text().strip()
    return None


def test_agt_06_a_guest_that_lies_about_its_limits_is_held_by_the_hosts_cgroup(huskd, image, liar):
    """One container's change is refused in words of the guest's own, the other's is granted and not made."""
    refusing = behaving(liar, image, "never", attempt=1).start()
    with pytest.raises(grpc.RpcError) as error:
        huskd.client.UpdateContainerResources(container_id=refusing.id, linux={"memory_limit_in_bytes": 64 * MEBIBYTE})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert re.fullmatch(r"[ -~]+", error.value.details()), error.value.details()
    assert "I want more" in error.value.details()
    assert refusing.status().resources.linux.memory_limit_in_bytes == 0, "what was refused is not reported as done"

    granted = behaving(liar, image, "still").start()
    huskd.client.UpdateContainerResources(container_id=granted.id, linux={"memory_limit_in_bytes": 64 * MEBIBYTE})
    # Whatever is in force inside: the pod's QEMU is in the pod's cgroup, which has a limit of the host's.
    machines = [pid for pid in huskd.vm_processes() if liar.id in host.read_text(f"/proc/{pid}/cgroup")]
    assert len(machines) == 1
    limit = host_limit(liar, "memory.limit_in_bytes", "memory.max")
    if limit is None:
        pytest.skip("this host's cgroups have no memory controller")
    assert limit != "max" and int(limit) < 4096 * MEBIBYTE
    assert memory(machines[0], "VmRSS") <= int(limit)


def test_vmm_02_a_guest_that_resets_itself_is_over(huskd, honest, image):
    """A triple fault in the middle of a call: the pod ends, and nothing starts it again."""
    with hostile_guest.hostile_pod(huskd, "reset") as pod:
        with pytest.raises(grpc.RpcError):
            pod.create("never", image, SLEEP)
        eventually(lambda: pod.state() == "SANDBOX_NOTREADY", "the pod to be NOTREADY")
        for _ in range(10):
            assert [pid for pid in huskd.vm_processes() if pod.id in host.read_text(f"/proc/{pid}/cgroup")] == []
            time.sleep(0.2)
        assert pod.state() == "SANDBOX_NOTREADY"
    assert honest.state() == "CONTAINER_RUNNING"


def test_vmm_02_a_flood_of_the_console_fills_nothing(huskd, honest):
    """Four times its ring on the serial console: huskd and the disk keep the end of it at most."""
    with bounded_memory(huskd), hostile_guest.hostile_pod(huskd, "console") as pod:
        sizes = {path: os.stat(path).st_size for directory in (huskd.run_state, huskd.data) for path in host.tree(directory)
                 if pod.id in path and os.path.isfile(path) and not path.endswith("scratch")}
        large = {path: size for path, size in sizes.items() if size > 128 << 10 and "scratch" not in path}
        assert large == {}
    assert honest.state() == "CONTAINER_RUNNING"
