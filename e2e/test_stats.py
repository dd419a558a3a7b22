"""Statistics and metrics: figures of a container whose use is known, against the guest's own files; a silent guest. Two
pods are booted."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import grpc
import pytest

from harness import cri, host
from harness.daemon import eventually
from harness.kubelet_files import PodDirectory, mount

MEBIBYTE = 1 << 20
LIMIT = 128 * MEBIBYTE
LAYER, EMPTY, TOUCHED = 12, 7, 32  # MiB

# Burns processor time, writes to its layer and its empty directory, and then holds memory: dd has touched all of its
# buffer when it waits for the pipe.
WORK = f"""
i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done
dd if=/dev/zero of=/layer bs=1M count={LAYER} 2>/dev/null
ln /layer /same
dd if=/dev/zero of=/empty/file bs=1M count={EMPTY} 2>/dev/null
dd if=/dev/zero bs={TOUCHED}M count=1 2>/dev/null | sleep 100000 &
echo ready
wait
"""


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("measured", labels={"role": "measured"},
                        linux={"resources": {"memory_limit_in_bytes": 2 * LIMIT}})
    yield pod
    pod.remove()


@pytest.fixture(scope="module")
def volume(huskd, pod):
    return PodDirectory(huskd.root / "kubelet", pod.config.metadata.uid).volume("empty-dir", "space")


@pytest.fixture(scope="module")
def worker(pod, image, volume):
    container = pod.run("worker", image, ["/bin/sh", "-c", WORK], labels={"part": "worker"}, annotations={"note": "n"},
                        mounts=[mount("/empty", volume)], linux={"resources": {"memory_limit_in_bytes": LIMIT}})
    container.wait_for_log("ready\n")
    return container


def container_stats(container):
    return container.pod.client.ContainerStats(container_id=container.id).stats


def pod_stats(pod):
    return pod.client.PodSandboxStats(pod_sandbox_id=pod.id).stats


def fresh(read, part=lambda stats: stats.cpu):
    """Figures that were taken after this call began: a guest that is slow to answer is not waited for."""
    begin = time.time_ns()
    return eventually(lambda: (lambda stats: stats if part(stats).timestamp > begin else None)(read()), "fresh figures")


def in_guest(container, path):
    code, out, err = container.execute("/bin/cat", path)
    assert code == 0, err
    return out


def numbers(text):
    return {words[0]: int(words[1]) for words in (line.split() for line in text.splitlines()) if len(words) == 2}


def cpu_usage(container):
    return numbers(in_guest(container, "/sys/fs/cgroup/cpu.stat"))["usage_usec"] * 1000


def interface(container, name="eth0"):
    """Bytes received and sent."""
    for line in in_guest(container, "/proc/net/dev").splitlines():
        if line.strip().startswith(f"{name}:"):
            words = line.split(":")[1].split()
            return int(words[0]), int(words[8])
    raise AssertionError(f"no {name}")


def refusal(call, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(**fields)
    return error.value.code()


def test_processor_time_is_the_guests_and_only_grows(huskd, worker):
    before = cpu_usage(worker)
    assert before > 1_000_000, "the loop has used some"
    stats = fresh(lambda: container_stats(worker))
    after = cpu_usage(worker)
    assert before <= stats.cpu.usage_core_nano_seconds.value <= after
    assert stats.cpu.psi.HasField("Some")
    rated = eventually(lambda: (lambda each: each if each.cpu.HasField("usage_nano_cores") else None)(
        container_stats(worker)), "a rate of two samples")
    assert rated.cpu.usage_nano_cores.value < 1_000_000_000 * os.cpu_count()
    huskd.restart()
    again = fresh(lambda: container_stats(worker))
    assert again.cpu.usage_core_nano_seconds.value >= stats.cpu.usage_core_nano_seconds.value


def test_memory_processes_and_attributes(worker):
    stats = fresh(lambda: container_stats(worker))
    memory = stats.memory
    said = numbers(in_guest(worker, "/sys/fs/cgroup/memory.stat"))
    slack = 4 * MEBIBYTE
    assert TOUCHED * MEBIBYTE <= memory.rss_bytes.value <= said["anon"] + slack
    assert abs(memory.rss_bytes.value - said["anon"]) < slack
    usage = int(in_guest(worker, "/sys/fs/cgroup/memory.current"))
    assert abs(memory.usage_bytes.value - usage) < 2 * slack
    assert memory.rss_bytes.value <= memory.usage_bytes.value
    assert memory.working_set_bytes.value <= memory.usage_bytes.value
    assert memory.available_bytes.value == LIMIT - memory.working_set_bytes.value
    assert 0 < memory.page_faults.value <= said["pgfault"]
    assert memory.major_page_faults.value <= said["pgmajfault"]
    assert memory.psi.HasField("Some") and memory.psi.HasField("Full")
    assert stats.io.psi.HasField("Full")
    assert stats.swap.HasField("swap_usage_bytes")
    assert stats.attributes.id == worker.id
    assert stats.attributes.metadata.name == "worker"
    assert dict(stats.attributes.labels) == {"part": "worker"}
    assert dict(stats.attributes.annotations) == {"note": "n"}


def test_the_writable_layer_and_the_empty_directory(huskd, pod, worker, volume):
    def measured():
        layer = container_stats(worker).writable_layer
        return layer if layer.used_bytes.value >= LAYER * MEBIBYTE else None
    layer = eventually(measured, "the writable layer's bytes")
    # Two names of one file; the container's mount points are in the layer too.
    assert layer.used_bytes.value < (LAYER + 1) * MEBIBYTE
    assert 2 <= layer.inodes_used.value < 40
    assert layer.timestamp <= time.time_ns()
    assert os.path.ismount(layer.fs_id.mountpoint) or os.path.isdir(layer.fs_id.mountpoint)

    def used():
        pod_stats(pod)
        information = pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info
        found = [each for each in json.loads(information["volumes"]) if each["path"] == str(volume)]
        return found[0] if found and found[0].get("usedBytes", 0) >= EMPTY * MEBIBYTE else None
    space = eventually(used, "the empty directory's bytes")
    assert space["usedBytes"] < (EMPTY + 1) * MEBIBYTE
    assert space["inodes"] == 2


SENT = 300_000


def receive(huskd, worker):
    """Has the container send SENT bytes over eth0 to this host."""
    addresses = json.loads(subprocess.run(["ip", "-json", "-4", "address", "show", "dev", huskd.bridge], check=True,
                                          capture_output=True, text=True).stdout)
    with socket.create_server((addresses[0]["addr_info"][0]["local"], 0)) as listener:
        listener.settimeout(120)
        address, port = listener.getsockname()
        call = huskd.client.future("ExecSync", container_id=worker.id, timeout=180,
                                   cmd=["/bin/sh", "-c", f"head -c {SENT} /dev/zero | nc {address} {port}"])
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            assert len(stream.read(SENT)) == SENT
        assert call.result().exit_code == 0


def test_network_counters_are_the_guests(huskd, pod, worker):
    before = interface(worker)
    receive(huskd, worker)
    lower = interface(worker)
    stats = fresh(lambda: pod_stats(pod), lambda each: each.linux.network)
    upper = interface(worker)
    default = stats.linux.network.default_interface
    assert default.name == "eth0"
    assert lower[0] <= default.rx_bytes.value <= upper[0]
    assert lower[1] <= default.tx_bytes.value <= upper[1]
    assert default.tx_bytes.value >= before[1] + SENT
    assert default.HasField("rx_errors") and default.HasField("tx_errors")


def test_a_pods_figures(pod, worker):
    stats = fresh(lambda: pod_stats(pod), lambda each: each.linux.cpu)
    assert stats.attributes.id == pod.id
    assert stats.attributes.metadata.name == "measured" and stats.attributes.metadata.namespace == "e2e"
    linux = stats.linux
    assert linux.cpu.usage_core_nano_seconds.value > 0
    assert linux.memory.working_set_bytes.value >= TOUCHED * MEBIBYTE
    assert linux.memory.HasField("available_bytes")
    assert linux.process.process_count.value >= 3
    assert [each.attributes.id for each in linux.containers] == [worker.id]
    again = fresh(lambda: pod_stats(pod), lambda each: each.linux.cpu)
    assert again.linux.cpu.usage_core_nano_seconds.value >= linux.cpu.usage_core_nano_seconds.value


def test_lists_filters_and_streams(huskd, pod, worker, image):
    def containers(**fields):
        ids = [each.attributes.id for each in huskd.client.ListContainerStats(filter=fields).stats]
        streamed = [each.attributes.id for piece in huskd.client.StreamContainerStats(filter=fields)
                    for each in piece.container_stats]
        assert ids == streamed
        return ids

    def pods(**fields):
        ids = [each.attributes.id for each in huskd.client.ListPodSandboxStats(filter=fields).stats]
        streamed = [each.attributes.id for piece in huskd.client.StreamPodSandboxStats(filter=fields)
                    for each in piece.pod_sandbox_stats]
        assert ids == streamed
        return ids
    assert containers() == [worker.id]
    assert containers(id=worker.id[:12]) == [worker.id]
    assert containers(pod_sandbox_id=pod.id, label_selector={"part": "worker"}) == [worker.id]
    assert containers(label_selector={"part": "other"}) == []
    assert containers(pod_sandbox_id="none") == []
    assert pods() == [pod.id]
    assert pods(id=pod.id[:12], label_selector={"role": "measured"}) == [pod.id]
    assert pods(label_selector={"role": "other"}) == []
    assert refusal(huskd.client.ContainerStats, container_id="none") == grpc.StatusCode.NOT_FOUND
    assert refusal(huskd.client.PodSandboxStats, pod_sandbox_id="none") == grpc.StatusCode.NOT_FOUND
    assert refusal(huskd.client.ContainerStats) == grpc.StatusCode.INVALID_ARGUMENT
    # One that has not been started, and one that has exited.
    created = pod.create("created", image, ["/bin/true"])
    assert not container_stats(created).HasField("cpu")
    ended = pod.run("ended", image, ["/bin/sh", "-c", "echo x > /written"])
    ended.wait()
    stats = eventually(lambda: (lambda each: each if each.HasField("writable_layer") else None)(container_stats(ended)),
                       "the layer of one that has exited")
    assert not stats.HasField("memory")
    assert stats.writable_layer.inodes_used.value >= 2
    assert containers() == [worker.id]


def test_metrics_have_descriptors_and_their_labels(huskd, pod, worker):
    descriptors = {each.name: each for each in huskd.client.ListMetricDescriptors().descriptors}
    fresh(lambda: container_stats(worker))
    (figures,) = huskd.client.ListPodSandboxMetrics().pod_metrics
    assert figures.pod_sandbox_id == pod.id
    (container,) = figures.container_metrics
    assert container.container_id == worker.id

    def check(metrics, identity):
        values = {}
        for metric in metrics:
            keys = list(descriptors[metric.name].label_keys)
            assert len(keys) == len(metric.label_values), metric.name
            labels = dict(zip(keys, metric.label_values))
            assert labels["id"] == identity and labels["pod"] == "measured" and labels["namespace"] == "e2e"
            values[metric.name] = metric.value.value
        return values
    of_pod, of_container = check(figures.metrics, pod.id), check(container.metrics, worker.id)
    assert of_container["container_memory_rss"] >= TOUCHED * MEBIBYTE
    assert of_container["container_spec_memory_limit_bytes"] == LIMIT
    assert of_container["container_fs_usage_bytes"] >= LAYER * MEBIBYTE
    assert of_container["container_processes"] >= 3
    assert "container_pressure_cpu_waiting_seconds_total" in of_container
    assert of_pod["container_network_transmit_bytes_total"] > 0
    streamed = [each.pod_sandbox_id for piece in huskd.client.StreamPodSandboxMetrics()
                for each in piece.pod_sandbox_metrics]
    assert streamed == [pod.id]


def test_agt_05_a_stopped_guest_delays_no_list(huskd, pod, worker, image):
    other = huskd.run_pod("silent")
    silent = other.run("sleeper", image, ["/bin/sleep", "100000"])
    last = fresh(lambda: container_stats(silent))
    (machine,) = [pid for pid in huskd.vm_processes() if other.id in host.read_text(f"/proc/{pid}/cgroup")
                  or other.id in host.command_line(pid)]
    os.kill(machine, signal.SIGSTOP)
    try:
        def figures():
            # A list that waited for what it asks the silent guest, which is given up after 20 seconds, would fail.
            return {each.attributes.id: each for each in huskd.client.ListContainerStats(deadline=15).stats}
        known = figures()[silent.id].cpu.timestamp
        for _ in range(20):
            assert figures()[silent.id].cpu.timestamp >= last.cpu.timestamp
        held = figures()[silent.id]
        assert known <= held.cpu.timestamp < time.time_ns()
        assert held.cpu.usage_core_nano_seconds.value >= last.cpu.usage_core_nano_seconds.value
        assert {each.attributes.id for each in huskd.client.ListPodSandboxStats().stats} == {pod.id, other.id}
        # The other guest's figures go on.
        fresh(lambda: figures()[worker.id])
        assert figures()[silent.id].cpu.timestamp == held.cpu.timestamp
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine, signal.SIGCONT)
    fresh(lambda: container_stats(silent))
    other.remove()
    assert refusal(huskd.client.PodSandboxStats, pod_sandbox_id=other.id) == grpc.StatusCode.NOT_FOUND


def test_huskctl_stats(huskd, pod, worker):
    def huskctl(*arguments):
        return subprocess.run([cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{huskd.socket}", *arguments],
                              check=True, capture_output=True, text=True).stdout
    table = huskctl("stats")
    assert "measured" in table and "worker" in table
    (figures,) = json.loads(huskctl("stats", "--output", "json"))
    assert figures["pod"]["id"] == pod.id
    (container,) = figures["containers"]
    assert container["name"] == "worker" and container["memoryWorkingSetBytes"] >= TOUCHED * MEBIBYTE


def test_huskctl_top(huskd, pod, worker):
    def huskctl(*arguments):
        return subprocess.run([cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{huskd.socket}", "top", *arguments],
                              check=True, capture_output=True, text=True).stdout
    table = huskctl().splitlines()
    assert table[0].split()[:2] == ["POD", "CONTAINER"]
    assert table[1].startswith("measured ") and table[2].split()[:2] == ["measured", "worker"]
    assert "none / 128.0 MiB" in table[2]
    (figures,) = json.loads(huskctl("measured", "--output", "json"))
    vm = json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])
    of_pod = figures["pod"]
    assert of_pod["id"] == pod.id and not of_pod["resizing"]
    for key in ("memoryBytes", "requestedMemoryBytes", "wantedMemoryBytes", "vcpus", "onlineVcpus", "wantedVcpus"):
        assert of_pod[key] == vm[key], key
    assert TOUCHED * MEBIBYTE <= of_pod["usedMemoryBytes"] < of_pod["memoryBytes"]
    (container,) = figures["containers"]
    assert container["id"] == worker.id and container["memoryLimitBytes"] == LIMIT
    assert TOUCHED * MEBIBYTE <= container["usedMemoryBytes"] <= LIMIT
    assert "cpuLimitCores" not in container and container["cpuNanoCores"] >= 0
