"""Deployments and DaemonSets that are replaced by a next version: behind a Service without a gap, and many at once."""

import contextlib
import os
import threading
import urllib.error
import urllib.request

from harness.daemon import eventually
from harness.manifests import pod_spec, shell, workload

PROBE = {"timeoutSeconds": 20, "failureThreshold": 60}
SERVER = "mkdir /www && echo $VERSION >/www/version && exec httpd -f -p 8080 -h /www"
# What a rollout waits for is boots, and those of thirty VMs take minutes where QEMU emulates: HUSK_TOUR_REPLICAS=30.
MANY, MANY_SECONDS = int(os.environ.get("HUSK_TOUR_REPLICAS", "8")), 1500


def server(image, version, probe_period=1, **fields):
    probe = {"httpGet": {"path": "/version", "port": 8080}, **PROBE, "periodSeconds": probe_period}
    return shell("main", SERVER, image, env=[{"name": "VERSION", "value": version}], readinessProbe=probe, **fields)


def rolled_out(found):
    """As `kubectl rollout status` has it."""
    status, wanted = found["status"], found["spec"]["replicas"]
    return (status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("replicas") == status.get("availableReplicas") == wanted)


class Caller(threading.Thread):
    """Asks an address all the time, each time by a connection of its own."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.heard, self.failures = url, [], []
        self._ends = threading.Event()

    def _ask(self):
        with urllib.request.urlopen(self.url, timeout=60) as answer:
            return answer.read().decode().strip()

    def is_answered(self):
        with contextlib.suppress(OSError):
            return bool(self._ask())
        return False

    def run(self):
        while not self._ends.is_set():
            try:
                self.heard.append(self._ask())
            except OSError as error:
                self.failures.append(f"after {len(self.heard)} answers: {error}")
            self._ends.wait(0.02)

    def end(self):
        self._ends.set()
        self.join()


def test_a_deployment_rolls_over_behind_its_service_without_a_gap(cluster, space):
    # Whoever is asked to end waits until nobody is sent to it any more.
    spec = pod_spec(server(cluster.image, "one", lifecycle={"preStop": {"sleep": {"seconds": 10}}}),
                    terminationGracePeriodSeconds=60)
    deployment = workload("Deployment", "web", spec, replicas=2,
                          strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    space.apply(deployment, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                             "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})
    space.wait_for("deployment", "web", rolled_out, "to be available")
    address = space.get("service", "web")["spec"]["clusterIP"]
    caller = Caller(f"http://{address}/version")
    # The service proxy hears of the endpoints in its own time.
    eventually(caller.is_answered, "the service to answer")
    caller.start()
    try:
        spec["containers"][0]["env"][0]["value"] = "two"
        space.apply(deployment)
        space.wait_for("deployment", "web", rolled_out, "to roll over")
        # Until those of the first version are gone, and so for each moment of their ends.
        space.wait_for("deployment", "web", lambda _: len(space.list("pods")) == 2, "to have two pods")
    finally:
        caller.end()
    assert not caller.failures, caller.failures
    assert caller.heard[0] == "one" and caller.heard[-1] == "two" and set(caller.heard) == {"one", "two"}


def test_a_daemon_set_is_on_the_node_and_is_replaced(cluster, space):
    spec = pod_spec(server(cluster.image, "one"))
    daemon_set = workload("DaemonSet", "agent", spec)

    def is_current(found):
        status = found["status"]
        return (status.get("observedGeneration") == found["metadata"]["generation"]
                and status.get("updatedNumberScheduled") == status["numberAvailable"] == status["desiredNumberScheduled"] == 1
                if "numberAvailable" in status else False)
    space.apply(daemon_set)
    space.wait_for("daemonset", "agent", is_current, "to be available")
    first = space.list("pods")[0]
    assert first["spec"]["nodeName"] == cluster.list("nodes")[0]["metadata"]["name"]
    spec["containers"][0]["env"][0]["value"] = "two"
    space.apply(daemon_set)
    space.wait_for("daemonset", "agent", is_current, "to be replaced")
    second, = (one for one in space.list("pods") if "deletionTimestamp" not in one["metadata"])
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert space.execute(second["metadata"]["name"], "cat", "/www/version") == "two\n"


def test_many_replicas_come_up_and_roll_over(cluster, space):
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    # A class whose pods have room, thirty and more, on a node of two processors.
    cluster.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "many"}, "handler": "husk",
                   "overhead": {"podFixed": {"memory": "96Mi", "cpu": "10m"}}})
    try:
        # Many emulated VMs that are asked every second leave no time for boots.
        spec = pod_spec(server(cluster.image, "one", probe_period=5, resources=small), runtimeClassName="many")
        deployment = workload("Deployment", "many", spec, replicas=MANY, progressDeadlineSeconds=MANY_SECONDS)
        space.apply(deployment)
        space.wait_for("deployment", "many", rolled_out, "to be available", seconds=MANY_SECONDS)
        spec["containers"][0]["env"][0]["value"] = "two"
        space.apply(deployment)
        space.wait_for("deployment", "many", rolled_out, "to roll over", seconds=MANY_SECONDS)
        pods = [one for one in space.list("pods") if "deletionTimestamp" not in one["metadata"]]
        assert len(pods) == MANY and len({one["status"]["podIP"] for one in pods}) == MANY
        assert {status["restartCount"] for one in pods for status in one["status"]["containerStatuses"]} == {0}
        for one in pods:
            with urllib.request.urlopen(f"http://{one['status']['podIP']}:8080/version", timeout=60) as answer:
                assert answer.read() == b"two\n"
    finally:
        space.kubectl("delete", "deployment", "many", "--ignore-not-found")
        cluster.kubectl("delete", "runtimeclass", "many")
