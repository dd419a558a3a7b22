"""kill -9 of huskd: while a container writes, and at every fault point of a pod's life."""

import os
import signal
import subprocess

import grpc
import pytest

from harness.daemon import HUSKD, Container, Pod, eventually


def fault_points():
    try:
        output = subprocess.run([str(HUSKD), "--list-fault-points"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"{HUSKD} --list-fault-points: {error}") from error
    # A resize's: test_resize_faults.py.
    return [point for point in output.split() if not point.startswith("resize.")]


def assert_numbered(text):
    lines = text.splitlines()
    wrong = next((position for position, line in enumerate(lines) if line != str(position)), None)
    assert wrong is None, f"line {wrong} of {len(lines)}: {lines[max(0, wrong - 2):wrong + 3]}"


def test_a_running_pod_outlives_kill_9(huskd, image):
    """Three kills while one container writes as fast as it can and another at a walk: each line is there once."""
    pod = huskd.run_pod("writer")
    walking = pod.run("walking", image, ["/bin/sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done"])
    running = pod.run("running", image, ["/bin/sh", "-c", "seq 0 299999; sleep 100000"])
    ending = pod.run("ending", image, ["/bin/sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 42"])
    machines = huskd.vm_processes()
    for _ in range(3):
        before = len(walking.log().splitlines())
        walking.wait_for_log(f"\n{before + 10}\n")
        huskd.kill()
        assert huskd.vm_processes() == machines
        huskd.start()
        assert pod.state() == "SANDBOX_READY"
        assert walking.state() == running.state() == "CONTAINER_RUNNING"
        assert walking.execute("/bin/echo", "still here")[:2] == (0, "still here\n")
    running.wait_for_log("\n299999\n")
    assert_numbered(running.log())
    assert len(running.log().splitlines()) == 300000

    # An exit that nobody was there to see.
    ending.execute("/bin/touch", "/tmp/end")
    huskd.kill()
    huskd.start()
    status = ending.wait()
    assert (status.exit_code, status.reason) == (42, "Error")

    pod.client.StopContainer(container_id=walking.id, timeout=0)
    assert walking.state() == "CONTAINER_EXITED"
    assert_numbered(walking.log())
    pod.remove()
    assert huskd.vm_processes() == []
    assert huskd.pods() == []


def test_sigterm_leaves_pods_running(huskd, image):
    pod = huskd.run_pod("kept")
    container = pod.run("kept", image, ["/bin/sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done"])
    container.wait_for_log("\n5\n")
    machines = huskd.vm_processes()
    assert huskd.stop() == 0
    assert huskd.vm_processes() == machines
    huskd.start()
    assert container.state() == "CONTAINER_RUNNING"

    # QEMU ends while no huskd is there.
    huskd.kill()
    for machine in machines:
        os.kill(machine, signal.SIGKILL)
    eventually(lambda: not huskd.vm_processes(), "QEMU to be gone")
    huskd.start()
    assert pod.state() == "SANDBOX_NOTREADY"
    assert container.state() == "CONTAINER_EXITED"
    assert_numbered(container.log())
    pod.remove()


class Kubelet:
    """Makes one pod with one container and takes it away again, as often as it takes: it goes by what the lists say, and
    repeats a call that failed. Dies with the huskd it talks to, and then begins anew."""

    def __init__(self, huskd, image, name):
        self.huskd, self.client, self.image, self.name = huskd, huskd.client, image, name
        self.config = huskd.pod_config(name)

    def sandboxes(self):
        found = [item for item in self.huskd.pods() if item.metadata.uid == self.config.metadata.uid]
        return sorted(found, key=lambda item: item.created_at, reverse=True)

    def make_ready(self):
        """Runs pod and container if they do not run; (pod, container)."""
        for item in self.sandboxes():
            # What is not ready makes room for the next attempt.
            if item.state != 0:
                Pod(self.client, item.id, self.config).remove()
        ready = self.sandboxes()
        pod = Pod(self.client, ready[0].id, self.config) if ready else self.huskd.run_pod_with(self.config)
        config = pod.container_config("main", self.image, ["/bin/sleep", "100000"])
        path = huskd_log_path(self.config, config)
        for item in self.client.ListContainers(filter={"pod_sandbox_id": pod.id}).containers:
            container = Container(pod, item.id, item.metadata.name, path)
            if container.state() == "CONTAINER_RUNNING":
                return pod, container
            if container.state() == "CONTAINER_CREATED":
                return pod, container.start()
            self.client.RemoveContainer(container_id=item.id)
        return pod, pod.run("main", self.image, ["/bin/sleep", "100000"])

    def remove(self):
        for item in self.sandboxes():
            Pod(self.client, item.id, self.config).remove()


def huskd_log_path(pod_config, container_config):
    return os.path.join(pod_config.log_directory, container_config.log_path)


@pytest.fixture(scope="module")
def clean_host(huskd, image):
    """What is there when no pod is: taken after a first pod, which makes what is made once."""
    kubelet = Kubelet(huskd, image, "first")
    kubelet.make_ready()
    kubelet.remove()
    return huskd.snapshot()


@pytest.mark.parametrize("point", fault_points())
def test_death_at_fault_point(huskd, image, clean_host, point):
    kubelet = Kubelet(huskd, image, point.replace(".", "-").replace("_", "-"))
    huskd.restart(fault_point=point)
    with pytest.raises(grpc.RpcError):
        kubelet.make_ready()
        kubelet.remove()
    assert huskd.process.wait(60) == -signal.SIGKILL, f"huskd never came to {point}"

    huskd.start()
    if point.startswith(("run_pod.", "create_container.")):
        pod, container = kubelet.make_ready()
        assert pod.state() == "SANDBOX_READY"
        assert container.execute("/bin/echo", "alive")[:2] == (0, "alive\n")
        assert len(kubelet.sandboxes()) == 1
        assert len(huskd.containers()) == 1
    kubelet.remove()
    assert huskd.pods() == []
    assert huskd.containers() == []
    assert_same(clean_host, huskd)


def assert_same(expected, huskd):
    def difference():
        now = huskd.snapshot()
        return {kind: sorted(now[kind] ^ expected[kind]) for kind in expected if now[kind] != expected[kind]}
    # Interfaces and processes in exit take the kernel a moment.
    eventually(lambda: not difference(), lambda: f"nothing to be left over, but: {difference()}", seconds=30)
