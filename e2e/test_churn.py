"""Churn on a whole cluster: Deployments grow and shrink, pods are deleted, VMs and huskd are killed. Then nothing is stuck,
nothing is left, and huskd has not grown. Run by hand: HUSK_CHURN_SECONDS says how long,
HUSK_CHURN_REPORT names a file for its figures."""

import json
import os
import pathlib
import random
import signal
import time

import pytest

from harness import host
from harness.cluster import running
from harness.daemon import eventually
from harness.kubelet import container_status
from harness.manifests import pod, pod_spec, shell, workload

NUMBER = 44
SECONDS = float(os.environ.get("HUSK_CHURN_SECONDS", "3600"))
REPORT = os.environ.get("HUSK_CHURN_REPORT")
KILL_HUSKD_EVERY = min(180.0, SECONDS / 3)
CHECK_EVERY = min(300.0, SECONDS / 2)
MOST_REPLICAS = {"alpha": 4, "beta": 3, "gamma": 3}
# A node that emulates its VMs has to boot them one after another.
SETTLING = 900
# What a daemon may keep of what it has seen: allocator, caches of the store, a thread that has not ended yet.
MEMORY_SLACK, FILES_SLACK = 24 << 20, 8


@pytest.fixture(scope="module")
def cluster():
    with running(NUMBER) as instance:
        yield instance


class Churn:
    def __init__(self, cluster):
        self.cluster = cluster
        self.random = random.Random(6)
        self.started = time.monotonic()
        self.counts = {"scaled": 0, "pods deleted": 0, "VMs killed": 0, "huskd killed": 0, "commands run": 0,
                       "commands failed": 0}
        self.samples = []

    def deploy(self):
        for name, most in MOST_REPLICAS.items():
            script = "trap 'exit 0' TERM; echo up; while :; do date >/tmp/now; sleep 1 & wait $!; done"
            probe = {"exec": {"command": ["test", "-s", "/tmp/now"]}, "periodSeconds": 5, "timeoutSeconds": 60}
            template = pod_spec(shell("main", script, self.cluster.image, readinessProbe=probe),
                                shell("side", script, self.cluster.image))
            self.cluster.apply(workload("Deployment", name, template, replicas=most - 1))

    def pods(self):
        return self.cluster.list("pods")

    # ---- disturbances

    def scale(self):
        name = self.random.choice(list(MOST_REPLICAS))
        self.cluster.kubectl("scale", "deployment", name, f"--replicas={self.random.randint(0, MOST_REPLICAS[name])}")
        self.counts["scaled"] += 1

    def delete_pod(self):
        pods = self.pods()
        if pods:
            force = ["--force", "--grace-period=0"] if self.random.random() < 0.3 else []
            name = self.random.choice(pods)["metadata"]["name"]
            self.cluster.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found", *force)
            self.counts["pods deleted"] += 1

    def kill_vm(self):
        # A pod's QEMU runs as a user of its own, its file servers and launcher have other names.
        machines = [pid for pid in self.cluster.huskd.vm_processes() if "qemu-system" in host.command_line(pid)]
        if machines:
            os.kill(self.random.choice(machines), signal.SIGKILL)
            self.counts["VMs killed"] += 1

    def kill_huskd(self):
        self.cluster.huskd.kill()
        time.sleep(self.random.uniform(0, 10))
        self.cluster.huskd.start()
        self.counts["huskd killed"] += 1

    def run_command(self):
        running = [pod for pod in self.pods() if pod["status"]["phase"] == "Running" and
                   "deletionTimestamp" not in pod["metadata"]]
        if running:
            name = self.random.choice(running)["metadata"]["name"]
            # It may be on its way out, or its VM have just been killed: the answer is not the point, that there is one is.
            ended = self.cluster.kubectl("exec", name, "--container", "main", "--", "cat", "/tmp/now", check=False)
            self.counts["commands run"] += 1
            self.counts["commands failed"] += ended.returncode != 0

    # ---- what must hold

    def settle(self):
        """All replicas wanted are there and ready, and no pod more."""
        for name, most in MOST_REPLICAS.items():
            self.cluster.kubectl("scale", "deployment", name, f"--replicas={most - 1}")
        wanted = sum(MOST_REPLICAS.values()) - len(MOST_REPLICAS)

        def settled():
            pods = self.pods()
            return len(pods) == wanted and all(
                (container_status(pod, name) or {}).get("ready") for pod in pods for name in ("main", "side"))
        eventually(settled, lambda: "the Deployments to settle\n" + self.cluster.kubectl("get", "pods", "-o", "wide").stdout +
                   self.cluster.kubectl("get", "events", "--sort-by", ".lastTimestamp").stdout[-4000:], SETTLING, interval=2)
        # The kubelet ends what it has no use for in its own time.
        eventually(lambda: len(self.cluster.huskd.vm_processes()) == wanted and
                   len([pod for pod in self.cluster.huskd.pods() if pod.state == 0]) == wanted,
                   lambda: f"one VM for each pod: {self.cluster.huskd.pods()}", SETTLING, interval=2)

    def sample(self):
        pid = self.cluster.huskd.pid
        self.samples.append({
            "seconds": round(time.monotonic() - self.started), "pid": pid, "resident": host.resident_bytes(pid),
            "files": len(host.open_files(pid)), "threads": len(os.listdir(f"/proc/{pid}/task")),
            "sandboxes": len(self.cluster.huskd.pods()), **self.counts})
        print(json.dumps(self.samples[-1]), flush=True)

    def run(self, seconds, with_kills):
        """Disturbs for so long, and looks every few minutes."""
        end = time.monotonic() + seconds
        next_kill = time.monotonic() + KILL_HUSKD_EVERY
        next_check = time.monotonic() + CHECK_EVERY
        steps = [self.scale, self.scale, self.delete_pod, self.kill_vm, self.run_command, self.run_command]
        while time.monotonic() < end:
            self.random.choice(steps)()
            if with_kills and time.monotonic() > next_kill:
                self.kill_huskd()
                next_kill = time.monotonic() + KILL_HUSKD_EVERY
            if time.monotonic() > next_check:
                self.settle()
                self.sample()
                next_check = time.monotonic() + CHECK_EVERY
            time.sleep(self.random.uniform(0, 3))
        self.settle()
        self.sample()


def test_churn(cluster):
    """Two thirds with a huskd that is killed, then one that lives, so that growth can be seen."""
    # What the first pod of all brings to stay: the bridge, its addresses' files, the kubelet's own cgroups.
    cluster.apply(pod("first", shell("main", "sleep 100000", cluster.image)))
    cluster.kubectl("wait", "pod", "first", "--for=condition=Ready", "--timeout=100s")
    cluster.kubectl("delete", "pod", "first", "--wait=true")
    eventually(lambda: not cluster.huskd.pods(), lambda: f"the first pod's end: {cluster.huskd.pods()}", SETTLING, interval=2)
    before = cluster.huskd.snapshot()
    idle_files = len(host.open_files(cluster.huskd.pid))
    churn = Churn(cluster)
    churn.deploy()
    churn.settle()
    churn.sample()
    churn.run(SECONDS * 2 / 3, with_kills=True)
    first = churn.samples[-1]
    churn.run(SECONDS / 3, with_kills=False)
    last = churn.samples[-1]
    if REPORT:
        pathlib.Path(REPORT).write_text("".join(json.dumps(sample) + "\n" for sample in churn.samples))
    assert first["pid"] == last["pid"], "huskd ended on its own"
    assert last["resident"] - first["resident"] < MEMORY_SLACK, churn.samples
    assert min(churn.counts[kind] for kind in ("scaled", "pods deleted", "VMs killed", "huskd killed", "commands run")) > 0

    cluster.kubectl("delete", "deployment", *MOST_REPLICAS)
    eventually(lambda: not churn.pods(), "the pods' end", SETTLING)
    eventually(lambda: not cluster.huskd.pods(), lambda: f"the sandboxes' end: {cluster.huskd.pods()}", SETTLING, interval=2)
    # A pod that runs has a dozen of them, so they are counted when none does.
    eventually(lambda: len(host.open_files(cluster.huskd.pid)) <= idle_files + FILES_SLACK,
               lambda: f"huskd to let its files go, of which it had {idle_files}: {host.open_files(cluster.huskd.pid)}")
    after = cluster.huskd.snapshot()
    # The image is there to stay.
    images = {path for path in after["files"] - before["files"] if "/images" in path}
    after["files"] -= images
    left = {kind: sorted(after[kind] - before[kind]) for kind in after if after[kind] - before[kind]}
    assert not left, left
