"""Probes of every kind: what they hold back, what they restart, and whom a Service sends to."""

import pytest

from harness import go_programs
from harness.daemon import eventually
from harness.kubelet import container_status
from harness.manifests import pod, shell
from harness.registry import sample_image

# Beside booting VMs a probe is answered in seconds.
PROBE = {"periodSeconds": 1, "timeoutSeconds": 30}
PATIENT = {**PROBE, "failureThreshold": 100}
HASTY = {**PROBE, "failureThreshold": 2}
HTTP, TCP, GRPC = 8080, 9090, 9000


@pytest.fixture(scope="module")
def image(cluster):
    program = sample_image.Entry("bin/grpc_health", go_programs.build("grpc_health").read_bytes())
    return cluster.registry.push("husk/probed", layers=[*sample_image.sample_layers(), sample_image.layer_tar([program])])


@pytest.fixture(scope="module")
def probed(image, shared_space):
    """One pod: its readiness is that of four containers, each probed in another way, and each by a file of its own."""
    http = f"mkdir /www; touch /www/lives; exec httpd -f -p {HTTP} -h /www"
    tcp = f"while [ ! -e /tmp/ready ]; do sleep 0.2; done; exec httpd -f -p {TCP} -h /tmp"
    grpc = f"mkdir /services; touch /services/lives; exec grpc_health :{GRPC} /services"
    shared_space.apply(
        pod("probed",
            shell("http", http, image, readinessProbe={"httpGet": {"path": "/ready", "port": HTTP}, **HASTY},
                  startupProbe={"httpGet": {"path": "/lives", "port": HTTP}, **PATIENT},
                  livenessProbe={"httpGet": {"path": "/lives", "port": HTTP}, **HASTY}),
            shell("tcp", tcp, image, readinessProbe={"tcpSocket": {"port": TCP}, **HASTY}),
            shell("exec", "while :; do sleep 1; done", image,
                  readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}, **HASTY}),
            shell("grpc", grpc, image, readinessProbe={"grpc": {"port": GRPC, "service": "ready"}, **HASTY},
                  startupProbe={"grpc": {"port": GRPC}, **PATIENT},
                  livenessProbe={"grpc": {"port": GRPC, "service": "lives"}, **HASTY}),
            labels={"app": "probed"}),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probed"},
         "spec": {"selector": {"app": "probed"}, "ports": [{"port": 80, "targetPort": HTTP}]}},
        pod("starts",
            shell("slow", "while :; do sleep 0.5; done", image,
                  startupProbe={"exec": {"command": ["test", "-e", "/tmp/started"]}, **PATIENT},
                  livenessProbe={"exec": {"command": ["test", "-e", "/tmp/started"]}, **HASTY}),
            shell("never", "while :; do sleep 0.5; done", image, startupProbe={"tcpSocket": {"port": 1}, **HASTY})))
    for name, containers in (("probed", 4), ("starts", 2)):
        shared_space.wait_for("pod", name, lambda found: sum(
            "running" in one["state"] or one["restartCount"] > 0 for one in found["status"].get("containerStatuses", [])
        ) == containers, "to run")
    return shared_space


def endpoints(space):
    """{address: whether it is ready}"""
    slices = space.list("endpointslices", "--selector", "kubernetes.io/service-name=probed")
    return {address: one["conditions"]["ready"] for part in slices for one in part["endpoints"] or []
            for address in one["addresses"]}


def ready(space):
    return {one["name"] for one in space.get("pod", "probed")["status"]["containerStatuses"] if one["ready"]}


READY_FILE = {"http": "/www/ready", "tcp": "/tmp/ready", "exec": "/tmp/ready", "grpc": "/services/ready"}


def test_a_startup_probe_holds_back_liveness_and_readiness(probed):
    slow = container_status(probed.get("pod", "starts"), "slow")
    assert (slow["started"], slow["ready"], slow["restartCount"]) == (False, False, 0)
    probed.execute("starts", "touch", "/tmp/started", container="slow")
    found = probed.wait_for("pod", "starts", lambda found: container_status(found, "slow")["ready"], "to have started")
    slow = container_status(found, "slow")
    assert (slow["started"], slow["restartCount"]) == (True, 0)


def test_a_container_that_never_starts_is_restarted(probed):
    found = probed.wait_for("pod", "starts", lambda found: container_status(found, "never")["restartCount"] >= 1, "to restart")
    assert not container_status(found, "never")["ready"] and container_status(found, "slow")["restartCount"] == 0
    eventually(lambda: any(reason == "Unhealthy" and message.startswith("Startup probe failed") for reason, message
                           in probed.events("starts")), "an event of the probe")
    probed.delete("pod", "starts")


def test_each_kind_of_probe_makes_its_container_ready_and_all_of_them_the_endpoint(probed):
    address = probed.get("pod", "probed")["status"]["podIP"]
    eventually(lambda: endpoints(probed) == {address: False}, lambda: f"an endpoint that is not ready: {endpoints(probed)}")
    expected = set()
    for name, path in READY_FILE.items():
        assert ready(probed) == expected and endpoints(probed) == {address: False}
        probed.execute("probed", "touch", path, container=name)
        expected.add(name)
        eventually(lambda: ready(probed) == expected, lambda: f"{expected} to be ready, not {ready(probed)}", interval=0.5)
    eventually(lambda: endpoints(probed) == {address: True}, "the endpoint to be ready")


def restarts(space):
    return {one["name"]: one["restartCount"] for one in space.get("pod", "probed")["status"]["containerStatuses"]}


def test_liveness_by_http_and_grpc_restarts_the_one_container_and_takes_the_pod_off_its_service(probed):
    """After the stop before, when all are ready: what made them so is gone with the containers that are restarted."""
    address = probed.get("pod", "probed")["status"]["podIP"]
    assert set(restarts(probed).values()) == {0} and endpoints(probed) == {address: True}
    for name, path in (("http", "/www/lives"), ("grpc", "/services/lives")):
        probed.execute("probed", "rm", path, container=name)
        eventually(lambda: restarts(probed)[name] == 1, lambda: f"{name} to be restarted: {restarts(probed)}", interval=0.5)
    assert restarts(probed) == {"http": 1, "tcp": 0, "exec": 0, "grpc": 1}
    assert ready(probed) == {"tcp", "exec"} and endpoints(probed) == {address: False}
    last = container_status(probed.get("pod", "probed"), "grpc")["lastState"]["terminated"]
    # Go ends by SIGTERM, which PID 1 of a container gets only if it has asked for it: so by SIGKILL, when its time is over.
    assert last["exitCode"] in (2, 137)
