"""Pods that make room for more urgent ones: chosen by the scheduler, and by a kubelet with a static pod."""

import pytest
from harness.daemon import eventually
from harness.kubelet import NODE, is_ready
from harness.manifests import pod, shell


@pytest.fixture
def urgent(cluster, space):
    """A priority class."""
    name = f"urgent-{space.name}"
    cluster.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000})
    yield name
    cluster.kubectl("delete", "priorityclass", name)


def large(cluster, name, **fields):
    """Two of them have no room. Its end is told."""
    millis = int(float(cluster.get("node", NODE)["status"]["allocatable"]["cpu"]) * 600)
    return pod(name, shell("main", "trap 'echo bye >/dev/termination-log; exit 3' TERM; while :; do sleep 0.2; done",
                           cluster.image, resources={"requests": {"cpu": f"{millis}m", "memory": "32Mi"}}),
               **{**fields, "terminationGracePeriodSeconds": 60})


def test_an_urgent_pod_takes_the_place_of_another(cluster, space, urgent):
    space.run(large(cluster, "ordinary"))
    machines = set(cluster.huskd.vm_processes())
    space.apply(large(cluster, "urgent", priorityClassName=urgent))
    space.wait_for("pod", "urgent", is_ready, "to be ready")
    assert space.get("pod", "ordinary") is None
    assert "Preempted" in [reason for reason, _ in space.events("ordinary")]
    eventually(lambda: not machines & set(cluster.huskd.vm_processes()), "the machine of the other to be gone")

    # What a static pod needs is taken from the least urgent of the node's pods.
    static = large(cluster, f"static-{space.name}")
    del static["spec"]["automountServiceAccountToken"]
    cluster.node.add(static["metadata"]["name"], static["spec"])
    try:
        ended = space.wait_for("pod", "urgent", lambda found: found["status"]["phase"] == "Failed", "to be evicted")
        assert ended["status"]["reason"] == "Preempting"
        terminated = ended["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (terminated["exitCode"], terminated["message"]) == (3, "bye\n")
        cluster.node.wait_until_ready(static["metadata"]["name"])
    finally:
        cluster.node.delete(static["metadata"]["name"])
        eventually(lambda: cluster.get("pod", f"{static['metadata']['name']}-{NODE}") is None, "the static pod to go")
