"""How containers begin, end and log, line by line as the kubelet relies on it. One pod is booted."""

import os

import grpc
import pytest

from harness import cri
from harness.daemon import eventually

SLEEP = ["/bin/sleep", "100000"]


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("lifecycle")
    yield pod
    pod.remove()


def trap(signal, code):
    return ["/bin/sh", "-c", f"trap 'exit {code}' {signal}; echo up; while :; do sleep 0.1; done"]


def stop(container, timeout):
    container.pod.client.StopContainer(container_id=container.id, timeout=timeout)
    return container.status()


def test_the_configurations_stop_signal_comes_before_the_images(pod, huskd, registry):
    reference = registry.push("lifecycle/signalled", StopSignal="SIGUSR1")
    huskd.pull(reference)
    given = pod.run("given", reference, trap("USR2", 4), stop_signal=cri.api.CRI_SIGUSR2)
    of_image = pod.run("of-image", reference, trap("USR1", 5))
    given.wait_for_log("up")
    of_image.wait_for_log("up")
    assert stop(given, 60).exit_code == 4
    # The image's is remembered though the image, and the huskd that saw it, are gone.
    huskd.client.RemoveImage(image={"image": reference})
    huskd.restart()
    assert stop(of_image, 60).exit_code == 5


def test_a_grace_of_0_kills_at_once(pod, image):
    container = pod.run("graceless", image, trap("TERM", 3))
    container.wait_for_log("up")
    status = stop(container, 0)
    assert (status.state, status.exit_code, status.reason) == (cri.api.CONTAINER_EXITED, 137, "Error")
    assert stop(container, 0).finished_at == status.finished_at


def test_statuses_are_never_empty_and_times_are_nanoseconds(pod, image):
    container = pod.create("times", image, ["/bin/true"])
    created = container.status()
    assert created.started_at == created.finished_at == 0
    assert created.id and created.metadata.name and created.image.image and created.image_ref
    container.start()
    status = container.wait()
    assert 10**18 < created.created_at <= status.started_at <= status.finished_at
    sandbox = pod.status()
    assert sandbox.id and sandbox.metadata.name and sandbox.metadata.namespace and sandbox.metadata.uid
    assert sandbox.created_at > 10**18
    listed = {item.id: item for item in pod.client.ListContainers().containers}[container.id]
    assert listed.image.image and listed.image_ref and listed.created_at == created.created_at


def test_exits_while_huskd_is_away_have_their_codes(pod, image, huskd):
    containers = [pod.run(f"away{code}", image, ["/bin/sh", "-c", f"sleep 2; echo last words; exit {code}"])
                  for code in (0, 17)]
    huskd.kill()
    huskd.start()
    assert [(c.wait().exit_code, c.status().reason) for c in containers] == [(0, "Completed"), (17, "Error")]
    assert [container.log() for container in containers] == ["last words\n"] * 2


def test_orphans_are_reaped(pod, image):
    """The guest's PID 1 takes over what the containers' processes leave."""
    container = pod.run("orphans", image, SLEEP, linux={"security_context": {"namespace_options": {"pid": cri.api.POD}}})
    container.execute("/bin/sh", "-c", "for i in $(seq 1 30); do (/bin/true &) ; done")
    zombies = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true"
    eventually(lambda: container.execute("/bin/sh", "-c", zombies)[1].strip() == "0", "no zombie to be left")


def test_stdin_and_tty_as_configured(pod, image):
    none = pod.run("no-stdin", image, ["/bin/cat"])
    assert none.wait().exit_code == 0, "without stdin its input is at its end"
    waiting = pod.run("stdin", image, ["/bin/sh", "-c", "echo up; cat"], stdin=True, stdin_once=True)
    waiting.wait_for_log("up")
    assert waiting.state() == "CONTAINER_RUNNING", "its input is open"
    stop(waiting, 0)
    tty = pod.run("tty", image, ["/bin/sh", "-c", "test -t 0 && test -t 1 && echo terminal; echo error >&2"], tty=True,
                  stdin=True)
    assert tty.wait().exit_code == 0
    assert tty.log().split() == ["terminal", "error"]
    assert tty.log("stderr") == "", "a tty writes stdout only"


def test_the_last_bytes_are_in_the_log_when_the_exit_shows(pod, image):
    for attempt in range(5):
        container = pod.run("brief", image, ["/bin/sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; printf end"],
                            attempt=attempt)
        container.wait()
        assert container.log() == "x" * 300000 + "end"


def test_a_stopped_containers_log_is_not_reopened(pod, image):
    container = pod.run("rotated", image, ["/bin/echo", "line"])
    container.wait()
    container.log_path.rename(container.log_path.with_suffix(".old"))
    with pytest.raises(grpc.RpcError) as error:
        pod.client.ReopenContainerLog(container_id=container.id)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert not container.log_path.exists()


def test_cri_03_log_paths(pod, image, tmp_path):
    """CRI-03: absolute, with .., a symlink, a FIFO; a symlink put there before a reopen."""
    directory = pod.config.log_directory
    outside = tmp_path / "outside"
    os.symlink(outside, f"{directory}/link.log")
    os.symlink(tmp_path, f"{directory}/link")
    os.mkfifo(f"{directory}/fifo.log")
    for path in (str(outside), "../outside.log", "a/../../outside.log", "link.log", "link/outside", "fifo.log"):
        config = pod.container_config("bad-log", image, SLEEP)
        config.log_path = path
        with pytest.raises(grpc.RpcError) as error:
            pod.client.CreateContainer(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
        assert path in error.value.details()
    assert os.listdir(tmp_path) == []
    container = pod.run("swapped", image, ["/bin/sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done"])
    container.wait_for_log("2\n")
    old = container.log_path.with_suffix(".old")
    container.log_path.rename(old)
    container.log_path.symlink_to(outside)
    with pytest.raises(grpc.RpcError) as error:
        pod.client.ReopenContainerLog(container_id=container.id)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    stop(container, 0)
    assert os.listdir(tmp_path) == []
