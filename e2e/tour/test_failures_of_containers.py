"""docs/operations.md, what goes wrong inside a pod: crashes, images, memory, probes. Containers share pods, so that three boots
do; but not all one pod, for of a pod's events the kubelet tells 25, and then one in five minutes."""

import pytest

from harness.manifests import pod, shell
from harness.stories import Story, describe_container, events

REQUESTS = {"requests": {"cpu": "100m", "memory": "16Mi"}}
# Takes memory until something ends it: a line that has no end.
DEVOUR = "exec tail /dev/zero"
NO_IMAGE, NO_REGISTRY = "127.0.0.1:5000/husk/none:v1", "127.0.0.1:5999/husk/sample:v1"




def trouble(name, *containers):
    # Another DNS policy would add events of its own.
    return pod(name, *containers, dnsPolicy="Default")


def container(name, script, image, **fields):
    return shell(name, script, image, **{"resources": REQUESTS, **fields})


def troubled(image):
    return trouble(
        "troubled",
        container("crashes", "echo 'config.yaml: no such file' | tee /dev/termination-log >&2; exit 7", image),
        container("hungry", DEVOUR, image, resources={"requests": {"cpu": "100m"}, "limits": {"memory": "24Mi"}}))


def probed(image):
    patience = {"timeoutSeconds": 20, "periodSeconds": 2, "failureThreshold": 2}
    return trouble(
        "probed",
        container("unwell", "sleep 100000", image, livenessProbe={
            "exec": {"command": ["/bin/sh", "-c", "echo 'queue is stuck'; exit 1"]}, **patience}),
        container("late", "sleep 100000", image, startupProbe={"tcpSocket": {"port": 9090}, **patience}),
        container("unready", "sleep 100000", image,
                  readinessProbe={"httpGet": {"path": "/", "port": 8080}, **patience, "periodSeconds": 30}),
        {**container("absent", "", image), "command": ["/bin/servr"]})


@pytest.fixture(scope="module")
def pods(cluster, shared_space):
    shared_space.apply(troubled(cluster.image), probed(cluster.image),
                       trouble("starved", container("main", DEVOUR, cluster.image, resources={"requests": {"cpu": "100m"}}),
                               container("missing", "true", NO_IMAGE), container("away", "true", NO_REGISTRY)))
    return shared_space


def sees(story, pods, name, *quotes, of="troubled"):
    story.sees(lambda: describe_container(pods, of, name), *quotes)


def sees_events(story, pods, *quotes, of="troubled"):
    story.sees(lambda: events(pods, of), *quotes)


def test_a_container_that_crashes(pods):
    story = Story("A container crashes again and again")
    sees(story, pods, "crashes", "State: Waiting Reason: CrashLoopBackOff")
    sees(story, pods, "crashes",
         "Last State: Terminated Reason: Error Message: config.yaml: no such file Exit Code: 7")
    sees_events(story, pods, "Warning BackOff Back-off restarting failed container crashes in pod troubled_")
    assert pods.kubectl("logs", "troubled", "--container", "crashes").stdout == "config.yaml: no such file\n"
    story.sees(lambda: pods.cluster.huskd.log_tail(100000), "exited with 7 (Error)")


def test_a_program_that_is_not_there(pods):
    story = Story("A container crashes again and again")
    sees(story, pods, "absent",
         "Last State: Terminated Reason: StartError Message: the guest's agent: StartContainer: executable file `/bin/servr` "
         "not found in $PATH: No such file or directory Exit Code: 128", of="probed")


def test_an_image_that_is_not_there(pods):
    story = Story("An image cannot be pulled")
    sees_events(story, pods,
                f'Warning Failed Failed to pull image "{NO_IMAGE}": rpc error: code = NotFound desc = pull {NO_IMAGE}: '
                "the registry has no such image: GET http://127.0.0.1:5000/v2/husk/none/manifests/v1: HTTP status 404: "
                "MANIFEST_UNKNOWN: manifest unknown",
                "Warning Failed Error: ErrImagePull", f'Normal BackOff Back-off pulling image "{NO_IMAGE}"',
                "Warning Failed Error: ImagePullBackOff", of="starved")
    sees(story, pods, "missing", "State: Waiting Reason: ImagePullBackOff", of="starved")


def test_a_registry_that_is_away(pods):
    story = Story("An image cannot be pulled")
    sees_events(story, pods,
                f'Warning Failed Failed to pull image "{NO_REGISTRY}": RegistryUnavailable: pull {NO_REGISTRY}: gave up '
                "after 5 attempts: GET http://127.0.0.1:5999/v2/husk/sample/manifests/v1: Failed to connect to 127.0.0.1 "
                "port 5999", "Warning Failed Error: RegistryUnavailable", of="starved")
    sees(story, pods, "away", "State: Waiting Reason: ImagePullBackOff", of="starved")
    story.sees(lambda: pods.cluster.huskd.log_tail(100000), "failed method=PullImage")


def test_a_container_over_its_memory_limit(pods):
    story = Story("A container runs out of memory")
    sees(story, pods, "hungry", "Last State: Terminated Reason: OOMKilled Exit Code: 137")
    story.sees(lambda: pods.cluster.huskd.log_tail(100000), "exited with 137 (OOMKilled)")


def test_a_vm_without_memory(pods):
    story = Story("A whole VM runs out of memory")
    story.sees(lambda: describe_container(pods, "starved", "main"),
               "Last State: Terminated Reason: OOMKilled Message: the pod's VM of 256 MiB was out of memory, though the "
               "container had not reached a limit of its own; memory limits for the pod's containers make its VM as large "
               "as their sum Exit Code: 137")


def test_probes(pods):
    story = Story("Probes fail")
    sees_events(story, pods, "Warning Unhealthy Liveness probe failed: queue is stuck",
                "Normal Killing Container unwell failed liveness probe, will be restarted",
                "Warning Unhealthy Startup probe failed: dial tcp",
                "Normal Killing Container late failed startup probe, will be restarted",
                "Warning Unhealthy Readiness probe failed: Get", of="probed")
    for name in ("unwell", "late"):
        sees(story, pods, name, "Last State: Terminated Reason: Error Exit Code: 137", of="probed")
    sees(story, pods, "unready", "State: Running", "Ready: False Restart Count: 0", of="probed")
