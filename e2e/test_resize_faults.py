"""Pods that grow and shrink with their limits while a container runs: what guest, host and CRI say agrees. kill -9 of huskd
at each step of it, a QEMU that stands still, guests that are silent, refuse, or lie. Three pods are booted."""

import json
import os
import pathlib
import signal
import subprocess

import grpc
import pytest

from harness import host, hostile_guest
from harness.daemon import HUSKD, eventually
from harness.vm_size import KEPT, MEBIBYTE, is_size

HUSKD_CONFIGURATION = {"vm": {**hostile_guest.CONFIGURATION, "maximum_vcpus": 4}}

# Each line is a number and the checksum of the same mebibyte: memory that goes wrong would show.
CHECKING = ("dd if=/dev/urandom of=/dev/shm/data bs=1M count=1 2>/dev/null; n=0; "
            "while :; do echo $n $(md5sum </dev/shm/data); n=$((n+1)); sleep 0.2; done")
# Takes 64 MiB, writes to all of them and lets them go, again and again.
BUSY = "n=0; while :; do head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; n=$((n+1)); echo $n; done"
SMALL, LARGE = (128, 500), (512, 2500)  # MiB, thousandths of a CPU
GROWING = ("recorded", "host_raised", "memory_plugged", "vcpus_plugged", "guest_grown", "container_updated")
SHRINKING = ("recorded", "container_updated", "guest_shrunk", "memory_unplugged", "host_lowered")


def limits(memory, cpu):
    return {"memory_limit_in_bytes": memory * MEBIBYTE, "cpu_quota": cpu * 100, "cpu_period": 100000}


def update(container, memory, cpu, **fields):
    container.pod.client.UpdateContainerResources(container_id=container.id, linux=limits(memory, cpu), **fields)


def update_pod(pod, memory, cpu, **fields):
    pod.client.UpdatePodSandboxResources(pod_sandbox_id=pod.id, resources=limits(memory, cpu), **fields)


def vm_of(pod):
    return json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])


def host_memory_limit(pod):
    for directory in map(pathlib.Path, host.cgroups(f"husk-{pod.id}")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (directory / name).exists():
                return int((directory / name).read_text())
    return None


def shell(container, script):
    code, out, err = container.execute("/bin/sh", "-c", script)
    assert code == 0, err
    return out.strip()


def in_guest(container):
    """(bytes of memory, CPUs, memory.max, cpu.max)"""
    total, cpus, memory, cpu = shell(container, "grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo; "
                                     "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max").splitlines()
    return int(total.split()[1]) * 1024, int(cpus), int(memory), cpu


def plugged(memory):
    """What the limit adds to the 256 MiB of a VM: its own, 112 MiB and a 64th for the guest's kernel; by steps of 4 MiB."""
    more = max(0, memory * MEBIBYTE + 112 * MEBIBYTE + memory * MEBIBYTE // 64 - 256 * MEBIBYTE)
    return -(-more // (4 * MEBIBYTE)) * 4 * MEBIBYTE


class Sized:
    """A pod with one container that checks a checksum for as long as it lives."""

    def __init__(self, huskd, image):
        self.huskd = huskd
        self.pod = huskd.run_pod("sized", linux={"resources": limits(*SMALL)})
        self.container = self.pod.run("checks", image, ["/bin/sh", "-c", CHECKING], linux={"resources": limits(*SMALL)})
        self.container.wait_for_log("3 ")
        self.total = in_guest(self.container)[0]
        self.started_at = self.container.status().started_at

    def difference(self, memory, cpu):
        """Empty if all agree that it has this size."""
        vm, guest, resources = vm_of(self.pod), in_guest(self.container), self.container.status().resources.linux
        size = 256 * MEBIBYTE + plugged(memory)
        cpus, actual = -(-cpu // 1000), vm["memoryBytes"]
        has = {"VM": is_size(actual, size), "VM's request": vm["requestedMemoryBytes"], "guest's MemTotal": guest[0],
               "vCPUs": vm["onlineVcpus"], "guest's CPUs": guest[1], "memory.max": guest[2], "cpu.max": guest[3],
               "host": host_memory_limit(self.pod), "status' memory": resources.memory_limit_in_bytes,
               "status' CPU": resources.cpu_quota}
        shall = {"VM": True, "VM's request": size, "guest's MemTotal": self.total + actual - 256 * MEBIBYTE,
                 "vCPUs": cpus, "guest's CPUs": cpus, "memory.max": memory * MEBIBYTE, "cpu.max": f"{cpu * 100} 100000",
                 "host": actual + 320 * MEBIBYTE + actual // 64 // 4096 * 4096, "status' memory": memory * MEBIBYTE,
                 "status' CPU": cpu * 100}
        return {key: (has[key], shall[key]) for key in has if has[key] != shall[key]}

    def agree(self, memory, cpu):
        eventually(lambda: not self.difference(memory, cpu), lambda: f"to agree: {self.difference(memory, cpu)}")

    def goes_on(self):
        """The container is the same, and its memory too."""
        lines = self.container.log().splitlines()
        self.container.wait_for_log(f"\n{len(lines) + 2} ")
        lines = self.container.log().splitlines()
        assert len({line.split(" ", 1)[1] for line in lines}) == 1
        assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
        assert (self.container.state(), self.container.status().started_at) == ("CONTAINER_RUNNING", self.started_at)

    def resize(self, memory, cpu):
        """As the kubelet does it."""
        update(self.container, memory, cpu)
        update_pod(self.pod, memory, cpu)


@pytest.fixture(scope="module")
def sized(huskd, image):
    sized = Sized(huskd, image)
    yield sized
    sized.pod.remove()


def test_guest_host_and_cri_agree_up_and_down(sized):
    sized.agree(*SMALL)
    for size in (LARGE, (256, 1000), (640, 1900), SMALL):
        sized.resize(*size)
        sized.agree(*size)
        sized.goes_on()
    # The pod alone, as for a container that is about to come.
    update_pod(sized.pod, 512, 500)
    assert vm_of(sized.pod)["memoryBytes"] == 256 * MEBIBYTE + plugged(512)
    assert in_guest(sized.container)[2] == 128 * MEBIBYTE
    update_pod(sized.pod, *SMALL)
    sized.agree(*SMALL)
    sized.goes_on()


def test_a_container_brings_its_room_and_takes_it_away(sized, image):
    second = sized.pod.run("second", image, ["/bin/sleep", "100000"], linux={"resources": limits(320, 900)})
    assert vm_of(sized.pod)["memoryBytes"] == 256 * MEBIBYTE + plugged(448)
    assert in_guest(second)[:2] == (sized.total + plugged(448), 2)
    sized.pod.client.StopContainer(container_id=second.id, timeout=0)
    sized.pod.client.RemoveContainer(container_id=second.id)
    sized.agree(*SMALL)


def test_a_busy_guest_gives_back_what_is_free_and_what_is_missing_is_told(sized, image):
    busy = sized.pod.run("busy", image, ["/bin/sh", "-c", BUSY], linux={"resources": limits(1280, 500)})
    busy.wait_for_log("2\n")
    update(busy, 256, 500)
    size = 256 * MEBIBYTE + plugged(128 + 256)
    def remainder():
        vm = vm_of(sized.pod)
        assert (vm["requestedMemoryBytes"], vm["wantedMemoryBytes"]) == (size, size)
        # Owed as long as it is more than what may stay.
        assert vm["resizing"] or vm["memoryBytes"] <= size + KEPT, vm
        return vm["memoryBytes"] - size
    at_return = remainder()
    if at_return > KEPT:
        assert "bytes of memory that were taken from its VM" in sized.huskd.log_tail(400)
    eventually(lambda: remainder() <= KEPT, "what is free to go back")
    eventually(lambda: not vm_of(sized.pod)["resizing"], "nothing to be owed")
    lines = len(busy.log().splitlines())
    busy.wait_for_log(f"\n{lines + 2}\n")
    sized.pod.client.StopContainer(container_id=busy.id, timeout=0)
    sized.pod.client.RemoveContainer(container_id=busy.id)
    sized.agree(*SMALL)
    sized.goes_on()


@pytest.mark.parametrize("way, point", [("grow", point) for point in GROWING] + [("shrink", point) for point in SHRINKING])
def test_kill_9_at_each_step(sized, huskd, way, point):
    """The next huskd finishes it or takes it back: what it shows is what there is."""
    before, after = (SMALL, LARGE) if way == "grow" else (LARGE, SMALL)
    sized.resize(*before)
    sized.agree(*before)
    huskd.restart(fault_point=f"resize.{point}")
    with pytest.raises(grpc.RpcError):
        sized.resize(*after)
    assert huskd.process.wait(60) == -signal.SIGKILL, f"huskd never came to {point}"
    huskd.start()
    def shown():
        return sized.container.status().resources.linux.memory_limit_in_bytes // MEBIBYTE
    # The new limit shows when the guest has confirmed it, not before.
    assert shown() == before[0] or in_guest(sized.container)[2] == after[0] * MEBIBYTE
    # As large as the larger of what the container shall have and what the pod was announced with.
    announced = sized.pod.client.PodSandboxStatus(pod_sandbox_id=sized.pod.id, verbose=True).info["config"]
    pods = json.loads(announced)["resources"]["memory_limit_bytes"] // MEBIBYTE
    eventually(lambda: is_size(vm_of(sized.pod)["memoryBytes"], 256 * MEBIBYTE + plugged(max(shown(), pods))),
               "the VM to fit")
    eventually(lambda: in_guest(sized.container)[2] == shown() * MEBIBYTE, "the guest to have the limit that is shown")
    assert shown() in (before[0], after[0])
    sized.resize(*after)
    sized.agree(*after)
    sized.goes_on()


def test_every_step_is_tested():
    listed = subprocess.run([str(HUSKD), "--list-fault-points"], check=True, capture_output=True, text=True).stdout.split()
    assert {point for point in listed if point.startswith("resize.")} == {f"resize.{p}" for p in GROWING + SHRINKING}


def test_a_qemu_that_stands_still(sized):
    sized.resize(*SMALL)
    sized.agree(*SMALL)
    machine = vm_of(sized.pod)["pid"]
    os.kill(machine, signal.SIGSTOP)
    try:
        with pytest.raises(grpc.RpcError) as failure:
            update(sized.container, *LARGE, deadline=8)
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert sized.container.status().resources.linux.memory_limit_in_bytes == SMALL[0] * MEBIBYTE
        assert (sized.container.state(), sized.pod.state()) == ("CONTAINER_RUNNING", "SANDBOX_READY")
    finally:
        os.kill(machine, signal.SIGCONT)
    sized.agree(*SMALL)
    sized.resize(*LARGE)
    sized.agree(*LARGE)
    sized.resize(*SMALL)
    sized.agree(*SMALL)
    sized.goes_on()


@pytest.mark.parametrize("name, code, words", [
    # Answers everything with nothing: no CPU is in use, it says.
    ("lies", grpc.StatusCode.FAILED_PRECONDITION, "of 3 vCPUs the guest says that it uses 0"),
    ("silent", grpc.StatusCode.DEADLINE_EXCEEDED, "")])
def test_a_guest_that_does_not_go_along(huskd, sized, name, code, words):
    """Named in the error, held by the host's cgroup, and nobody else's business."""
    with hostile_guest.hostile_pod(huskd, name) as pod:
        before = host_memory_limit(pod)
        with pytest.raises(grpc.RpcError) as failure:
            update_pod(pod, *LARGE, deadline=20)
        assert failure.value.code() == code and words in failure.value.details()
        # What QEMU says it has is the limit, whatever the guest says.
        def contained():
            vm = vm_of(pod)
            return host_memory_limit(pod) - before == vm["memoryBytes"] - 256 * MEBIBYTE + \
                (vm["memoryBytes"] - 256 * MEBIBYTE) // 64
        eventually(contained, lambda: f"the host to limit it: {host_memory_limit(pod)}, {vm_of(pod)}")
        assert pod.state() == "SANDBOX_READY"
        sized.resize(*LARGE)
        sized.agree(*LARGE)
        sized.resize(*SMALL)
    sized.agree(*SMALL)
