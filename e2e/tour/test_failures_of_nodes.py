"""docs/operations.md, what befalls a whole node: a reboot, and a disk that fills up. They stop and start the cluster's huskd and
kubelet, and leave them as they were."""

import contextlib
import subprocess

import pytest

from harness import host
from harness.daemon import eventually
from harness.kubelet import NODE, container_status
from harness.manifests import pod, shell
from harness.reboot import OtherBoot, power_off, power_on
from harness.stories import Story, describe, events

MEBIBYTE = 1 << 20
REQUESTS = {"requests": {"cpu": "100m", "memory": "32Mi"}}
DISK, THRESHOLD, FILL = 512 * MEBIBYTE, "256Mi", 300


def node_events(cluster):
    found = cluster.list("events", "--namespace", "default", "--field-selector", f"involvedObject.name={NODE}")
    return "\n".join(f"{one['type']} {one['reason']} {one.get('message')}" for one in found)


def restarts(space, name, count):
    def met(found):
        status = container_status(found, "main")
        return status is not None and "running" in status["state"] and status["restartCount"] == count
    return space.wait_for("pod", name, met, f"to run after {count} restarts", seconds=300)


@contextlib.contextmanager
def rebooted(cluster):
    """The node after a reboot; and after another one when this ends."""
    with OtherBoot(cluster.directory) as boot:
        power_off(cluster.huskd, cluster.node)
        try:
            power_on(cluster.huskd, cluster.node, boot.wrapper)
            yield boot
        finally:
            power_off(cluster.huskd, cluster.node)
            power_on(cluster.huskd, cluster.node)
            eventually(cluster.is_ready, "the node to be Ready again")


def test_a_reboot(cluster, space):
    story, huskd = Story("The node is rebooted"), cluster.huskd
    space.apply(pod("always", shell("main", "exec sleep 100000", cluster.image, resources=REQUESTS)),
                pod("once", shell("main", "exec sleep 100000", cluster.image, resources=REQUESTS), restartPolicy="Never"))
    for name in ("always", "once"):
        restarts(space, name, 0)
    before = {one.id for one in huskd.pods()}
    with rebooted(cluster) as boot:
        story.sees(lambda: node_events(cluster), f"Warning Rebooted Node {NODE} has been rebooted, boot id:")
        assert boot.boot_id in node_events(cluster)
        story.sees(lambda: describe(space, "once"), "Status: Failed",
                   "State: Terminated Reason: Unknown Message: the host was rebooted Exit Code: 255")
        restarts(space, "always", 1)
        story.sees(lambda: describe(space, "always"),
                   "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.",
                   "Last State: Terminated Reason: Unknown Message: the host was rebooted Exit Code: 255", "Restart Count: 1")
        story.sees(lambda: huskd.log_tail(100000), "the host was rebooted")
        # Whoever was up before is cleaned up as the kubelet sees fit; no namespace of it has come back.
        ready = {one.id for one in huskd.pods() if not one.state}
        assert ready.isdisjoint(before) and len(ready) == 1
        space.delete("pod", "always")
        space.delete("pod", "once")
        eventually(lambda: before.isdisjoint(one.id for one in huskd.pods()), "the old sandboxes to be removed")
        assert not any(part in path for part in before for path in host.tree(huskd.data) | host.tree(huskd.run_state))
        leases = [path.read_text() for path in (huskd.data / "cni" / "ipam").rglob("*") if path.is_file()]
        assert leases and not any(part in lease for part in before for lease in leases)


@contextlib.contextmanager
def small_disk(cluster):
    """huskd with an empty, small file system of its own for its data, and a kubelet that guards it."""
    huskd, node = cluster.huskd, cluster.node
    disk, configuration = huskd.root / "small.ext4", node.configuration
    with contextlib.ExitStack() as undo:
        undo.callback(eventually, cluster.is_ready, "the node to be Ready again")
        undo.callback(lambda: (huskd.start(), node.start()))
        node.stop()
        huskd.stop()
        with open(disk, "wb") as file:
            file.truncate(DISK)
        undo.callback(disk.unlink)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
        subprocess.run(["mount", "-o", "loop", str(disk), str(huskd.data)], check=True)
        undo.callback(subprocess.run, ["umount", str(huskd.data)], check=True)
        undo.callback(setattr, node, "configuration", configuration)
        node.configuration = {
            **configuration, "evictionPressureTransitionPeriod": "5s",
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                             "imagefs.available": THRESHOLD}}
        undo.callback(lambda: (node.stop(), huskd.stop()))
        huskd.start()
        node.start()
        eventually(cluster.is_ready, "the node to be Ready")
        yield


def pressure(cluster):
    conditions = cluster.get("node", NODE)["status"]["conditions"]
    return next(f"{one['type']} {one['status']} {one['reason']} {one['message']}" for one in conditions
                if one["type"] == "DiskPressure")


def test_a_disk_that_fills_up(cluster, space):
    story = Story("The node's disk fills up")
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this host has no loop devices")
    with small_disk(cluster):
        fill = f"dd if=/dev/zero of=/fill bs=1M count={FILL}; exec sleep 100000"
        space.apply(pod("greedy", shell("main", fill, cluster.image, resources=REQUESTS)))
        story.sees(lambda: pressure(cluster), "DiskPressure True KubeletHasDiskPressure kubelet has disk pressure", seconds=300)
        story.sees(lambda: node_events(cluster), "Warning EvictionThresholdMet Attempting to reclaim ephemeral-storage",
                   f"Normal NodeHasDiskPressure Node {NODE} status is now: NodeHasDiskPressure")
        story.sees(lambda: describe(space, "greedy"), "Status: Failed Reason: Evicted Message: The node was low on resource: "
                   f"ephemeral-storage. Threshold quantity: {THRESHOLD}, available:")
        story.sees(lambda: events(space, "greedy"), "Warning Evicted The node was low on resource: ephemeral-storage.")
        # Its disk is given back without anybody's help.
        story.sees(lambda: pressure(cluster), "DiskPressure False KubeletHasNoDiskPressure kubelet has no disk pressure",
                   seconds=300)
        space.delete("pod", "greedy")
