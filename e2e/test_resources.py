"""Limits of containers, pods and VMs, settings of a pod's own, ends for lack of memory, verbose status. Three pods are
booted."""

import contextlib
import json
import os
import pathlib
import subprocess

import grpc
import pytest

from harness import cri, host
from harness.daemon import HUSKD, eventually
from harness.vm_size import is_size

MEBIBYTE = 1 << 20
SLEEP = ["/bin/sleep", "100000"]
# Takes memory until something ends it: a line that has no end.
DEVOUR = "tail /dev/zero"
SLICE = "huske2e-burstable-podr.slice"
ALLOWED = ["husk.dev/default-memory", "husk.dev/default-vcpus", "husk.dev/scratch-size", "husk.dev/unlimited-memory"]
HUSKD_CONFIGURATION = {"vm": {"allowed_annotations": ALLOWED}}


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("sized", linux={
        "resources": {"memory_limit_in_bytes": 400 * MEBIBYTE, "cpu_quota": 200000, "cpu_period": 100000,
                      "cpu_shares": 512},
        "overhead": {"memory_limit_in_bytes": 64 * MEBIBYTE, "cpu_quota": 25000, "cpu_period": 100000}})
    yield pod
    pod.remove()


def cgroup_file(container, name):
    code, out, err = container.execute("/bin/cat", f"/sys/fs/cgroup/{name}")
    assert code == 0, err
    return out.strip()


def pod_cgroups(pod):
    return [pathlib.Path(directory) for directory in host.cgroups(f"husk-{pod.id}")]


def host_limit(pod, *names):
    """The first of these files that one of the pod's cgroups on the host has."""
    for directory in pod_cgroups(pod):
        for name in names:
            with contextlib.suppress(OSError):
                return (directory / name).read_text().strip()
    return None


def update(container, **linux):
    container.pod.client.UpdateContainerResources(container_id=container.id, linux=linux)


def refusal(call, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(**fields)
    return error.value.code(), error.value.details()


@pytest.fixture(scope="module")
def limited(pod, image):
    return pod.run("limited", image, SLEEP, linux={"resources": {
        "cpu_shares": 512, "cpu_quota": 50000, "cpu_period": 100000, "memory_limit_in_bytes": 64 * MEBIBYTE,
        "memory_swap_limit_in_bytes": 64 * MEBIBYTE, "cpuset_cpus": "0", "cpuset_mems": "0", "oom_score_adj": 500,
        "hugepage_limits": [{"page_size": "2MB", "limit": 0}],
        "unified": {"memory.high": str(48 * MEBIBYTE), "pids.max": "77"}}})


def test_the_vm_is_as_large_as_announced(pod, limited):
    """overhead and resources size the VM."""
    code, out, _ = limited.execute("/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo")
    cpus, memory = out.split("\n", 1)
    assert code == 0
    assert int(cpus) == min(2, os.cpu_count())
    # The guest's kernel has its own beside what the containers may use.
    assert int(memory.split()[1]) * 1024 >= 400 * MEBIBYTE


def test_limits_are_the_guests_cgroups(limited):
    """unified, cpusets, swap, memory, hugepages of 0, oom_score_adj."""
    assert cgroup_file(limited, "cpu.weight") == "20"
    assert cgroup_file(limited, "cpu.max") == "50000 100000"
    assert cgroup_file(limited, "memory.max") == str(64 * MEBIBYTE)
    assert cgroup_file(limited, "memory.swap.max") == "0"
    assert cgroup_file(limited, "memory.high") == str(48 * MEBIBYTE)
    assert cgroup_file(limited, "pids.max") == "77"
    assert cgroup_file(limited, "cpuset.cpus") == "0"
    assert cgroup_file(limited, "cpuset.mems") == "0"
    assert limited.execute("/bin/cat", "/proc/1/oom_score_adj")[1] == "500\n"


def test_update_changes_the_guest_and_restarts_nothing(limited):
    """UpdateContainerResources: idempotent, and never restarts the container."""
    before = limited.status()
    start_time = limited.execute("/bin/sh", "-c", "cut -d' ' -f22 /proc/1/stat")[1]
    for _ in range(2):
        update(limited, cpu_quota=75000, cpu_shares=1024, memory_limit_in_bytes=96 * MEBIBYTE,
               unified={"pids.max": "88"})
    assert cgroup_file(limited, "cpu.max") == "75000 100000"
    assert cgroup_file(limited, "cpu.weight") == "39"
    assert cgroup_file(limited, "memory.max") == str(96 * MEBIBYTE)
    assert cgroup_file(limited, "memory.swap.max") == "0"
    assert cgroup_file(limited, "pids.max") == "88"
    assert cgroup_file(limited, "memory.high") == str(48 * MEBIBYTE)
    update(limited, cpu_quota=-1)
    assert cgroup_file(limited, "cpu.max").split()[0] == "max"
    assert limited.execute("/bin/sh", "-c", "cut -d' ' -f22 /proc/1/stat")[1] == start_time
    status = limited.status()
    assert (status.state, status.started_at) == (before.state, before.started_at)
    in_force = status.resources.linux
    assert (in_force.memory_limit_in_bytes, in_force.cpu_quota, in_force.cpu_shares) == (96 * MEBIBYTE, -1, 1024)
    assert dict(in_force.unified) == {"memory.high": str(48 * MEBIBYTE), "pids.max": "88"}


def test_what_the_guests_kernel_refuses_changes_nothing(limited):
    """The memory limit is written first, and taken back."""
    before = limited.status().resources.linux
    code, details = refusal(limited.pod.client.UpdateContainerResources, container_id=limited.id, linux={
        "memory_limit_in_bytes": 128 * MEBIBYTE, "cpu_shares": 512, "unified": {"memory.low": "plenty"}})
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "memory.low: plenty: " in details
    assert cgroup_file(limited, "memory.max") == str(96 * MEBIBYTE)
    assert cgroup_file(limited, "cpu.weight") == "39"
    assert limited.status().resources.linux == before
    update(limited, memory_limit_in_bytes=96 * MEBIBYTE)


def test_a_limit_below_use_is_refused(pod, image):
    """With both figures, before anything changes: the kernel would kill what does not fit."""
    container = pod.run("holds", image, ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 && exec sleep 100000"],
                        linux={"resources": {"memory_limit_in_bytes": 64 * MEBIBYTE}})
    eventually(lambda: container.execute("/bin/sh", "-c", "wc -c </dev/shm/held")[1].strip() == str(24 * MEBIBYTE),
               "the memory to be used")
    code, details = refusal(pod.client.UpdateContainerResources, container_id=container.id,
                            linux={"memory_limit_in_bytes": 16 * MEBIBYTE})
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert f"memory_limit_in_bytes: {16 * MEBIBYTE} is less than the" in details
    assert cgroup_file(container, "memory.max") == str(64 * MEBIBYTE)
    assert container.status().resources.linux.memory_limit_in_bytes == 64 * MEBIBYTE
    update(container, memory_limit_in_bytes=48 * MEBIBYTE)
    assert cgroup_file(container, "memory.max") == str(48 * MEBIBYTE)
    assert container.state() == "CONTAINER_RUNNING"


def test_a_pod_without_room_says_what_makes_room(pod, huskd):
    """The kubelet limits a pod to its containers' limits and its overhead: without one QEMU does not fit."""
    parent = f"{huskd.cgroup_root}/small"
    for name in (huskd.cgroup_root, parent):
        host.make_cgroup(name)
    directories = [pathlib.Path(directory) for directory in host.cgroups("small")]
    limits = [directory / name for directory in directories for name in ("memory.limit_in_bytes", "memory.max")
              if (directory / name).exists()]
    assert limits, "no memory controller"
    try:
        limits[0].write_text(str(64 * MEBIBYTE))
        with pytest.raises(grpc.RpcError) as error:
            huskd.run_pod("no-room", linux={"cgroup_parent": parent})
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for part in ("for lack of memory", f"{parent} allows 64 MiB", "overhead.podFixed.memory is 450Mi"):
            assert part in error.value.details()
    finally:
        for directory in directories:
            directory.rmdir()


def test_update_of_a_created_container_holds_when_it_starts(pod, image):
    container = pod.create("changed", image, SLEEP, linux={"resources": {"memory_limit_in_bytes": 32 * MEBIBYTE}})
    update(container, memory_limit_in_bytes=40 * MEBIBYTE, cpuset_cpus="0")
    container.start()
    assert cgroup_file(container, "memory.max") == str(40 * MEBIBYTE)
    assert cgroup_file(container, "cpuset.cpus") == "0"
    # CPUs of the node that the guest does not have: no number of them means one of the guest's.
    update(container, cpuset_cpus="4000-4001")
    assert container.state() == "CONTAINER_RUNNING"
    container.pod.client.StopContainer(container_id=container.id, timeout=0)
    code, details = refusal(container.pod.client.UpdateContainerResources, container_id=container.id,
                            linux={"memory_limit_in_bytes": 64 * MEBIBYTE})
    assert code == grpc.StatusCode.FAILED_PRECONDITION and container.id in details


@pytest.mark.parametrize("field, resources", [
    ("cpu_period", {"cpu_period": 5}), ("cpu_quota", {"cpu_quota": -7}), ("cpu_shares", {"cpu_shares": 1 << 40}),
    ("memory_limit_in_bytes", {"memory_limit_in_bytes": 1}), ("oom_score_adj", {"oom_score_adj": 1001}),
    ("memory_swap_limit_in_bytes", {"memory_limit_in_bytes": 1 << 24, "memory_swap_limit_in_bytes": 1 << 20}),
    ("cpuset_cpus", {"cpuset_cpus": "one"}), ("cpuset_mems", {"cpuset_mems": "-1"}),
    ("unified[cgroup.procs]", {"unified": {"cgroup.procs": "1"}}),
    ("unified[../x.max]", {"unified": {"../x.max": "1"}}),
    ("hugepage_limits[3MB]", {"hugepage_limits": [{"page_size": "3MB", "limit": 0}]})])
def test_nonsense_is_refused_by_the_fields_name(pod, limited, image, field, resources):
    codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    code, details = refusal(pod.create, name="nonsense", image=image, linux={"resources": resources})
    assert code in codes and f"resources.{field}" in details
    code, details = refusal(pod.client.UpdateContainerResources, container_id=limited.id, linux=resources)
    assert code in codes and f"linux.{field}" in details


def test_a_file_that_the_guests_kernel_does_not_have(limited):
    code, details = refusal(limited.pod.client.UpdateContainerResources, container_id=limited.id,
                            linux={"unified": {"no.such_file": "1"}})
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "no.such_file: the guest's kernel has no such file" in details
    assert limited.state() == "CONTAINER_RUNNING"
    assert "no.such_file" not in limited.status().resources.linux.unified


def test_the_hosts_cgroup_holds_the_vm_and_qemu(pod, huskd):
    """QEMU is in the pod's cgroup, whose limits are the pod's and the overhead; UpdatePodSandboxResources changes them."""
    machines = [pid for pid in huskd.vm_processes() if pod.id in host.read_text(f"/proc/{pid}/cgroup")]
    assert len(machines) == 1
    assert refusal(pod.client.UpdatePodSandboxResources, pod_sandbox_id="0" * 64)[0] == grpc.StatusCode.NOT_FOUND
    code, details = refusal(pod.client.UpdatePodSandboxResources, pod_sandbox_id=pod.id, resources={"cpu_shares": -1})
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "resources.cpu_shares" in details
    memory = host_limit(pod, "memory.max", "memory.limit_in_bytes")
    quota = host_limit(pod, "cpu.max", "cpu.cfs_quota_us")
    if memory is None or quota is None:
        pytest.skip("this host's cgroups have no memory controller, or no CPU controller with quotas")
    assert int(memory) > 400 * MEBIBYTE
    assert quota.split()[0] == "225000"
    # The boot had more of them. 512 shares are a weight of 20.
    assert host_limit(pod, "cpu.weight", "cpu.shares") in ("20", "512")
    pod.client.UpdatePodSandboxResources(
        pod_sandbox_id=pod.id, resources={"cpu_quota": 100000, "cpu_period": 100000, "cpu_shares": 256},
        overhead={"cpu_quota": 50000, "cpu_period": 100000})
    assert host_limit(pod, "cpu.max", "cpu.cfs_quota_us").split()[0] == "150000"
    assert host_limit(pod, "memory.max", "memory.limit_in_bytes") == memory


def test_runtime_config(huskd):
    """RuntimeConfig tells the driver; UpdateRuntimeConfig takes the kubelet's pod CIDR."""
    assert huskd.client.RuntimeConfig().linux.cgroup_driver == cri.api.CGROUPFS
    huskd.client.UpdateRuntimeConfig(runtime_config={"network_config": {"pod_cidr": "10.9.0.0/24"}})


def test_checkpoint_says_why_not(limited):
    code, details = refusal(limited.pod.client.CheckpointContainer, container_id=limited.id)
    assert code == grpc.StatusCode.UNIMPLEMENTED and "checkpoint" in details


def test_a_container_over_its_limit_is_oom_killed(pod, image):
    limit = {"resources": {"memory_limit_in_bytes": 24 * MEBIBYTE}}
    first = pod.run("first", image, ["/bin/sh", "-c", f"exec {DEVOUR}"], linux=limit)
    status = first.wait()
    assert (status.exit_code, status.reason, status.message) == (137, "OOMKilled", "")
    # The killer took a child; the first process goes on and ends well: containerd says OOMKilled too.
    child = pod.run("child", image, ["/bin/sh", "-c", f"{DEVOUR}; echo child $?; exit 0"], linux=limit)
    status = child.wait()
    assert (status.exit_code, status.reason) == (0, "OOMKilled")
    assert child.log() == "child 137\n"
    # What the kubelet sends so that all processes go together.
    limit["resources"]["unified"] = {"memory.oom.group": "1"}
    group = pod.run("group", image, ["/bin/sh", "-c", f"{DEVOUR}; echo never"], linux=limit)
    status = group.wait()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert group.log() == ""


def test_verbose_status(pod, limited, huskd):
    """As crictl inspectp, inspect and info show it."""
    info = pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info
    vm = json.loads(info["vm"])
    assert host.command_line(vm["pid"]) and vm["commandLine"][0].endswith("qemu-system-x86_64")
    assert vm["memoryBytes"] > 400 * MEBIBYTE
    disks = json.loads(info["disks"])
    assert [disk["use"] for disk in disks] == ["scratch", "image"]
    assert pathlib.Path(disks[0]["path"]).exists()
    assert pod.address() in info["cniResult"]
    assert json.loads(info["config"])["hostname"] == "sized"
    assert not pod.client.PodSandboxStatus(pod_sandbox_id=pod.id).info

    info = json.loads(pod.client.ContainerStatus(container_id=limited.id, verbose=True).info["info"])
    assert info["sandboxID"] == pod.id
    assert info["pid"] > 1
    assert info["runtimeSpec"]["process"]["args"] == SLEEP
    assert info["runtimeSpec"]["linux"]["resources"]["memory"]["limit"] == 96 * MEBIBYTE
    assert info["image"]["id"] == limited.status().image_id
    assert info["disk"]["lun"] == disks[1]["lun"]
    assert not pod.client.ContainerStatus(container_id=limited.id).info

    info = huskd.client.Status(verbose=True).info
    assert str(huskd.data) in json.loads(info["config"])
    for value in info.values():
        json.loads(value)


def test_limits_outlive_huskd(limited, huskd):
    huskd.restart()
    assert limited.state() == "CONTAINER_RUNNING"
    in_force = limited.status().resources.linux
    assert (in_force.memory_limit_in_bytes, in_force.cpu_shares) == (96 * MEBIBYTE, 1024)
    assert json.loads(limited.pod.client.ContainerStatus(container_id=limited.id, verbose=True).info["info"])["pid"] > 1


def vm_of(pod):
    return json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])


def test_a_pods_own_settings_hold_over_a_restart(huskd, image):
    vcpus = min(2, os.cpu_count())
    pod = huskd.run_pod("own", annotations={
        "husk.dev/default-memory": "384Mi", "husk.dev/default-vcpus": str(vcpus), "husk.dev/scratch-size": "1Gi",
        "example.com/husk.dev": "not Husk's"})
    try:
        def own():
            vm = vm_of(pod)
            return (is_size(vm["memoryBytes"], 384 * MEBIBYTE) and vm["wantedMemoryBytes"] == 384 * MEBIBYTE and
                    vm["onlineVcpus"] == vcpus)
        assert own()
        disks = json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["disks"])
        assert os.stat(disks[0]["path"]).st_size == 1024 * MEBIBYTE
        container = pod.run("looks", image, SLEEP)
        code, out, _ = container.execute("/bin/sh", "-c", "grep -c ^processor /proc/cpuinfo; df -k / | tail -n 1")
        assert code == 0 and int(out.split("\n")[0]) == vcpus
        assert 900 * 1024 < int(out.split("\n")[1].split()[1]) <= 1024 * 1024
        huskd.restart()
        assert own()
        large = pod.run("large", image, SLEEP, linux={"resources": {"memory_limit_in_bytes": 400 * MEBIBYTE}})
        # What the container without a limit may use is the pod's default, not the node's.
        assert vm_of(pod)["memoryBytes"] > (384 + 400) * MEBIBYTE
        pod.client.StopContainer(container_id=large.id, timeout=0)
        pod.client.RemoveContainer(container_id=large.id)
        eventually(own, lambda: f"the VM to be as large as the pod's default: {vm_of(pod)}")
    finally:
        pod.remove()


@pytest.mark.parametrize("name, value, code, words", [
    ("default-memroy", "1Gi", grpc.StatusCode.INVALID_ARGUMENT, 'did you mean "husk.dev/default-memory"?'),
    ("kernel", "/bin/false", grpc.StatusCode.INVALID_ARGUMENT, "is unknown"),
    ("unlimited-cpu-percent", "50", grpc.StatusCode.PERMISSION_DENIED, "vm.allowed_annotations"),
    ("default-memory", "plenty", grpc.StatusCode.INVALID_ARGUMENT, 'expected a size such as 256Mi'),
    ("default-memory", "100Ti", grpc.StatusCode.INVALID_ARGUMENT, "is above vm.maximum_memory"),
    ("unlimited-memory", "100Ti", grpc.StatusCode.INVALID_ARGUMENT, "is above vm.maximum_memory"),
    ("default-vcpus", "1024", grpc.StatusCode.INVALID_ARGUMENT, "is above vm.maximum_vcpus"),
    ("scratch-size", "1", grpc.StatusCode.INVALID_ARGUMENT, "expected at least 64Mi")])
def test_annotations_that_the_node_does_not_take(huskd, name, value, code, words):
    before = huskd.snapshot()
    refused, details = refusal(huskd.run_pod, name="refused", annotations={f"husk.dev/{name}": value})
    assert refused == code
    assert details.startswith(f"config.annotations[husk.dev/{name}]: ") and words in details
    after = huskd.snapshot()
    assert after == before, "something was made"


def test_an_unknown_name_in_the_nodes_list(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("version: 1\nvm:\n  allowed_annotations: [husk.dev/default-memory, husk.dev/kernel]\n")
    for command in ([HUSKD, "--config", config, "--check-config"], [HUSKD, "--config", config],
                    [HUSKD.parent / "huskctl", "check", "--config", config]):
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode != 0
        assert 'vm.allowed_annotations: "husk.dev/kernel" is unknown; ' in result.stderr
        assert "config.yaml:3:" in result.stderr


def test_what_a_guest_frees_goes_back_to_the_host(huskd, pod, image):
    taking = "x=$(head -c 150000000 /dev/zero | tr '\\0' a); echo taken; sleep 100000"
    machine = huskd.vm_process_of(pod)
    before = host.resident_bytes(machine)
    taker = pod.run("taker", image, ["/bin/sh", "-c", taking])
    taker.wait_for_log("taken\n")
    assert host.resident_bytes(machine) > before + 128 * MEBIBYTE
    pod.client.StopContainer(container_id=taker.id, timeout=0)
    eventually(lambda: host.resident_bytes(machine) < before + 32 * MEBIBYTE,
               lambda: f"QEMU to let go of memory: {before} before, now {host.resident_bytes(machine)}")
    pod.client.RemoveContainer(container_id=taker.id)


def test_a_vm_out_of_memory_is_told_from_a_container_at_its_limit(pod, image):
    greedy = pod.run("greedy", image, ["/bin/sh", "-c", f"exec {DEVOUR}"], linux={"resources": {"oom_score_adj": 1000}})
    status = greedy.wait()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    assert "MiB was out of memory, though the container had not" in status.message
    assert pod.state() == "SANDBOX_READY"


def test_a_systemd_parent_and_a_vm_that_the_hosts_oom_killer_took(huskd, image):
    """systemd naming; QEMU killed at its cgroup's limit is told apart from an end inside the guest."""
    pod = huskd.run_pod("host-oom", linux={"cgroup_parent": SLICE})
    try:
        slices = f"huske2e.slice/huske2e-burstable.slice/{SLICE}/husk-{pod.id}"
        directories = [directory for directory in pod_cgroups(pod) if str(directory).endswith(slices)]
        assert directories and directories == [d for d in pod_cgroups(pod) if d.name == f"husk-{pod.id}"]
        memory = next((d for d in directories if (d / "memory.limit_in_bytes").exists() or (d / "memory.max").exists()), None)
        if memory is None:
            pytest.skip("this host has no memory controller")
        v1 = (memory / "memory.limit_in_bytes").exists()
        limit, own = ("memory.limit_in_bytes", "rss") if v1 else ("memory.max", "anon")
        greedy = pod.run("greedy", image, ["/bin/sh", "-c", f"sleep 1; exec {DEVOUR}"])
        # What the kernel can give up, its cache of files, does not count.
        held = {name: int(value) for name, value in map(str.split, (memory / "memory.stat").read_text().splitlines())}
        (memory / limit).write_text(str(held[own] + held["shmem"] + 8 * MEBIBYTE))
        eventually(lambda: pod.state() == "SANDBOX_NOTREADY", "the VM to be killed")
        status = greedy.wait()
        assert (status.exit_code, status.reason) == (137, "OOMKilled")
        assert "the host killed it for lack of memory" in status.message
    finally:
        pod.remove()
        for directory in sorted(host.cgroups("huske2e.slice"), reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
