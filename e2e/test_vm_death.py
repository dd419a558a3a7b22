"""kill -9 of a pod's QEMU: the pod shows it at once, the other pod notices nothing. A QEMU that stands still. Four pods are
booted."""

import contextlib
import os
import signal

import grpc
import pytest

from harness.daemon import eventually


def test_killed_vm(huskd, image):
    victim, witness = huskd.run_pod("victim"), huskd.run_pod("witness")
    counting = ["/bin/sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done"]
    ended = victim.run("ended", image, ["/bin/sh", "-c", "exit 5"])
    assert ended.wait().exit_code == 5
    running = victim.run("running", image, ["/bin/sleep", "100000"])
    created = victim.create("created", image, ["/bin/sleep", "100000"])
    counter = witness.run("counter", image, counting)
    counter.wait_for_log("5\n")

    os.kill(huskd.vm_process_of(victim), signal.SIGKILL)
    # "Within a second" of an idle host; a limit in a test is for what never comes.
    eventually(lambda: victim.state() == "SANDBOX_NOTREADY", "the pod to be NOTREADY", interval=0.02)
    eventually(lambda: running.state() == "CONTAINER_EXITED", "the container to be EXITED", interval=0.02)

    status = running.status()
    assert status.exit_code != 0
    assert status.finished_at >= status.started_at
    assert ended.status().exit_code == 5
    with pytest.raises(grpc.RpcError):
        running.execute("/bin/true")
    with pytest.raises(grpc.RpcError):
        created.start()

    lines = len(counter.log().splitlines())
    assert witness.state() == "SANDBOX_READY"
    eventually(lambda: len(counter.log().splitlines()) >= lines + 5, "the other pod to write on")
    assert counter.execute("/bin/echo", "well")[:2] == (0, "well\n")

    victim.remove()
    assert [pod.id for pod in huskd.pods()] == [witness.id]
    again = huskd.run_pod("victim", attempt=1)
    assert again.run("again", image, ["/bin/true"]).wait().exit_code == 0
    again.remove()
    witness.remove()
    assert huskd.pods() == []
    assert huskd.vm_processes() == []


def test_cha_02_a_vm_that_stands_still_ends_with_a_stop_of_its_container(huskd, image):
    """Else nothing but the pod's removal would end the container (docs/adr/0132)."""
    pod = huskd.run_pod("still")
    container = pod.run("main", image, ["/bin/sleep", "100000"])
    os.kill(huskd.vm_process_of(pod), signal.SIGSTOP)
    with pytest.raises(grpc.RpcError) as failure:
        huskd.client.StopContainer(container_id=container.id, timeout=1, deadline=5)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (container.state(), pod.state()) == ("CONTAINER_RUNNING", "SANDBOX_READY")
    # A minute is what a guest has; whether the answer comes in time is the host's business.
    with contextlib.suppress(grpc.RpcError):
        huskd.client.StopContainer(container_id=container.id, timeout=1, deadline=70)
    status = container.wait()
    assert (status.exit_code, status.reason) == (255, "Unknown")
    assert "the pod's VM ended: its guest has not answered for" in status.message
    assert pod.state() == "SANDBOX_NOTREADY"
    eventually(lambda: huskd.vm_processes() == [], "QEMU to be gone")
    pod.remove()
