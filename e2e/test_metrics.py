"""Events as the kubelet's evented PLEG takes them, the figures for Prometheus, and how large VMs are by all that tells of
it. Seven pods are booted."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest

from harness import cri
from harness.daemon import HUSKD, eventually
from harness.vm_size import MEBIBYTE, is_size
from test_resources import DEVOUR

METRICS_ADDRESS = "127.0.0.1:19528"
HUSKD_CONFIGURATION = {"metrics": {"address": METRICS_ADDRESS}, "vm": {"maximum_vcpus": 2}}

CREATED, STARTED, STOPPED, DELETED = "CREATED", "STARTED", "STOPPED", "DELETED"


class Listener:
    """A subscriber of its own connection. Once made, it misses nothing. What a huskd tells of the time before, in the
    first minute of its life, counts only if `before`."""

    def __init__(self, huskd, before=False):
        self._since = 0 if before else time.time_ns()
        self._client = cri.CriClient(huskd.socket)
        self.events, self.error = [], None
        self._call = self._client.GetContainerEvents(deadline=1200)
        self._call.initial_metadata()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for event in self._call:
                if event.created_at >= self._since:
                    self.events.append(event)
        except grpc.RpcError as error:
            self.error = error

    def told(self, since=0):
        """[("STARTED", id)...]"""
        return [(re.sub("CONTAINER_(.*)_EVENT", r"\1", cri.api.ContainerEventType.Name(event.container_event_type)),
                 event.container_id) for event in self.events[since:]]

    def wait_for(self, event):
        eventually(lambda: event in self.told(), lambda: f"{event} among {self.told()}")

    def wait_for_end(self):
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream did not end"
        return self.error

    def close(self):
        self._call.cancel()
        self._thread.join(60)
        self._client.close()


def check_snapshots(events, pod):
    last = 0
    for event in events:
        assert event.created_at > last
        last = event.created_at
        assert event.pod_sandbox_status.id == pod.id
        assert event.pod_sandbox_status.metadata == pod.config.metadata


def state_in(event, container_id):
    return {status.id: cri.api.ContainerState.Name(status.state) for status in event.containers_statuses}[container_id]


def test_events_of_a_pods_life(huskd, image):
    one, two = Listener(huskd), Listener(huskd)
    ctl = subprocess.Popen([cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{huskd.socket}", "events"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        eventually(lambda: huskd.log_tail(2000).count("a subscriber came") == 3, "huskctl to listen")
        pod = huskd.run_pod("told")
        failing = pod.run("failing", image, ["/bin/sh", "-c", "exit 3"])
        assert failing.wait().exit_code == 3
        sleeper = pod.run("sleeper", image, ["/bin/sleep", "100000"])
        huskd.client.RemoveContainer(container_id=failing.id)
        huskd.client.StopContainer(container_id=sleeper.id, timeout=0)
        pod.remove()
        one.wait_for((DELETED, pod.id))
        two.wait_for((DELETED, pod.id))
        assert one.told() == [
            (CREATED, pod.id), (STARTED, pod.id),
            (CREATED, failing.id), (STARTED, failing.id), (STOPPED, failing.id),
            (CREATED, sleeper.id), (STARTED, sleeper.id), (DELETED, failing.id), (STOPPED, sleeper.id),
            (STOPPED, pod.id), (DELETED, sleeper.id), (DELETED, pod.id)]
        assert list(one.events) == list(two.events)
        check_snapshots(one.events, pod)
        exited = next(status for status in one.events[4].containers_statuses if status.id == failing.id)
        assert (exited.exit_code, exited.reason) == (3, "Error")
        assert exited.finished_at > 0
        assert state_in(one.events[2], failing.id) == "CONTAINER_CREATED"
        assert state_in(one.events[6], sleeper.id) == "CONTAINER_RUNNING"
        assert [status.id for status in one.events[7].containers_statuses] == [sleeper.id]
        assert one.events[1].pod_sandbox_status.state == cri.api.SANDBOX_READY
        assert one.events[1].pod_sandbox_status.network.ip
        assert one.events[9].pod_sandbox_status.state == cri.api.SANDBOX_NOTREADY
    finally:
        one.close()
        two.close()
        ctl.terminate()
        lines = ctl.communicate(timeout=60)[0].splitlines()
    assert [line.split()[-1] for line in lines if " deleted pod " in line] == [pod.id]
    assert any(line.endswith(f" stopped container e2e/told/failing {failing.id} 3 Error") for line in lines), lines


def test_events_of_a_killed_vm_and_of_a_restart(huskd, image, tmp_path):
    listener = Listener(huskd)
    victim, survivor = huskd.run_pod("victim"), huskd.run_pod("survivor")
    running = victim.run("running", image, ["/bin/sleep", "100000"])
    created = victim.create("created", image, ["/bin/sleep", "100000"])
    ends = survivor.run("ends", image, ["/bin/sh", "-c", "while ! test -e /host/end; do sleep 0.1; done; exit 7"],
                        mounts=[{"container_path": "/host", "host_path": str(tmp_path)}])
    listener.wait_for((STARTED, ends.id))
    before = len(listener.events)
    os.kill(huskd.vm_process_of(victim), signal.SIGKILL)
    listener.wait_for((STOPPED, victim.id))
    assert sorted(listener.told(before)) == sorted([(STOPPED, running.id), (STOPPED, created.id), (STOPPED, victim.id)])
    assert listener.told()[-1] == (STOPPED, victim.id)
    assert state_in(listener.events[-1], running.id) == "CONTAINER_EXITED"
    # Whoever was told sees it.
    assert running.state() == "CONTAINER_EXITED"
    victim.remove()
    listener.wait_for((DELETED, victim.id))

    # The end of a huskd is said, and what ended while none was there is told by the next one.
    assert huskd.stop() == 0
    error = listener.wait_for_end()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    listener.close()
    (tmp_path / "end").touch()
    huskd.start()
    again = Listener(huskd, before=True)
    again.wait_for((STOPPED, ends.id))
    assert again.told() == [(STOPPED, ends.id)]
    assert ends.status().exit_code == 7
    survivor.remove()
    again.wait_for((DELETED, survivor.id))
    assert again.told() == [(STOPPED, ends.id), (STOPPED, survivor.id), (DELETED, ends.id), (DELETED, survivor.id)]
    again.close()


def ask(request, patience=60):
    """A request's bytes; the answer's."""
    host, port = METRICS_ADDRESS.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        connection.sendall(request)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer.decode()


_SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*"(?:,(?=[a-z])|(?=\})))*)\})? (-?[0-9.]+(?:[eE][-+]?[0-9]+)?|\+Inf)$')


class Figures:
    """A scrape, checked as promtool does it: HELP and TYPE before the samples of a family, families in one piece, no
    sample twice, histograms whole."""

    def __init__(self):
        head, _, body = ask(b"GET /metrics HTTP/1.1\r\nHost: husk\r\n\r\n").partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK"), head
        assert "text/plain; version=0.0.4" in head
        assert body.endswith("\n")
        self.types, self.samples, helped, family = {}, {}, set(), None
        for line in body.splitlines():
            if line.startswith("# HELP "):
                name, text = line.split(" ", 3)[2:]
                assert name not in helped and text, line
                helped.add(name)
            elif line.startswith("# TYPE "):
                family, kind = line.split(" ")[2:]
                assert family in helped and family not in self.types, line
                self.types[family] = kind
            else:
                self._add(line, family)
        for name in self.types:
            if self.types[name] == "histogram":
                self._check_histogram(name)

    def _add(self, line, family):
        match = _SAMPLE.match(line)
        assert match, f"no sample: {line!r}"
        name, labels, value = match.groups()
        base = re.sub("_(bucket|sum|count)$", "", name) if self.types[family] == "histogram" else name
        assert base == family, f"{line} stands among {family}"
        key = (name, frozenset(re.findall('([a-z]+)="([^"]*)"', labels or "")))
        assert key not in self.samples, f"{line} is there twice"
        self.samples[key] = float(value)

    def _check_histogram(self, name):
        for (sample, labels), count in self.samples.items():
            if sample != f"{name}_count":
                continue
            assert (f"{name}_sum", labels) in self.samples
            buckets = sorted((float(dict(key)["le"]), value) for (bucket, key), value in self.samples.items()
                             if bucket == f"{name}_bucket" and key - {("le", dict(key)["le"])} == labels)
            counts = [value for _, value in buckets]
            assert counts == sorted(counts) and buckets[-1] == (float("inf"), count), (name, buckets, count)

    def __call__(self, name, **labels):
        """0 for what has not happened."""
        return self.samples.get((name, frozenset(labels.items())), 0)


def test_figures_move_with_what_happens(huskd, image, registry):
    before = Figures()
    assert before("husk_pods", state="ready") == 0
    listener = Listener(huskd)
    pod = huskd.run_pod("counted")
    writer = pod.run("writer", image, ["/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do echo 123456789; i=$((i+1)); done"])
    assert writer.wait().exit_code == 0
    sleeper = pod.run("sleeper", image, ["/bin/sleep", "100000"])
    pod.create("created", image, ["/bin/true"])
    hungry = pod.run("hungry", image, ["/bin/sh", "-c", f"exec {DEVOUR}"],
                     linux={"resources": {"memory_limit_in_bytes": 24 << 20}})
    assert hungry.wait().reason == "OOMKilled"
    with pytest.raises(grpc.RpcError):
        huskd.client.ContainerStatus(container_id="nobody")
    huskd.client.PullImage(image={"image": registry.push("husk/counted")})
    with pytest.raises(grpc.RpcError):
        huskd.pull(image.rsplit("/", 1)[0] + "/never-was:1")
    after = Figures()

    def moved(name, **labels):
        return after(name, **labels) - before(name, **labels)

    assert moved("husk_calls_total", method="RunPodSandbox", code="OK") == 1
    assert moved("husk_calls_total", method="StartContainer", code="OK") == 3
    assert moved("husk_calls_total", method="ContainerStatus", code="NOT_FOUND") == 1
    assert moved("husk_call_seconds_count", method="RunPodSandbox") == 1
    assert moved("husk_call_seconds_sum", method="RunPodSandbox") > 0
    for step in ("network", "cgroup", "disk", "turn", "vm", "agent", "configure"):
        assert moved("husk_boot_step_seconds_count", step=step) == 1
        assert moved("husk_boot_step_failures_total", step=step) == 0
    assert moved("husk_boot_step_seconds_sum", step="agent") > 0
    assert moved("husk_pod_start_seconds_count") == 1
    assert moved("husk_agent_calls_total", method="StartContainer", code="OK") == 3
    assert moved("husk_agent_call_seconds_count", method="StartContainer") == 3
    assert moved("husk_agent_calls_total", method="Poll", code="OK") > 0
    assert moved("husk_pulls_total", result="ok") == 1
    assert moved("husk_pulls_total", result="failed") == 1
    assert moved("husk_pull_seconds_count") == 2
    assert moved("husk_container_log_bytes_total") == 1000
    assert moved("husk_container_exits_total", reason="Completed") == 1
    assert moved("husk_container_exits_total", reason="OOMKilled") == 1
    assert moved("husk_oom_kills_total") == 1
    assert moved("husk_pods", state="ready") == 1
    assert moved("husk_containers", state="created") == 1
    assert moved("husk_containers", state="running") == 1
    assert moved("husk_containers", state="exited") == 2
    assert moved("husk_lane_finished_total", lane="vm") >= 8
    assert after("husk_lane_refused_total", lane="vm") == 0
    assert moved("husk_lane_run_seconds_total", lane="vm") > 0
    eventually(lambda: len(listener.events) == moved("husk_events_total"), "the listener to have heard all")
    assert after("husk_event_subscribers") == 1
    assert after("process_resident_memory_bytes") > 1 << 20
    assert after("process_cpu_seconds_total") > 0
    assert abs(after("process_start_time_seconds") - time.time()) < 24 * 3600
    [build] = [dict(labels) for (name, labels) in after.samples if name == "husk_build_info"]
    assert build["version"] == huskd.client.Version().runtime_version and build["accelerator"] in ("kvm", "tcg")
    assert pod.id not in str(after.samples) and "counted" not in str(after.samples), "labels name no pod"

    listener.close()
    sleeper.execute("/bin/true")
    pod.remove()
    last = Figures()
    assert last("husk_pods", state="ready") == before("husk_pods", state="ready")
    assert last("husk_containers", state="running") == 0
    assert last("husk_calls_total", method="ExecSync", code="OK") == after("husk_calls_total", method="ExecSync", code="OK") + 1


def limits(memory, cpu):
    """MiB, thousandths of a CPU."""
    return {"memory_limit_in_bytes": memory * MEBIBYTE, "cpu_quota": cpu * 100, "cpu_period": 100000}


def sizes(huskd, pod):
    """How large the pod's VM is, by each that tells: [(memory wanted, requested, actual; vCPUs wanted, plugged, online;
    resizing)...]"""
    [top] = [each["pod"] for each in json.loads(subprocess.run(
        [cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{huskd.socket}", "top", pod.id, "-o", "json"],
        check=True, capture_output=True, text=True).stdout)]
    verbose = json.loads(pod.client.PodSandboxStatus(pod_sandbox_id=pod.id, verbose=True).info["vm"])
    keys = ("wantedMemoryBytes", "requestedMemoryBytes", "memoryBytes", "wantedVcpus", "vcpus", "onlineVcpus", "resizing")
    [by_pod] = [each.metrics for each in pod.client.ListPodSandboxMetrics().pod_metrics if each.pod_sandbox_id == pod.id]
    told = {metric.name: metric.value.value for metric in by_pod}
    names = ("memory_wanted_bytes", "memory_requested_bytes", "memory_actual_bytes", "vcpus_wanted", "vcpus_plugged",
             "vcpus_online", "resizing")
    # It is the only pod.
    node = Figures()
    return [tuple(top[key] for key in keys), tuple(verbose[key] for key in keys),
            tuple(told[f"husk_pod_vm_{name}"] for name in names),
            (*(node("husk_vm_memory_bytes", kind=kind) for kind in ("wanted", "requested", "actual")),
             *(node("husk_vm_vcpus", kind=kind) for kind in ("wanted", "plugged", "online")), node("husk_vms_resizing"))]


def test_sizes_of_vms_are_the_same_everywhere(huskd, image):
    before = Figures()
    assert before("husk_vm_memory_bytes", kind="actual") == 0
    pod = huskd.run_pod("sized")
    container = pod.run("main", image, ["/bin/sleep", "100000"], linux={"resources": limits(64, 500)})

    def resize(memory, cpu):
        pod.client.UpdateContainerResources(container_id=container.id, linux=limits(memory, cpu))

    def agree(memory, vcpus):
        def as_told():
            told = sizes(huskd, pod)
            wanted, requested, actual, wanted_vcpus, _, online, resizing = told[0]
            return (len(set(told)) == 1 and wanted == requested == memory * MEBIBYTE and is_size(actual, requested) and
                    wanted_vcpus == online == vcpus and not resizing)
        eventually(as_told, lambda: f"all to tell of {memory} MiB and {vcpus} vCPUs: {sizes(huskd, pod)}")
    agree(256, 1)
    resize(512, 1500)
    # 112 MiB and a 64th are the guest's own.
    agree(632, 2)
    resize(64, 500)
    agree(256, 1)
    after = Figures()
    moved = {(direction, result): after("husk_resizes_total", direction=direction, result=result) -
             before("husk_resizes_total", direction=direction, result=result)
             for direction in ("grow", "shrink") for result in ("ok", "failed", "owed")}
    assert moved["grow", "ok"] == 1 and moved["grow", "failed"] == 0
    # A guest that takes long is waited for after the call.
    assert moved["shrink", "ok"] + moved["shrink", "owed"] >= 1
    used = after("husk_vm_memory_bytes", kind="used")
    free = container.execute("/bin/grep", "MemAvailable", "/proc/meminfo")[1]
    total = container.execute("/bin/grep", "MemTotal", "/proc/meminfo")[1]
    assert abs(used - (int(total.split()[1]) - int(free.split()[1])) * 1024) < 16 * MEBIBYTE
    pod.remove()
    assert Figures()("husk_vm_memory_bytes", kind="actual") == 0


def test_memory_that_a_guest_keeps_is_owed(huskd, image):
    """It is in use: the VM keeps it, all tell so, and it goes back when it is free."""
    before = Figures()
    pod = huskd.run_pod("keeps")

    def announce(memory):
        pod.client.UpdatePodSandboxResources(pod_sandbox_id=pod.id, resources=limits(memory, 500))
    announce(640)
    # Anonymous memory, which nothing can push out of a guest without swap.
    holder = pod.run("holder", image, ["/bin/sh", "-c", "dd if=/dev/zero bs=420M count=1 2>/dev/null | sleep 100000"])
    eventually(lambda: container_memory(holder) > 400 * MEBIBYTE, "the memory to be in use")
    large = sizes(huskd, pod)[0][2]
    announce(64)

    def owed():
        told = sizes(huskd, pod)
        wanted, requested, actual, *_, resizing = told[0]
        return len(set(told)) == 1 and wanted < actual <= large and resizing
    eventually(owed, lambda: f"all to tell of what is owed: {sizes(huskd, pod)}")
    assert Figures()("husk_resizes_total", direction="shrink", result="owed") > \
        before("husk_resizes_total", direction="shrink", result="owed")
    table = subprocess.run([cri.BUILD / "bin" / "huskctl", "--endpoint", f"unix://{huskd.socket}", "top"], check=True,
                           capture_output=True, text=True).stdout
    assert re.search(r"^keeps .* owed\s*$", table, re.MULTILINE), table
    pod.client.StopContainer(container_id=holder.id, timeout=0)
    pod.client.RemoveContainer(container_id=holder.id)

    def settled():
        told = sizes(huskd, pod)
        return len(set(told)) == 1 and not told[0][-1]
    eventually(settled, lambda: f"it to be given back: {sizes(huskd, pod)}")
    assert Figures()("husk_vms_resizing") == 0
    pod.remove()


def container_memory(container):
    return container.pod.client.ContainerStats(container_id=container.id).stats.memory.usage_bytes.value


def test_a_scrape_waits_for_no_pod_and_no_stranger(huskd, image):
    """A guest that stands still, a hundred connections that say nothing, and garbage."""
    pod = huskd.run_pod("still")
    machine = huskd.vm_process_of(pod)
    os.kill(machine, signal.SIGSTOP)
    try:
        host, port = METRICS_ADDRESS.rsplit(":", 1)
        idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(100)]
        for number, connection in enumerate(idle):
            with contextlib.suppress(OSError):  # the oldest are closed already
                connection.sendall(b"GET /metrics HTTP/1.1\r\n" if number % 2 else os.urandom(2000))
        waiting = huskd.client.future("CreateContainer", pod_sandbox_id=pod.id, sandbox_config=pod.config,
                                      config=pod.container_config("waits", image, ["/bin/true"]))
        eventually(lambda: Figures()("husk_lane_running", lane="vm") == 1, "the call that waits for the guest to show")
        assert Figures()("husk_pods", state="ready") == 1
        for connection in idle:
            connection.close()
    finally:
        os.kill(machine, signal.SIGCONT)
    waiting.result()
    pod.remove()
    assert ask(b"GET / HTTP/1.1\r\nHost: husk\r\n\r\n").startswith("HTTP/1.1 404")


def test_a_wrong_address_is_named_and_none_is_none(tmp_path):
    def check(address):
        config = tmp_path / "config.yaml"
        config.write_text(f"version: 1\nmetrics:\n  address: {address}\n")
        return subprocess.run([HUSKD, "--config", config, "--check-config"], capture_output=True, text=True)
    wrong = check("localhost:9477")
    assert wrong.returncode == 2
    assert "config.yaml:3:12: metrics.address: expected an address and a port" in wrong.stderr
    assert check('""').returncode == 0
