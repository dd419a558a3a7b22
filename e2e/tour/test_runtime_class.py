"""A pod by its RuntimeClass: in a VM, with the class's overhead."""

from harness.cluster import OVERHEAD
from harness.manifests import pod, shell


def test_a_pod_by_its_runtime_class_is_a_vm(cluster, space):
    found = space.run(pod("vm", shell("main", "sleep 100000", cluster.image)))
    assert found["spec"]["overhead"] == OVERHEAD
    release = space.execute("vm", "uname", "-r").strip()
    node = cluster.get("node", found["spec"]["nodeName"])
    assert release and release != node["status"]["nodeInfo"]["kernelVersion"].split()[0]
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("husk://")


def test_a_class_that_no_node_has_keeps_its_pod_waiting(cluster, space):
    cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "other"}, "handler": "other"})
    try:
        space.apply(pod("other", shell("main", "true", cluster.image), runtimeClassName="other"))
        space.wait_for("pod", "other", lambda _: any(
            reason == "FailedCreatePodSandBox" and '"other"' in message and '"husk"' in message
            for reason, message in space.events("other")), "to be refused by name")
    finally:
        cluster.kubectl("delete", "runtimeclass", "other")
