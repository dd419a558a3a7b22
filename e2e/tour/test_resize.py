"""kubectl patch --subresource resize: a container's limits change while it runs."""

import json

from harness.kubelet import container_status
from harness.manifests import pod, shell

MEBI = 1 << 20
UNDER_WAY = {"PodResizePending", "PodResizeInProgress"}


def resources(cpu, memory):
    return {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": cpu, "memory": memory}}


def in_guest(space):
    """(cpu.max, memory.max) of the container."""
    def read(file):
        return space.execute("resized", "cat", f"/sys/fs/cgroup/{file}").strip()
    return read("cpu.max"), read("memory.max")


def resize(space, cpu, memory):
    """Until the status tells of it."""
    wanted = resources(cpu, memory)
    space.kubectl("patch", "pod", "resized", "--subresource", "resize", "--patch",
                  json.dumps({"spec": {"containers": [{"name": "main", "resources": wanted}]}}))
    return space.wait_for("pod", "resized", lambda found: container_status(found, "main").get("resources") == wanted and
                          not UNDER_WAY & {one["type"] for one in found["status"]["conditions"]}, f"to have {cpu} and {memory}")


def test_limits_grow_and_shrink_and_nothing_restarts(cluster, space):
    """What a pod uses on the host, with its machine, the kubelet does not shrink it below."""
    before = space.run(pod("resized", shell("main", "sleep 100000", cluster.image, resources=resources("500m", "128Mi"))))
    assert in_guest(space) == ("50000 100000", str(128 * MEBI))
    for cpu, memory, guests in (("1", "384Mi", ("100000 100000", str(384 * MEBI))),
                                ("250m", "256Mi", ("25000 100000", str(256 * MEBI)))):
        found = resize(space, cpu, memory)
        assert in_guest(space) == guests
        for key in ("containerID", "restartCount", "state"):
            assert container_status(found, "main")[key] == container_status(before, "main")[key]
