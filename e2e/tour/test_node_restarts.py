"""The kubelet and huskd end and come back while pods run, start and stop: no container notices."""

import pytest
from harness.daemon import eventually
from harness.kubelet import container_status, is_ready
from harness.manifests import pod, shell

# Beside booting VMs a probe is still answered in seconds.
PROBE = {"periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 60}
COUNT = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
SERVER = "mkdir /www && echo hello >/www/index.html && exec httpd -f -p 8080 -h /www"
KILLS = 3
MARK = "whose-huskd-was-killed"


@pytest.fixture(scope="module")
def steady(cluster, shared_space):
    shared_space.run(pod(
        "steady",
        shell("counts", COUNT, cluster.image,
              livenessProbe={"exec": {"command": ["/bin/sh", "-c", "echo >>/tmp/probes"]}, **PROBE}),
        shell("serves", SERVER, cluster.image, readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, **PROBE})))
    return shared_space


def idle(name, image):
    return pod(name, shell("main", "sleep 100000", image))


def identity(space):
    """What stays the same as long as no container of the steady pod is restarted."""
    found = space.get("pod", "steady")
    return [(one["name"], one["containerID"], one["restartCount"], one["state"]["running"]["startedAt"])
            for one in found["status"]["containerStatuses"]]


def ask(space, *command):
    """What a command in the steady pod says. The kubelet's gRPC asks a new huskd after a pause of its own."""
    def asked():
        answer = space.kubectl("exec", "steady", "--container", "counts", "--", *command, check=False)
        return answer.stdout if answer.returncode == 0 else None
    return eventually(asked, "an exec to work")


def probes(space):
    """How often the liveness probe has run."""
    return int(ask(space, "wc", "-l", "/tmp/probes").split()[0])


def numbers(lines):
    return [int(line.split()[1]) for line in lines]


def is_gone(space, name):
    return space.get("pod", name) is None


def test_a_kubelet_that_restarts_goes_on_where_it_was(cluster, steady):
    steady.run(idle("leaves", cluster.image))
    before = identity(steady)
    assert cluster.node.stop() == 0
    try:
        steady.apply(idle("comes", cluster.image))
        steady.kubectl("delete", "pod", "leaves", "--wait=false")
    finally:
        cluster.node.start()
    eventually(lambda: is_gone(steady, "leaves"), "the pod that was deleted meanwhile to go")
    steady.wait_for("pod", "comes", is_ready, "to run, as it was made meanwhile")
    steady.delete("pod", "comes")
    answered = probes(steady)
    eventually(lambda: probes(steady) > answered + 1, "probes to go on")
    assert is_ready(steady.get("pod", "steady"))
    assert identity(steady) == before


def end_huskd_under_load(cluster, space, number):
    """Two pods begin, two of the round before end, and in the midst of it huskd is killed."""
    huskd = cluster.huskd
    known = {one.id for one in huskd.pods()}
    space.apply(*(idle(f"load{number}-{letter}", cluster.image) for letter in "ab"))
    if number:
        space.kubectl("delete", "pod", "--wait=false", *(f"load{number - 1}-{letter}" for letter in "ab"))
    eventually(lambda: any(one.id not in known for one in huskd.pods()), "a pod to begin", interval=0.05)
    huskd.kill()
    huskd.start()


def test_a_huskd_that_is_killed_under_load_leaves_nothing_stuck(cluster, steady):
    before = identity(steady)
    with steady.following("logs", "--follow", "steady", "--container", "counts") as log, \
            steady.following("exec", "steady", "--container", "counts", "--", "/bin/sh", "-c", COUNT, MARK) as command:
        for stream in (log, command):
            stream.wait_for(lambda lines: len(lines) > 5, "some lines")
        for number in range(KILLS):
            end_huskd_under_load(cluster, steady, number)
        # Its stream ended with the first huskd. The API server takes that for the end of a command, so its code says nothing.
        command.wait()
        eventually(lambda: MARK not in ask(steady, "ps"), "the command to be ended too")
        assert numbers(command.lines) == list(range(1, len(command.lines) + 1))
        # The kubelet ends it if it asks for the container's state at the wrong moment; what it has read is whole.
        assert numbers(log.lines) == list(range(1, len(log.lines) + 1))
    for number in range(KILLS - 1):
        for letter in "ab":
            eventually(lambda name=f"load{number}-{letter}": is_gone(steady, name), f"load{number}-{letter} to go")
    for letter in "ab":
        steady.wait_for("pod", f"load{KILLS - 1}-{letter}", is_ready, "to be ready")
    seen = len(log.lines)
    with steady.following("logs", "--follow", "steady", "--container", "counts") as again:
        lines = again.wait_for(lambda lines: len(lines) > seen + 10, "the whole log and more")
        assert numbers(lines) == list(range(1, len(lines) + 1))
    answered = probes(steady)
    eventually(lambda: probes(steady) > answered + 1, "probes to go on")
    assert is_ready(steady.get("pod", "steady"))
    assert identity(steady) == before
    for letter in "ab":
        steady.delete("pod", f"load{KILLS - 1}-{letter}")
    named = {one.metadata.name for one in cluster.huskd.pods() if one.metadata.namespace == steady.name}
    eventually(lambda: {one.metadata.name for one in cluster.huskd.pods()
                        if one.metadata.namespace == steady.name} == {"steady"},
               lambda: f"only the steady pod to be left; there were {named}")


def test_a_container_that_was_told_of_before_is_told_of_after(cluster, steady):
    """The kubelet's memory is what the runtime says: nothing of a container's status changes with huskd."""
    def status():
        found = container_status(steady.get("pod", "steady"), "serves")
        return {key: found[key] for key in ("containerID", "image", "imageID", "state", "restartCount", "resources")}
    before = status()
    cluster.huskd.restart()
    cluster.node.restart()
    answered = probes(steady)
    eventually(lambda: probes(steady) > answered + 1, "probes to go on")
    assert status() == before
