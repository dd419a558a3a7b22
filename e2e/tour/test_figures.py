"""What `kubectl top` and its like are made of: the kubelet's figures, against what the guest counts."""

import json
import re

from harness.cluster import NODE_ADDRESS
from harness.daemon import eventually
from harness.kubelet import NODE
from harness.manifests import pod, shell

WORK = "dd if=/dev/zero of=/tmp/filled bs=1M count=24; while :; do : ; sleep 0.1; done"
MEBI = 1 << 20


def proxied(cluster, path):
    """What the node's kubelet answers, by way of the API server."""
    return cluster.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/{path}").stdout


def summary(cluster, space, name):
    """(pod, its containers by their names) when all figures are there, else None."""
    pods = json.loads(proxied(cluster, "stats/summary"))["pods"] or []
    found = next((one for one in pods if (one["podRef"]["namespace"], one["podRef"]["name"]) == (space.name, name)), None)
    containers = {one["name"]: one for one in (found or {}).get("containers", [])}
    complete = len(containers) == 2 and all(
        "usageCoreNanoSeconds" in one.get("cpu", {}) and "workingSetBytes" in one.get("memory", {}) and
        one.get("rootfs", {}).get("usedBytes") is not None for one in containers.values())
    return (found, containers) if complete else None


def in_guest(space, container, file):
    return space.execute("measured", "cat", f"/sys/fs/cgroup/{file}", container=container)


def processor_nanoseconds(space, container):
    return int(re.search(r"usage_usec (\d+)", in_guest(space, container, "cpu.stat"))[1]) * 1000


def working_set(space, container):
    inactive = int(re.search(r"^inactive_file (\d+)$", in_guest(space, container, "memory.stat"), re.MULTILINE)[1])
    return int(in_guest(space, container, "memory.current")) - inactive


def test_figures_of_the_kubelet_are_the_guests(cluster, space):
    limits = {"limits": {"memory": "128Mi", "cpu": "500m"}, "requests": {"memory": "64Mi", "cpu": "50m"}}
    space.run(pod("measured", shell("works", WORK, cluster.image, resources=limits),
                  shell("idles", "exec sleep 100000", cluster.image, resources=limits)))
    eventually(lambda: summary(cluster, space, "measured"), "figures of both containers")

    # Processor time: never ahead of the guest, and never standing still.
    used = processor_nanoseconds(space, "works")

    def caught_up():
        now = summary(cluster, space, "measured")
        return now if now and now[1]["works"]["cpu"]["usageCoreNanoSeconds"] >= used else None
    found, containers = eventually(caught_up, "processor time to reach what the guest said")
    assert containers["works"]["cpu"]["usageCoreNanoSeconds"] <= processor_nanoseconds(space, "works")
    # The reader is in the container too. A VM's memory would be far off.
    assert abs(containers["idles"]["memory"]["workingSetBytes"] - working_set(space, "idles")) < 4 * MEBI

    space.execute("measured", "ping", "-c", "1", "-w", "60", NODE_ADDRESS, container="idles")
    received = int(space.execute("measured", "cat", "/sys/class/net/eth0/statistics/rx_bytes", container="idles"))
    assert received > 0

    def heard():
        now = summary(cluster, space, "measured")
        return now and now[0]["network"]["rxBytes"] >= received and now[0]["network"]["txBytes"] > 0
    eventually(heard, "the pod's bytes to be counted")

    def counted():
        now = summary(cluster, space, "measured")
        return now if now and now[1]["works"]["rootfs"]["usedBytes"] >= 24 * MEBI else None
    # The guest measures files once in a while.
    found, containers = eventually(counted, "what was written to be counted", seconds=300)
    assert containers["idles"]["rootfs"]["usedBytes"] < 4 * MEBI
    assert found["process_stats"]["process_count"] >= 2

    # metrics-server reads these.
    lines = proxied(cluster, "metrics/resource").splitlines()

    def metric(name, **labels):
        wanted = [f'{key}="{value}"' for key, value in {"namespace": space.name, "pod": "measured", **labels}.items()]
        values = [line.split()[1] for line in lines if line.startswith(name + "{") and all(one in line for one in wanted)]
        assert len(values) == 1, (name, labels, values)
        return float(values[0])
    for name in ("works", "idles"):
        assert metric("container_memory_working_set_bytes", container=name) > 0
        assert metric("container_cpu_usage_seconds_total", container=name) > 0
        assert metric("container_start_time_seconds", container=name) > 1e9
    assert metric("container_cpu_usage_seconds_total", container="works") * 1e9 <= processor_nanoseconds(space, "works")
    # A pod's are its machine's, on the host. A guest counts the time that its processors wait for the host's too, so that on a
    # busy host a container may have more of it than the pod.
    assert metric("pod_memory_working_set_bytes") > metric("container_memory_working_set_bytes", container="works")
    assert metric("pod_cpu_usage_seconds_total") > 0
    assert "scrape_error 0" in lines or "resource_scrape_error 0" in lines
