"""docs/operations.md, what ends a pod or its VM: disk limits, deadlines, a dead QEMU, the host's memory, and a huskd that is
away, which must end nothing."""

import os
import pathlib
import signal
import subprocess

import pytest

from harness import cri, host
from harness.daemon import eventually
from harness.kubelet import NODE, container_status, is_ready
from harness.manifests import pod, shell
from harness.stories import Story, describe, events

COUNT = "n=0; while :; do n=$((n + 1)); echo $n; sleep 1; done"
WRITE = "dd if=/dev/zero of=/fill bs=1M count=64; exec sleep 100000"
MEBIBYTE = 1 << 20
# More of the CPU than others: these pods share the host with those that boot.
REQUESTS = {"requests": {"cpu": "100m", "memory": "32Mi"}}


@pytest.fixture(scope="module")
def pods(cluster, shared_space):
    shared_space.apply(
        pod("steady", shell("main", COUNT, cluster.image, resources=REQUESTS), dnsPolicy="Default"),
        pod("writer", shell("main", WRITE, cluster.image, resources={
            "requests": {"cpu": "100m"}, "limits": {"ephemeral-storage": "32Mi"}}), dnsPolicy="Default"))
    return shared_space


def is_counting(pods, restarts):
    """Until the container of «steady» runs after so many restarts; the pod."""
    def counts(found):
        status = container_status(found, "main")
        return status is not None and "running" in status["state"] and status["restartCount"] == restarts
    return pods.wait_for("pod", "steady", counts, f"to run after {restarts} restarts", seconds=300)


def sandbox(pods):
    """The id of the sandbox of «steady» that is ready."""
    uid = pods.get("pod", "steady")["metadata"]["uid"]
    return next(one.id for one in pods.cluster.huskd.pods() if one.metadata.uid == uid and not one.state)


def machine(pods):
    """The pid of its QEMU."""
    mark = sandbox(pods)
    return next(pid for pid in pods.cluster.huskd.vm_processes()
                if mark in host.read_text(f"/proc/{pid}/cgroup") and "qemu-system" in host.command_line(pid))


def node_condition(cluster, kind="Ready"):
    found = cluster.get("node", NODE)["status"]["conditions"]
    return next(f"{one['type']} {one['status']} {one['reason']} {one['message']}" for one in found if one["type"] == kind)


def test_the_vm_is_killed(pods):
    story = Story("A VM ends by itself")
    is_counting(pods, 0)
    os.kill(machine(pods), signal.SIGKILL)
    story.sees(lambda: events(pods, "steady"), "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.")
    is_counting(pods, 1)
    story.sees(lambda: describe(pods, "steady"),
               "Last State: Terminated Reason: Unknown Message: the pod's VM ended: killed by signal 9 (Killed) Exit Code: 255",
               "Restart Count: 1")
    story.sees(lambda: pods.cluster.huskd.log_tail(100000), "its VM ended: killed by signal 9 (Killed)")


def test_the_host_has_no_memory_for_the_vm(pods):
    story = Story("A whole VM runs out of memory")
    is_counting(pods, 1)
    mark = f"husk-{sandbox(pods)}"
    memory = next((path for path in map(pathlib.Path, host.cgroups(mark)) if any(
        (path / name).exists() for name in ("memory.limit_in_bytes", "memory.max"))), None)
    if memory is None:
        pytest.skip("this host's cgroups have no memory controller")
    limit, own = (("memory.limit_in_bytes", "rss") if (memory / "memory.limit_in_bytes").exists() else ("memory.max", "anon"))
    # What the kernel can give up, its cache of files, does not count.
    held = {name: int(value) for name, value in map(str.split, (memory / "memory.stat").read_text().splitlines())}
    (memory / limit).write_text(str(held[own] + held["shmem"] + 8 * MEBIBYTE))
    pods.kubectl("exec", "steady", "--", "tail", "/dev/zero", check=False)
    is_counting(pods, 2)
    story.sees(lambda: describe(pods, "steady"),
               "Last State: Terminated Reason: OOMKilled Message: the pod's VM ended: the host killed it for lack of memory, at "
               "the limit of its cgroup, which its RuntimeClass's overhead raises, or of one above: killed by signal 9 (Killed) "
               "Exit Code: 137")


def test_huskd_is_away(pods):
    story, cluster = Story("huskd is down"), pods.cluster
    before = container_status(is_counting(pods, 2), "main")
    cluster.huskd.kill()
    try:
        refused = pods.kubectl("exec", "steady", "--", "true", check=False)
        assert refused.returncode == 1
        story.sees(lambda: refused.stderr, "error: unable to upgrade connection: rpc error: code = Unavailable desc = connection "
                   "error: desc = \"transport: Error while dialing: dial unix")
        story.sees(lambda: pods.kubectl("logs", "steady").stdout, "unable to retrieve container logs for husk://")
        asked = subprocess.run([cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{cluster.huskd.socket}", "ps"],
                               capture_output=True, text=True, check=False)
        assert asked.returncode != 0
        story.sees(lambda: asked.stderr, "huskctl: nobody answers on", "is huskd running?")
        story.sees(lambda: node_condition(cluster), "Ready False KubeletNotReady container runtime is down")
    finally:
        cluster.huskd.start()
    story.sees(lambda: node_condition(cluster), "Ready True KubeletReady kubelet is posting ready status")
    after = container_status(pods.wait_for("pod", "steady", is_ready, "to be Ready"), "main")
    assert (after["restartCount"], after["containerID"]) == (2, before["containerID"])
    assert after["state"] == before["state"]
    lines = pods.kubectl("logs", "steady").stdout.split()
    assert len(lines) > 20 and lines == [str(number + 1) for number in range(len(lines))]
    story.sees(lambda: cluster.huskd.log_tail(100000), "adopted")


def test_a_deadline(pods):
    story = Story("A pod's deadline passes")
    pods.kubectl("patch", "pod", "steady", "--patch", '{"spec": {"activeDeadlineSeconds": 1}}')
    story.sees(lambda: describe(pods, "steady"), "Status: Failed Reason: DeadlineExceeded Message: Pod was active on the node "
               "longer than the specified deadline", "State: Terminated Reason: Error Exit Code: 137",
               "Normal DeadlineExceeded Pod was active on the node longer than the specified deadline",
               "Normal Killing Stopping container main")
    eventually(lambda: all(one.state for one in pods.cluster.huskd.pods() if one.metadata.name == "steady"), "its VM to end")


def test_a_pod_writes_more_than_its_limit(pods):
    story = Story("A pod is evicted for what it writes")
    story.sees(lambda: describe(pods, "writer"), "Status: Failed Reason: Evicted Message: Pod ephemeral local storage usage "
               "exceeds the total limit of containers 32Mi.",
               "Warning Evicted Pod ephemeral local storage usage exceeds the total limit of containers 32Mi.",
               "Normal Killing Stopping container main", seconds=300)
