"""Storage of a node: a StatefulSet's local volumes, raw block volumes, and a directory in memory."""

import contextlib
import pathlib
import subprocess
import tempfile

import pytest

from harness.daemon import eventually
from harness.kubelet import NODE, is_ready
from harness.manifests import pod, pod_spec, shell, workload

MEBI = 1 << 20


@contextlib.contextmanager
def directory():
    with tempfile.TemporaryDirectory(prefix="husk-tour-", dir="/var/tmp") as path:
        yield pathlib.Path(path)


@contextlib.contextmanager
def loop_device(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    device = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def storage_class(name):
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}


def local_volume(name, of_class, path, mode):
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": {"of": of_class}},
            "spec": {"capacity": {"storage": "16Mi"}, "volumeMode": mode, "accessModes": ["ReadWriteOnce"],
                     "persistentVolumeReclaimPolicy": "Retain", "storageClassName": of_class, "local": {"path": str(path)},
                     "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}}}}


def claim(name, of_class, mode):
    return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": mode,
                                                 "storageClassName": of_class, "resources": {"requests": {"storage": "16Mi"}}}}


@contextlib.contextmanager
def local_volumes(cluster, of_class, paths, mode="Filesystem"):
    """Objects that belong to no namespace."""
    cluster.apply(storage_class(of_class), *(local_volume(f"{of_class}-{i}", of_class, path, mode)
                                             for i, path in enumerate(paths)))
    try:
        yield
    finally:
        cluster.kubectl("delete", "persistentvolume", "--selector", f"of={of_class}")
        cluster.kubectl("delete", "storageclass", of_class)


@pytest.fixture
def two_directories(cluster):
    # Before the namespace, so that they outlive its pods.
    with directory() as place:
        paths = [place / "0", place / "1"]
        for path in paths:
            path.mkdir()
        with local_volumes(cluster, "tour-files", paths):
            yield paths


def test_a_stateful_set_keeps_names_order_and_files(cluster, two_directories, space):
    script = "echo $(hostname) >>/data/starts; while :; do sleep 1; done"
    started = {"exec": {"command": ["test", "-s", "/data/starts"]}, "periodSeconds": 1, "timeoutSeconds": 20,
               "failureThreshold": 60}
    main = shell("main", script, cluster.image, readinessProbe=started, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    space.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
                 "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]}},
                workload("StatefulSet", "db", pod_spec(main), serviceName="db", replicas=2,
                         volumeClaimTemplates=[claim("data", "tour-files", "Filesystem")]))

    def is_up(found):
        return found["status"].get("readyReplicas") == found["spec"]["replicas"] == found["status"]["replicas"]
    space.wait_for("statefulset", "db", is_up, "to be ready")
    first, second = (space.get("pod", name) for name in ("db-0", "db-1"))
    ready = next(one for one in first["status"]["conditions"] if one["type"] == "Ready")
    assert ready["lastTransitionTime"] <= second["metadata"]["creationTimestamp"]
    assert sorted(path.joinpath("starts").read_text() for path in two_directories) == ["db-0\n", "db-1\n"]

    space.delete("pod", "db-0")
    again = space.wait_for("pod", "db-0", lambda found: found["metadata"]["uid"] != first["metadata"]["uid"] and is_ready(found),
                           "to be back")
    assert again["spec"]["hostname"] == "db-0"
    assert space.execute("db-0", "cat", "/data/starts") == "db-0\ndb-0\n"
    assert sorted(path.joinpath("starts").read_text() for path in two_directories) == ["db-0\ndb-0\n", "db-1\n"]

    # The last one goes, its files stay.
    space.kubectl("scale", "statefulset", "db", "--replicas", "1")
    space.wait_for("statefulset", "db", is_up, "to be one")
    eventually(lambda: space.get("pod", "db-1") is None, "the second pod to end")
    assert space.get("pod", "db-0")["metadata"]["uid"] == again["metadata"]["uid"]
    assert len(space.list("persistentvolumeclaims")) == 2


@pytest.fixture
def block_device(cluster):
    with directory() as place, loop_device(place / "disk", 16 * MEBI) as device:
        with local_volumes(cluster, "tour-blocks", [device], "Block"):
            yield pathlib.Path(device)


def test_a_raw_block_volume(cluster, block_device, space):
    space.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim("disk", "tour-blocks", "Block")})
    main = shell("main", "sleep 100000", cluster.image, volumeDevices=[{"name": "disk", "devicePath": "/dev/its-disk"}])
    space.run(pod("raw", main, volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]))
    kind, size = space.execute("raw", "sh", "-c", "stat -c %F /dev/its-disk; blockdev --getsize64 /dev/its-disk").splitlines()
    assert (kind, int(size)) == ("block special file", 16 * MEBI)
    space.execute("raw", "sh", "-c", "echo written in the pod | dd of=/dev/its-disk bs=4096 seek=3 conv=fsync,sync 2>/dev/null")
    space.delete("pod", "raw")
    with open(block_device, "rb") as device:
        device.seek(3 * 4096)
        assert device.read(19) == b"written in the pod\n"


def test_a_directory_in_memory_keeps_its_limit(cluster, space):
    main = shell("main", "sleep 100000", cluster.image, volumeMounts=[{"name": "memory", "mountPath": "/memory"}])
    space.run(pod("memory", main, volumes=[{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]))
    assert space.execute("memory", "stat", "-f", "-c", "%T", "/memory").strip() == "tmpfs"
    failed = space.kubectl("exec", "memory", "--", "dd", "if=/dev/zero", "of=/memory/file", "bs=1M", "count=24", check=False)
    assert failed.returncode != 0 and "No space left on device" in failed.stderr
    assert space.execute("memory", "stat", "-c", "%s", "/memory/file") == f"{8 * MEBI}\n"
