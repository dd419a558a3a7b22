"""Pods without a memory limit: they get memory as they need it, and the host gets it back. Two pods are booted."""

import json

import pytest

from harness import guest_programs, host
from harness.daemon import eventually

MEBIBYTE = 1 << 20
CEILING = 4096 * MEBIBYTE
HUSKD_CONFIGURATION = {"vm": {"unlimited_memory": "4Gi"}}


@pytest.fixture(scope="module")
def tools(huskd, registry):
    return guest_programs.pulled_image(huskd, registry, "husk/take-memory", ["take_memory"])


@pytest.fixture(scope="module")
def pod(huskd):
    pod = huskd.run_pod("unlimited")
    yield pod
    pod.remove()


def memory(pod):
    return json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])["memoryBytes"]


def remove(container):
    container.pod.client.StopContainer(container_id=container.id, timeout=0)
    container.pod.client.RemoveContainer(container_id=container.id)


def test_two_gibibytes_are_had_and_given_back(huskd, pod, tools):
    machine, booted = huskd.vm_process_of(pod), memory(pod)
    idle = pod.run("idle", tools, ["/bin/sleep", "100000"])
    before = host.resident_bytes(machine)
    taker = pod.run("taker", tools, ["/take_memory", "2048"])
    taker.wait_for_log("taken\n", seconds=300)
    assert 2048 * MEBIBYTE < memory(pod) <= CEILING
    assert host.resident_bytes(machine) > before + 2000 * MEBIBYTE
    assert taker.execute("/bin/touch", "/tmp/enough")[0] == 0
    taker.wait_for_log("freed\n")
    # What is free goes back at once, and what describes it when the VM shrinks.
    eventually(lambda: host.resident_bytes(machine) < before + 64 * MEBIBYTE,
               lambda: f"QEMU's memory: {before} before, now {host.resident_bytes(machine)}, of {memory(pod)}", 300)
    eventually(lambda: memory(pod) < booted + 512 * MEBIBYTE, lambda: f"the VM to shrink: {memory(pod)}", 300)
    assert (taker.state(), idle.state()) == ("CONTAINER_RUNNING", "CONTAINER_RUNNING")
    remove(taker)
    remove(idle)
    # A page of the guest's kernel may hold a block.
    eventually(lambda: memory(pod) <= booted + 16 * MEBIBYTE, lambda: f"the VM to be as small as it was: {memory(pod)}", 300)


def test_one_system_call_that_takes_it_all(pod, tools):
    """The kernel itself fills the pages of such a read: nobody returns to the program in between."""
    taker = pod.run("reader", tools, ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1G", "count=1"])
    assert taker.wait(300).exit_code == 0
    remove(taker)


def test_a_huskd_that_was_away_for_a_moment_brings_it_then(huskd, pod, tools):
    taker = pod.run("patient", tools, ["/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; exec /take_memory 1024"])
    assert taker.execute("/bin/touch", "/tmp/go")[0] == 0
    huskd.kill()
    huskd.start()
    taker.wait_for_log("taken\n", seconds=300)
    assert taker.state() == "CONTAINER_RUNNING" and memory(pod) > 1024 * MEBIBYTE
    remove(taker)


def test_the_ceiling_is_the_end(huskd, tools):
    pod = huskd.run_pod("greedy")
    try:
        greedy = pod.run("greedy", tools, ["/take_memory", "6000"], linux={"resources": {"oom_score_adj": 1000}})
        status = greedy.wait(600)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")
        assert "MiB was out of memory, though the container had not" in status.message
        assert pod.state() == "SANDBOX_READY" and memory(pod) <= CEILING
    finally:
        pod.remove()
