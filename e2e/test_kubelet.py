"""A real kubelet with static pods on a real huskd. Seven pods are booted."""

import json
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import pytest

from harness import forward, judge
from harness.daemon import PATIENCE, eventually
from harness.kubelet import NODE, Kubelet, conditions, container_status, is_ready

# Beside two booting VMs, a probe of a quarter of a second is still answered in seconds.
PROBE = {"periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 60}
SERVER = "mkdir -p /www && echo hello >/www/index.html && exec httpd -f -p 8080 -h /www"


@pytest.fixture(scope="module")
def kubelet(huskd):
    instance = Kubelet(huskd)
    try:
        instance.start()
        yield instance
    finally:
        left = instance.remove_everything(huskd)
    assert not left, "\n".join(left)


def shell(name, script, image, **fields):
    # Without a request a VM has the least share of the host's CPUs there is, and boots when all else has had its turn.
    fields.setdefault("resources", {"requests": {"cpu": "250m"}})
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script], **fields}


def spec(*containers, **fields):
    return {"containers": list(containers), "terminationGracePeriodSeconds": 1, "enableServiceLinks": False, **fields}


@pytest.fixture(scope="module")
def probed(kubelet, image):
    """A pod that all read-only tests share."""
    kubelet.add("probed", spec(
        shell("http", SERVER, image, readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, **PROBE},
              resources={"limits": {"memory": "128Mi", "cpu": "1"}, "requests": {"memory": "64Mi", "cpu": "100m"}}),
        shell("tcp", "exec httpd -f -p 9090 -h /", image, readinessProbe={"tcpSocket": {"port": 9090}, **PROBE}),
        shell("exec", "echo started; sleep 2; touch /tmp/ready; while :; do sleep 1; done", image,
              readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, **PROBE},
              livenessProbe={"exec": {"command": ["/bin/true"]}, **PROBE}),
        shell("cat", "cat", image, stdin=True)))
    return kubelet.wait_until_ready("probed")


def restarts(pod):
    return {status["name"]: status["restartCount"] for status in pod["status"]["containerStatuses"]}


def ids(pod):
    return {status["name"]: status["containerID"] for status in pod["status"]["containerStatuses"]}


def stream_url(kubelet, verb, pod, name, command=(), **options):
    query = [*options.items(), *(("command", word) for word in command)]
    return f"{kubelet.url}/{verb}/default/{pod}-{NODE}/{name}?{urllib.parse.urlencode(query)}"


def execute(kubelet, pod, name, *command, stdin=None):
    options = {"output": 1, "error": 1}
    if stdin is not None:
        options["input"] = 1
    url = stream_url(kubelet, "exec", pod, name, command, **options)
    return judge.run(url, "-ca", str(kubelet.authority), *(["-stdin"] if stdin is not None else []), stdin=stdin or b"")


def test_probes_by_exec_http_and_tcp(probed):
    assert all(status["ready"] and status["started"] for status in probed["status"]["containerStatuses"])
    assert restarts(probed) == {"http": 0, "tcp": 0, "exec": 0, "cat": 0}
    assert probed["status"]["podIP"].startswith("10.214.")
    assert conditions(probed)["PodReadyToStartContainers"] == "True"


def test_a_failing_liveness_probe_restarts_the_container_alone(kubelet, image):
    kubelet.add("liveness", spec(
        shell("dies", "touch /tmp/alive; sleep 3; rm /tmp/alive; sleep 100000", image,
              livenessProbe={"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "timeoutSeconds": 20,
                             "failureThreshold": 2, "initialDelaySeconds": 1}),
        shell("lives", "sleep 100000", image)))
    pod = kubelet.wait_for("liveness", lambda pod: (container_status(pod, "dies") or {}).get("restartCount", 0) >= 1, "to restart")
    last = container_status(pod, "dies")["lastState"]["terminated"]
    assert last["exitCode"] == 137
    assert container_status(pod, "lives")["restartCount"] == 0
    kubelet.delete("liveness")


def test_restarts_follow_the_policy(kubelet, image):
    kubelet.add("always", spec(shell("fails", "echo round; exit 3", image)))
    kubelet.add("onfailure", spec(shell("ends", "exit 0", image), shell("again", "exit 4", image), restartPolicy="OnFailure"))
    kubelet.add("never", spec(shell("fails", "echo why >/dev/termination-log; exit 5", image), restartPolicy="Never"))
    pod = kubelet.wait_for("always", lambda pod: (container_status(pod, "fails") or {}).get("restartCount", 0) >= 2, "to restart twice")
    assert container_status(pod, "fails")["lastState"]["terminated"]["exitCode"] == 3
    pod = kubelet.wait_for("onfailure", lambda pod: (container_status(pod, "again") or {}).get("restartCount", 0) >= 1, "to restart")
    assert container_status(pod, "ends")["restartCount"] == 0
    assert container_status(pod, "ends")["state"]["terminated"]["exitCode"] == 0
    pod = kubelet.wait_for("never", lambda pod: pod["status"]["phase"] == "Failed", "to fail")
    ended = container_status(pod, "fails")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (5, "Error", "why\n")
    for name in ("always", "onfailure", "never"):
        kubelet.delete(name)


def test_init_containers_and_a_sidecar_in_their_order(kubelet, image):
    note = "echo $ME >>/shared/order"
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    kubelet.add("inits", spec(
        shell("main", f"{note}; sleep 100000", image, env=[{"name": "ME", "value": "main"}], **mount),
        initContainers=[
            shell("first", note, image, env=[{"name": "ME", "value": "first"}], **mount),
            shell("sidecar", f"{note}; sleep 100000", image, env=[{"name": "ME", "value": "sidecar"}], restartPolicy="Always",
                  startupProbe={"exec": {"command": ["test", "-s", "/shared/order"]}, **PROBE}, **mount),
            shell("second", note, image, env=[{"name": "ME", "value": "second"}], **mount)],
        volumes=[{"name": "shared", "emptyDir": {}}]))
    pod = kubelet.wait_until_ready("inits")
    assert "running" in container_status(pod, "sidecar")["state"]
    assert container_status(pod, "first")["state"]["terminated"]["exitCode"] == 0
    code, output, _ = execute(kubelet, "inits", "main", "cat", "/shared/order")
    assert (code, output.split()) == (0, [b"first", b"sidecar", b"second", b"main"])
    kubelet.delete("inits")


def test_logs_through_the_kubelets_port(kubelet, image):
    kubelet.add("logs", spec(shell("counts", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done", image)))
    kubelet.wait_until_ready("logs")
    path = f"/containerLogs/default/logs-{NODE}/counts"
    eventually(lambda: b"line 20\n" in kubelet.get(path), "twenty lines")
    assert kubelet.get(f"{path}?limitBytes=14") == b"line 1\nline 2\n"
    tail = kubelet.get(f"{path}?tailLines=3").decode().split("\n")
    numbers = [int(line.split()[1]) for line in tail if line]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert re.match(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z? ?\S* ?line 1\n", kubelet.get(f"{path}?timestamps=true&limitBytes=60") + b"\n")
    followed = subprocess.Popen(["curl", "--silent", "--cacert", str(kubelet.authority), "--no-buffer", "--max-time", "120",
                                 f"{kubelet.url}{path}?follow=true&tailLines=1"], stdout=subprocess.PIPE)
    try:
        lines = [followed.stdout.readline() for _ in range(10)]
    finally:
        followed.kill()
        followed.communicate()
    first = int(lines[0].split()[1])
    assert lines == [b"line %d\n" % (first + index) for index in range(10)]
    kubelet.delete("logs")


def test_exec_through_the_kubelet(kubelet, probed):
    assert execute(kubelet, "probed", "exec", "/bin/sh", "-c", "echo out; echo err >&2; exit 42") == (
        42, b"out\n", b"err\n")
    blob = bytes(range(256)) * 4096
    assert execute(kubelet, "probed", "exec", "cat", stdin=blob) == (0, blob, b"")


def test_attach_through_the_kubelet(kubelet, probed):
    url = stream_url(kubelet, "attach", "probed", "cat", output=1, error=1, input=1)
    attached = subprocess.Popen(judge.command(url, "-ca", str(kubelet.authority), "-stdin"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
    guard = threading.Timer(PATIENCE, attached.kill)
    guard.start()
    try:
        attached.stdin.write(b"through the kubelet\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == b"through the kubelet\n"
    finally:
        guard.cancel()
        attached.kill()
        attached.communicate()
    assert restarts(kubelet.pod("probed"))["cat"] == 0


def test_a_port_is_forwarded_through_the_kubelet(kubelet, probed):
    with forward.Judge(f"{kubelet.url}/portForward/default/probed-{NODE}", 8080,
                       options=["-ca", str(kubelet.authority)]) as client:
        address = f"http://127.0.0.1:{client.local[8080]}/index.html"
        for _ in range(3):
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                assert answer.read() == b"hello\n"
        assert client.stop() == ""


def test_stats_are_those_of_the_guest(kubelet, probed):
    """The guest's own figures are the judge."""
    def summary():
        pods = kubelet.json("/stats/summary")["pods"] or []
        pod = next((pod for pod in pods if pod["podRef"]["name"] == f"probed-{NODE}"), None)
        containers = {one["name"]: one for one in (pod or {}).get("containers", [])}
        complete = len(containers) == 4 and all(
            "usageCoreNanoSeconds" in one.get("cpu", {}) and "workingSetBytes" in one.get("memory", {})
            for one in containers.values())
        return (pod, containers) if complete else None
    pod, containers = eventually(summary, "figures of all four containers")
    assert pod["network"]["rxBytes"] > 0 and pod["network"]["txBytes"] > 0

    def in_guest(name, file):
        code, output, error = execute(kubelet, "probed", name, "cat", f"/sys/fs/cgroup/{file}")
        assert code == 0, error
        return output.decode()
    usage = int(re.search(r"usage_usec (\d+)", in_guest("exec", "cpu.stat"))[1]) * 1000
    assert 0 < containers["exec"]["cpu"]["usageCoreNanoSeconds"] <= usage

    def caught_up():
        now = summary()
        return now and now[1]["exec"]["cpu"]["usageCoreNanoSeconds"] >= usage
    eventually(caught_up, "the figure to reach what the guest said")
    inactive = int(re.search(r"^inactive_file (\d+)$", in_guest("cat", "memory.stat"), re.MULTILINE)[1])
    working_set = int(in_guest("cat", "memory.current")) - inactive
    # The reader is in the container too. A VM's memory would be far off.
    assert abs(containers["cat"]["memory"]["workingSetBytes"] - working_set) < 4 << 20
    metrics = kubelet.get("/metrics/resource").decode()
    assert re.search(rf'container_memory_working_set_bytes{{container="http",namespace="default",pod="probed-{NODE}"}} \S+', metrics)


def test_a_kubelet_and_a_huskd_that_restart_leave_containers_alone(kubelet, huskd, probed):
    before = ids(kubelet.pod("probed"))
    assert kubelet.stop() == 0
    kubelet.start()
    pod = kubelet.wait_until_ready("probed")
    assert (ids(pod), set(restarts(pod).values())) == (before, {0})
    huskd.kill()
    huskd.start()
    # Its probes go on, and it is told of as before.
    pod = kubelet.wait_until_ready("probed")
    # The kubelet's gRPC asks anew after a pause of its own.
    eventually(lambda: execute(kubelet, "probed", "exec", "echo", "again") == (0, b"again\n", b""), "exec to work again")
    since = time.monotonic()
    eventually(lambda: time.monotonic() > since + 5 and is_ready(kubelet.pod("probed")), "a steady pod")
    pod = kubelet.pod("probed")
    assert (ids(pod), set(restarts(pod).values())) == (before, {0}), json.dumps(pod["status"])
