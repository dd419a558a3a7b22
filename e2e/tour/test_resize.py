"""kubectl patch --subresource resize: a container's limits change while it runs, and its VM with them."""

import json
import pathlib

from harness import host
from harness.daemon import eventually
from harness.kubelet import container_status
from harness.manifests import pod, shell
from harness.vm_size import is_size

MEBI = 1 << 20
UNDER_WAY = {"PodResizePending", "PodResizeInProgress"}
TIMES = 10
# Thousandths of a CPU and MiB. What a pod uses on the host, with its machine, the kubelet does not shrink it below.
SMALL, LARGE = (500, 256), (1500, 384)
# Each line a sum over the same megabyte: another one, or a line too few, would show.
CHECKING = ("head -c 1048576 /dev/urandom >/dev/shm/data; n=0; "
            "while :; do echo $n $(md5sum </dev/shm/data); n=$((n+1)); sleep 0.5; done")


def resources(cpu, memory):
    # As the API server writes them.
    cpus = str(cpu // 1000) if cpu % 1000 == 0 else f"{cpu}m"
    return {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": cpus, "memory": f"{memory}Mi"}}


def resize(space, cpu, memory):
    """Until the status tells of it."""
    wanted = resources(cpu, memory)
    space.kubectl("patch", "pod", "resized", "--subresource", "resize", "--patch",
                  json.dumps({"spec": {"containers": [{"name": "main", "resources": wanted}]}}))
    return space.wait_for("pod", "resized",
                          lambda found: container_status(found, "main").get("resources") == wanted and
                          not UNDER_WAY & {one["type"] for one in found["status"]["conditions"]},
                          f"to have {wanted['limits']}")


class Sized:
    """What everybody says that the pod has."""

    def __init__(self, cluster, space):
        self._client, self._space = cluster.huskd.client, space
        self._sandbox, = (one.id for one in cluster.huskd.pods() if one.metadata.name == "resized" and
                          one.metadata.namespace == space.name and one.state == 0)
        self._container, = (one.id for one in cluster.huskd.containers() if one.pod_sandbox_id == self._sandbox)
        self._kernels = self.vm()["memoryBytes"] - self._in_guest()[0]

    def vm(self):
        return json.loads(self._client.PodSandboxStatus(pod_sandbox_id=self._sandbox, verbose=True).info["vm"])

    def _in_guest(self):
        """(bytes of memory, CPUs, cpu.max, memory.max)"""
        total, cpus, cpu, memory = self._space.execute("resized", "sh", "-c", (
            "grep MemTotal /proc/meminfo; nproc; cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max")).splitlines()
        return int(total.split()[1]) * 1024, int(cpus), cpu, int(memory)

    def _host_limit(self):
        files = [pathlib.Path(directory, name) for directory in host.cgroups(f"husk-{self._sandbox}")
                 for name in ("memory.max", "memory.limit_in_bytes")]
        return next(int(file.read_text()) for file in files if file.exists())

    def difference(self, cpu, memory):
        """Empty if all agree."""
        vm, guest = self.vm(), self._in_guest()
        status = self._client.ContainerStatus(container_id=self._container).status.resources.linux
        cpus, size = -(-cpu // 1000), vm["memoryBytes"]
        has = {"guest's limits": guest[2:], "CRI's limits": (status.cpu_quota, status.memory_limit_in_bytes),
               "vCPUs": (vm["onlineVcpus"], guest[1]), "memory asked of QEMU": is_size(size, vm["requestedMemoryBytes"]),
               "guest's memory": guest[0], "host": self._host_limit() >= size, "room": size >= (memory + 100) * MEBI}
        shall = {"guest's limits": (f"{100 * cpu} 100000", memory * MEBI), "CRI's limits": (100 * cpu, memory * MEBI),
                 "vCPUs": (cpus, cpus), "memory asked of QEMU": True, "guest's memory": size - self._kernels, "host": True,
                 "room": True}
        return {key: (has[key], shall[key]) for key in has if has[key] != shall[key]}


def test_limits_grow_and_shrink_and_nothing_restarts(cluster, space):
    before = space.run(pod("resized", shell("main", CHECKING, cluster.image, resources=resources(*SMALL))))
    sized = Sized(cluster, space)
    sizes = []
    for _ in range(TIMES):
        for cpu, memory in (LARGE, SMALL):
            found = resize(space, cpu, memory)
            # What the guest does not give back at once is reported as had, until it has.
            eventually(lambda: not sized.difference(cpu, memory), lambda: f"to agree: {sized.difference(cpu, memory)}")
            sizes.append(sized.vm()["requestedMemoryBytes"])
            for key in ("containerID", "restartCount", "state"):
                assert container_status(found, "main")[key] == container_status(before, "main")[key]
    assert set(sizes[::2]) == {max(sizes)} and set(sizes[1::2]) == {min(sizes)} and max(sizes) > min(sizes)
    lines = space.kubectl("logs", "resized").stdout.splitlines()
    assert len({line.split(" ", 1)[1] for line in lines}) == 1
    assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
