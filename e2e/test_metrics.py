"""Events as the kubelet's evented PLEG takes them. Three pods are booted."""

import os
import re
import signal
import subprocess
import threading
import time

import grpc

from harness import cri
from harness.daemon import eventually
from test_vm_death import machine_of

CREATED, STARTED, STOPPED, DELETED = "CREATED", "STARTED", "STOPPED", "DELETED"


class Listener:
    """A subscriber of its own connection. Once made, it misses nothing."""

    def __init__(self, huskd):
        self._client = cri.CriClient(huskd.socket)
        self.events, self.error = [], None
        self._call = self._client.GetContainerEvents(deadline=1200)
        self._call.initial_metadata()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for event in self._call:
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


def test_events_of_a_killed_vm_and_of_a_restart(huskd, image):
    listener = Listener(huskd)
    victim, survivor = huskd.run_pod("victim"), huskd.run_pod("survivor")
    running = victim.run("running", image, ["/bin/sleep", "100000"])
    created = victim.create("created", image, ["/bin/sleep", "100000"])
    ends = survivor.run("ends", image, ["/bin/sh", "-c", "while ! test -e /tmp/end; do sleep 0.1; done; exit 7"])
    listener.wait_for((STARTED, ends.id))
    before = len(listener.events)
    os.kill(machine_of(huskd, victim), signal.SIGKILL)
    listener.wait_for((STOPPED, victim.id))
    assert sorted(listener.told(before)) == sorted([(STOPPED, running.id), (STOPPED, created.id), (STOPPED, victim.id)])
    assert listener.told()[-1] == (STOPPED, victim.id)
    assert state_in(listener.events[-1], running.id) == "CONTAINER_EXITED"
    # Whoever was told sees it.
    assert running.state() == "CONTAINER_EXITED"
    victim.remove()
    listener.wait_for((DELETED, victim.id))

    # The end of a huskd is said, and what ended while none was there is told by the next one.
    assert ends.execute("/bin/sh", "-c", "(sleep 3; touch /tmp/end) >/dev/null 2>&1 &")[0] == 0
    assert huskd.stop() == 0
    error = listener.wait_for_end()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    listener.close()
    time.sleep(5)
    huskd.start()
    again = Listener(huskd)
    again.wait_for((STOPPED, ends.id))
    assert again.told() == [(STOPPED, ends.id)]
    assert ends.status().exit_code == 7
    survivor.remove()
    again.wait_for((DELETED, survivor.id))
    assert again.told() == [(STOPPED, ends.id), (STOPPED, survivor.id), (DELETED, ends.id), (DELETED, survivor.id)]
    again.close()
