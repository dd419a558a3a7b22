"""Static pods, and their mirrors in the API."""

from harness.daemon import eventually
from harness.kubelet import NODE, container_status, is_ready
from harness.manifests import pod_spec, shell


def spec(image, word):
    result = pod_spec(shell("main", f"echo {word}; sleep 100000", image))
    del result["automountServiceAccountToken"]
    return result


def test_a_static_pod_has_a_mirror(cluster, space):
    name = f"static-{space.name}"
    mirror = f"{name}-{NODE}"
    cluster.node.add(name, spec(cluster.image, "first"))
    try:
        found = cluster.wait_for("pod", mirror, is_ready, "to be ready")
        assert found["metadata"]["ownerReferences"][0]["name"] == NODE
        eventually(lambda: cluster.kubectl("logs", mirror).stdout == "first\n", "its word")
        assert cluster.execute(mirror, "cat", "/etc/motd") == "Hello from an image of three layers.\n"
        identity = container_status(found, "main")["containerID"]

        # The mirror is but a picture.
        cluster.kubectl("delete", "pod", mirror, "--wait=false")
        again = cluster.wait_for("pod", mirror, lambda one: one["metadata"]["uid"] != found["metadata"]["uid"] and is_ready(one),
                                 "to be there again")
        assert container_status(again, "main")["containerID"] == identity

        # Another manifest is another pod.
        cluster.node.add(name, spec(cluster.image, "second"))
        cluster.wait_for("pod", mirror, lambda one: is_ready(one) and container_status(one, "main")["containerID"] != identity,
                         "to be replaced")
        eventually(lambda: cluster.kubectl("logs", mirror).stdout == "second\n", "the other word")
    finally:
        cluster.node.delete(name)
        eventually(lambda: cluster.get("pod", mirror) is None, "the mirror to go")
    eventually(lambda: name not in {one.metadata.name.removesuffix(f"-{NODE}") for one in cluster.huskd.pods() if one.state == 0},
               "the pod to end")
