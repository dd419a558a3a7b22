"""Huge pages of containers, and emptyDir of medium HugePages. One pod is booted."""

import json
import pathlib

import grpc
import pytest

from harness import guest_programs
from harness.daemon import eventually
from harness.kubelet_files import PodDirectory, hugetlbfs, mount

MEBIBYTE = 1 << 20
SLEEP = ["/bin/sleep", "100000"]


@pytest.fixture(scope="module")
def tools(huskd, registry):
    return guest_programs.pulled_image(huskd, registry, "husk/huge-pages", ["huge_pages"])


@pytest.fixture(scope="module")
def pod(huskd, tools):
    pod = huskd.run_pod("huge")
    yield pod
    pod.remove()


@pytest.fixture(scope="module")
def files(huskd, pod):
    return PodDirectory(huskd.root / "kubelet", pod.config.metadata.uid)


@pytest.fixture(scope="module")
def first(pod, tools):
    """A container that may have eight pages of 2 MiB."""
    return pod.run("first", tools, SLEEP, linux=limits(("2MB", 16 * MEBIBYTE), ("1GB", 0)))


def limits(*sizes):
    return {"resources": {"hugepage_limits": [{"page_size": size, "limit": limit} for size, limit in sizes]}}


def update(container, *sizes):
    container.pod.client.UpdateContainerResources(container_id=container.id, linux=limits(*sizes)["resources"])


def run(container, *arguments):
    code, out, err = container.execute("/huge_pages", *map(str, arguments))
    return code, out + err


def shell(container, script):
    code, out, err = container.execute("/bin/sh", "-c", script)
    assert code == 0, err
    return out.strip()


def pool(container):
    """How many pages of 2 MiB the guest's kernel has."""
    return int(shell(container, "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"))


def cgroup_limit(container):
    return int(shell(container, "cat /sys/fs/cgroup/hugetlb.2MB.max"))


def memory_of_vm(pod):
    return json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])["memoryBytes"]


def refusal(call, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(**fields)
    return error.value.code(), error.value.details()


def test_zero_of_every_size_is_what_the_kubelet_sends(pod, tools):
    """Sizes of the host's kernel that the guest's does not have among them."""
    before = memory_of_vm(pod)
    sizes = ("64KB", "2MB", "32MB", "1GB", "16GB")
    none = pod.run("none", tools, SLEEP, linux=limits(*((size, 0) for size in sizes)))
    assert cgroup_limit(none) == 0
    assert run(none, "map", 2, 1) == (1, "mmap: Cannot allocate memory\n")
    assert memory_of_vm(pod) == before
    assert {limit.page_size: limit.limit for limit in none.status().resources.linux.hugepage_limits} == \
        dict.fromkeys(sizes, 0)
    pod.client.RemoveContainer(container_id=none.id)


def test_a_container_has_its_pages_and_no_more(pod, tools, first):
    assert pool(first) == 8
    assert cgroup_limit(first) == 16 * MEBIBYTE
    assert run(first, "map", 2, 8) == (0, "touched 8\n")
    assert run(first, "map", 2, 9) == (1, "mmap: Cannot allocate memory\n")
    # Another container's pages are in the same VM: its limit keeps it from taking the first one's.
    second = pod.run("second", tools, SLEEP, linux=limits(("2MB", 8 * MEBIBYTE)))
    assert pool(first) == 12
    assert run(second, "map", 2, 4) == (0, "touched 4\n")
    assert run(second, "map", 2, 5) == (1, "SIGBUS after 4\n")
    assert {limit.page_size: limit.limit for limit in first.status().resources.linux.hugepage_limits} == \
        {"2MB": 16 * MEBIBYTE, "1GB": 0}

    update(second, ("2MB", 12 * MEBIBYTE))
    assert (pool(first), cgroup_limit(second)) == (14, 12 * MEBIBYTE)
    assert run(second, "map", 2, 6) == (0, "touched 6\n")
    assert second.status().resources.linux.hugepage_limits[0].limit == 12 * MEBIBYTE
    update(second, ("2MB", 2 * MEBIBYTE))
    assert (pool(first), cgroup_limit(second)) == (9, 2 * MEBIBYTE)
    assert run(second, "map", 2, 2) == (1, "SIGBUS after 1\n")

    pod.client.StopContainer(container_id=second.id, timeout=0)
    assert pool(first) == 8
    pod.client.RemoveContainer(container_id=second.id)
    assert run(first, "map", 2, 8) == (0, "touched 8\n")


def test_memory_comes_with_the_container_and_goes_with_it(pod, tools, first):
    """More than the VM has by itself."""
    before = memory_of_vm(pod)
    large = pod.run("large", tools, SLEEP, linux=limits(("2MB", 512 * MEBIBYTE)))
    assert memory_of_vm(pod) >= before + 512 * MEBIBYTE
    assert pool(first) == 8 + 256
    assert run(large, "map", 2, 256) == (0, "touched 256\n")
    pod.client.StopContainer(container_id=large.id, timeout=0)
    pod.client.RemoveContainer(container_id=large.id)
    assert pool(first) == 8
    # The guest gives back what it does not use, when it can.
    total = "grep MemTotal /proc/meminfo"
    eventually(lambda: int(shell(first, total).split()[1]) * 1024 < before, "the VM to be smaller again")


def test_pages_of_a_gibibyte(pod, tools, first):
    if "pdpe1gb" not in shell(first, "grep -m1 ^flags /proc/cpuinfo"):
        pytest.skip("the guest's CPU has no pages of 1 GiB")
    huge = pod.run("gibibyte", tools, SLEEP, linux=limits(("1GB", 1024 * MEBIBYTE)))
    assert shell(huge, "cat /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages") == "1"
    assert run(huge, "map", 1024, 1) == (0, "touched 1\n")
    pod.client.StopContainer(container_id=huge.id, timeout=0)
    pod.client.RemoveContainer(container_id=huge.id)
    assert shell(first, "cat /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages") == "0"


@pytest.mark.parametrize("size, limit, code", [
    ("64KB", 1 << 16, grpc.StatusCode.INVALID_ARGUMENT), ("2MB", 1 << 40, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ("2MB", 5, grpc.StatusCode.INVALID_ARGUMENT), ("2MB", (1 << 64) - 1, grpc.StatusCode.INVALID_ARGUMENT),
    ("3MB", 0, grpc.StatusCode.INVALID_ARGUMENT), ("", 0, grpc.StatusCode.INVALID_ARGUMENT),
    ("2mb;", 0, grpc.StatusCode.INVALID_ARGUMENT)])
def test_what_cannot_be_had_is_refused_by_the_fields_name(pod, tools, first, size, limit, code):
    refused = refusal(pod.create, name="refused", image=tools, command=SLEEP, linux=limits((size, limit)))
    assert refused[0] == code and f"hugepage_limits[{size}]" in refused[1]
    refused = refusal(pod.client.UpdateContainerResources, container_id=first.id,
                      linux=limits((size, limit))["resources"])
    assert refused[0] == code and f"hugepage_limits[{size}]" in refused[1]
    assert pool(first) == 8
    assert cgroup_limit(first) == 16 * MEBIBYTE


def test_a_size_twice_is_refused(pod, tools):
    refused = refusal(pod.create, name="refused", image=tools, command=SLEEP, linux=limits(("2MB", 0), ("2048KB", 0)))
    assert refused[0] == grpc.StatusCode.INVALID_ARGUMENT and "hugepage_limits[2048KB]" in refused[1]


def test_an_empty_directory_of_huge_pages(huskd, pod, tools, files, first):
    """As the kubelet mounts it on the host; the containers of the pod share one of the guest's own."""
    with hugetlbfs(files.volume("empty-dir", "pages"), "pagesize=2M") as pages:
        pages.chmod(0o2775)
        writer = pod.run("writer", tools, SLEEP, mounts=[mount("/pages", pages)],
                         linux=limits(("2MB", 8 * MEBIBYTE)))
        reader = pod.run("reader", tools, SLEEP, mounts=[mount("/shared", pages)],
                         linux=limits(("2MB", 8 * MEBIBYTE)))
        assert shell(writer, "stat -c %a /pages; grep ' /pages ' /proc/mounts").split()[:4] == \
            ["2775", "volume", "/pages", "hugetlbfs"]
        assert run(writer, "write", "/pages/file", 6, "x") == (0, "as it shall be\n")
        assert run(reader, "read", "/shared/file", 6, "x") == (0, "as it shall be\n")
        assert run(writer, "write", "/pages/too-large", 4, "y")[0] != 0
        assert not list(pages.iterdir())
        # It outlives its containers, as on a host, and huskd.
        pod.client.StopContainer(container_id=writer.id, timeout=0)
        pod.client.RemoveContainer(container_id=writer.id)
        huskd.restart()
        again = pod.run("again", tools, SLEEP, mounts=[mount("/pages", pages)], linux=limits(("2MB", 8 * MEBIBYTE)))
        assert run(again, "read", "/pages/file", 6, "x") == (0, "as it shall be\n")
        for container in (again, reader):
            pod.client.StopContainer(container_id=container.id, timeout=0)
            pod.client.RemoveContainer(container_id=container.id)

        pathlib.Path(pages, "of-the-host").touch()
        code, details = refusal(pod.create, name="full", image=tools, command=SLEEP, mounts=[mount("/pages", pages)])
        assert code == grpc.StatusCode.UNIMPLEMENTED and "of-the-host" in details


def test_huge_pages_of_the_host_are_refused(huskd, pod, tools):
    """A hostPath: what other processes of the host have in it no VM could see."""
    place = huskd.root / "hugepages"
    place.mkdir()
    with hugetlbfs(place, "pagesize=2M"):
        code, details = refusal(pod.create, name="elsewhere", image=tools, command=SLEEP, mounts=[mount("/pages", place)])
    assert code == grpc.StatusCode.UNIMPLEMENTED and "emptyDir of medium HugePages" in details and str(place) in details
