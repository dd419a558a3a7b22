"""Containers of a pod among themselves: order at the start and at the end, hooks, last words, processes, and a debugger."""

import pathlib
import re
import tempfile

import pytest

from harness.daemon import eventually
from harness.kubelet import container_status
from harness.manifests import pod, shell

PROBE = {"periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 60}
RECORD = [{"name": "record", "mountPath": "/record"}]


def note(what):
    return f"echo {what} >>/record/order"


@pytest.fixture
def record():
    """A directory of the node's, which outlives the pod that writes there."""
    with tempfile.TemporaryDirectory(prefix="husk-tour-", dir="/var/tmp") as path:
        yield pathlib.Path(path)


def lines(record):
    path = record / "order"
    return path.read_text().splitlines() if path.exists() else []


def until_told(name):
    return f"trap '{note(f'{name} ends')}; exit 0' TERM; {note(f'{name} runs')}; while :; do sleep 0.2; done"


def test_order_at_the_start_and_at_the_end_and_hooks(cluster, record, space):
    def sidecar(name, script, **fields):
        begun = {"exec": {"command": ["grep", "-q", f"^{name} runs", "/record/order"]}, **PROBE}
        return shell(name, script, cluster.image, restartPolicy="Always", startupProbe=begun, volumeMounts=RECORD, **fields)

    def by_exec(what):
        return {"exec": {"command": ["sh", "-c", note(what)]}}
    web = "mkdir /www; echo hello >/www/bye; httpd -f -vv -p 8080 -h /www 2>>/record/requests & " + until_told("web")
    main = shell("main", "while ! grep -q 'after the start' /record/order; do sleep 0.2; done; " + until_told("main"),
                 cluster.image, volumeMounts=RECORD,
                 lifecycle={"postStart": by_exec("after the start"), "preStop": by_exec("before the end")})
    asks = shell("asks", "trap 'exit 0' TERM; while :; do sleep 0.2; done", cluster.image,
                 lifecycle={"preStop": {"httpGet": {"path": "/bye", "port": 8080}}})
    space.run(pod("ordered", main, asks, terminationGracePeriodSeconds=60, initContainers=[
        shell("first", note("first"), cluster.image, volumeMounts=RECORD),
        sidecar("web", web), sidecar("second", until_told("second")),
        shell("last", note("last"), cluster.image, volumeMounts=RECORD)],
        volumes=[{"name": "record", "hostPath": {"path": str(record), "type": "Directory"}}]))
    start = ["first", "web runs", "second runs", "last", "after the start", "main runs"]
    eventually(lambda: len(lines(record)) >= len(start), lambda: f"the start: {lines(record)}")
    assert lines(record) == start
    space.delete("pod", "ordered")
    assert lines(record)[len(start):] == ["before the end", "main ends", "second ends", "web ends"]
    assert "/bye" in (record / "requests").read_text()


def test_a_sidecar_does_not_keep_a_pod_that_is_done(cluster, space):
    space.apply(pod("done", shell("main", "echo did it", cluster.image), restartPolicy="Never", initContainers=[
        shell("sidecar", "trap 'echo told; exit 0' TERM; while :; do sleep 0.2; done", cluster.image, restartPolicy="Always")],
        terminationGracePeriodSeconds=30))
    found = space.wait_for("pod", "done", lambda found: found["status"]["phase"] == "Succeeded", "to succeed")
    assert container_status(found, "main")["state"]["terminated"]["reason"] == "Completed"
    assert container_status(found, "sidecar")["state"]["terminated"]["exitCode"] == 0
    assert space.kubectl("logs", "done", "--container", "sidecar").stdout == "told\n"


def test_last_words_and_a_pods_deadline(cluster, space):
    by_log = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    both = "echo by the log; echo by the file >/dev/termination-log; exit 3"
    space.apply(
        pod("words",
            shell("file", "echo to a file of its own >/tmp/words", cluster.image, terminationMessagePath="/tmp/words"),
            shell("log", "echo one; echo two >&2; exit 4", cluster.image, **by_log),
            shell("fine", "echo nothing to tell", cluster.image, **by_log),
            shell("both", both, cluster.image, **by_log), restartPolicy="Never"),
        pod("late", shell("main", "sleep 100000", cluster.image), restartPolicy="Never", activeDeadlineSeconds=5))
    found = space.wait_for("pod", "words", lambda found: found["status"]["phase"] == "Failed", "to fail")
    ended = {one["name"]: one["state"]["terminated"] for one in found["status"]["containerStatuses"]}
    assert {name: one["exitCode"] for name, one in ended.items()} == {"file": 0, "log": 4, "fine": 0, "both": 3}
    assert ended["file"]["message"] == "to a file of its own\n"
    assert sorted(ended["log"]["message"].splitlines()) == ["one", "two"]
    assert "message" not in ended["fine"]
    assert ended["both"]["message"] == "by the file\n"
    late = space.wait_for("pod", "late", lambda found: found["status"]["phase"] == "Failed", "to fail")
    assert late["status"]["reason"] == "DeadlineExceeded"


def commands(listing):
    """Of a `ps -o pid,args`, by what is run."""
    found = re.findall(r"^ *(\d+) (.*)$", listing, re.MULTILINE)
    return {command: int(pid) for pid, command in found}


def test_processes_of_one_container_of_all_and_for_a_debugger(cluster, space):
    secret = "echo only here >/tmp/secret; exec sleep 1001"
    space.apply(pod("apart", shell("target", secret, cluster.image), shell("other", "exec sleep 1002", cluster.image)),
                pod("together", shell("one", "exec sleep 1003", cluster.image), shell("two", "exec sleep 1004", cluster.image),
                    shareProcessNamespace=True))
    for name in ("apart", "together"):
        space.wait_for("pod", name, lambda found: found["status"]["phase"] == "Running" and all(
            one["ready"] for one in found["status"]["containerStatuses"]), "to run")
    seen = commands(space.execute("apart", "ps", "-o", "pid,args", container="other"))
    assert seen["sleep 1002"] == 1 and "sleep 1001" not in seen
    seen = commands(space.execute("together", "ps", "-o", "pid,args", container="one"))
    assert {"sleep 1003", "sleep 1004"} <= set(seen) and 1 not in (seen["sleep 1003"], seen["sleep 1004"])

    look = "ps -o pid,args; cat /proc/1/root/tmp/secret; cat /tmp/secret 2>&1; echo that is all"
    space.kubectl("debug", "apart", "--image", cluster.image, "--image-pull-policy", "IfNotPresent", "--target", "target",
                  "--container", "debugger", "--profile", "general", "--", "sh", "-c", look)
    found = space.wait_for("pod", "apart", lambda found: "terminated" in (container_status(found, "debugger") or {"state": {}})[
        "state"], "to have been looked at")
    assert container_status(found, "debugger")["state"]["terminated"]["exitCode"] == 0
    told = space.kubectl("logs", "apart", "--container", "debugger").stdout
    seen = commands(told)
    assert seen["sleep 1001"] == 1 and "sleep 1002" not in seen
    assert "\nonly here\n" in told and "can't open '/tmp/secret'" in told and told.endswith("that is all\n")
    assert {one["restartCount"] for one in found["status"]["containerStatuses"]} == {0}
