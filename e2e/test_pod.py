"""One pod, as the kubelet and huskctl see it: network, containers, exit codes, exec. Three pods are booted."""

import json
import os
import socket
import subprocess
import urllib.request

import grpc
import pytest

from harness import cri, host, logs
from harness.daemon import Container, Pod, eventually

HUSKCTL = cri.BUILD / "bin" / "huskctl"

MANIFEST = """
apiVersion: v1
kind: Pod
metadata:
  name: pair
  namespace: e2e
  labels: {app: pair, tier: "front end"}
  annotations: {example.org/note: "kept: as, given"}
spec:
  containers:
  - name: server
    image: %(image)s
    workingDir: /www
    command: ["/bin/sh", "-c"]
    args: ["echo served by $NAME from $(pwd) > index.html; echo ready; exec httpd -f -p 8080 -h /www"]
    env:
    - {name: NAME, value: server with spaces}
  - name: client
    image: %(image)s
    command: ["/bin/sleep", "100000"]
"""


def huskctl(huskd, *arguments, **options):
    return subprocess.run([str(HUSKCTL), "--endpoint", f"unix://{huskd.socket}", *arguments], check=True,
                          capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, **options)


@pytest.fixture(scope="module")
def pair(huskd, image):
    """The pod of MANIFEST, run by huskctl; (pod, server, client)."""
    manifest = huskd.root / "pair.yaml"
    manifest.write_text(MANIFEST % {"image": image})
    huskctl(huskd, "run", str(manifest))
    found = [item for item in huskd.pods() if item.metadata.name == "pair"]
    assert len(found) == 1
    pod = Pod(huskd.client, found[0].id, None)
    containers = {}
    for item in huskd.client.ListContainers(filter={"pod_sandbox_id": pod.id}).containers:
        status = huskd.client.ContainerStatus(container_id=item.id).status
        containers[item.metadata.name] = Container(pod, item.id, item.metadata.name, status.log_path)
    containers["server"].wait_for_log("ready")
    return pod, containers["server"], containers["client"]


def test_manifest_pod_is_ready_and_runs_two_containers(pair):
    pod, server, client = pair
    assert pod.state() == "SANDBOX_READY"
    assert server.state() == client.state() == "CONTAINER_RUNNING"
    status = pod.status()
    assert status.metadata.name == "pair"
    assert status.metadata.namespace == "e2e"
    assert dict(status.labels).items() >= {"app": "pair", "tier": "front end"}.items()
    assert status.annotations["example.org/note"] == "kept: as, given"
    assert status.created_at > 0


def test_containers_share_address_and_localhost(pair):
    pod, server, client = pair
    addresses = []
    for container in (server, client):
        code, out, err = container.execute("/bin/sh", "-c", "ip -4 -o addr show dev eth0 | tr -s ' ' | cut -d' ' -f4")
        assert code == 0, err
        addresses.append(out.strip().split("/")[0])
    assert addresses == [pod.address()] * 2
    code, out, err = client.execute("/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    assert (code, out) == (0, "served by server with spaces from /www\n"), err


def test_each_container_has_its_own_root(pair):
    _, server, client = pair
    assert server.execute("/bin/sh", "-c", "echo mine > /own-file")[0] == 0
    assert server.execute("/bin/cat", "/own-file")[1] == "mine\n"
    assert client.execute("/bin/cat", "/own-file")[0] == 1
    assert client.execute("/bin/ls", "/www")[0] != 0


def test_image_is_seen_with_its_layers_merged(pair):
    _, _, client = pair
    assert client.execute("/bin/cat", "/etc/motd")[1] == "Hello from an image of three layers.\n"
    assert client.execute("/bin/readlink", "/usr/bin/motd")[1] == "../../bin/cat\n"
    assert client.execute("/bin/cat", "/etc/removed-by-a-later-layer")[0] == 1
    assert client.execute("/bin/stat", "-c", "%u:%g", "/home/app")[1] == "1000:1000\n"


def test_pod_answers_the_host_and_reaches_the_bridge(pair, huskd):
    pod, _, client = pair
    with urllib.request.urlopen(f"http://{pod.address()}:8080/", timeout=60) as response:
        assert response.read() == b"served by server with spaces from /www\n"
    addresses = json.loads(subprocess.run(["ip", "-json", "-4", "address", "show", "dev", huskd.bridge], check=True,
                                          capture_output=True, text=True).stdout)
    bridge = addresses[0]["addr_info"][0]["local"]
    with socket.create_server((bridge, 0)) as listener:
        listener.settimeout(60)
        call = huskd.client.future("ExecSync", container_id=client.id, timeout=90,
                                   cmd=["/bin/sh", "-c", f"echo hello bridge | nc {bridge} {listener.getsockname()[1]}"])
        connection, (peer, _) = listener.accept()
        with connection:
            assert connection.makefile("rb").readline() == b"hello bridge\n"
        assert peer == pod.address()
        assert call.result().exit_code == 0


def test_the_pod_is_a_virtual_machine(pair, huskd):
    """Its kernel is not the host's, and its QEMU is neither root nor in huskd's cgroup or network namespace."""
    pod, server, _ = pair
    assert server.execute("/bin/uname", "-r")[1].strip() != os.uname().release
    machines = [pid for pid in huskd.vm_processes() if "qemu" in host.command_line(pid).split()[0]]
    assert len(machines) == 1
    status = dict(line.split(":\t", 1) for line in host.read_text(f"/proc/{machines[0]}/status").splitlines())
    assert all(int(uid) in huskd.users for uid in status["Uid"].split())
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapPrm"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    assert pod.id in host.read_text(f"/proc/{machines[0]}/cgroup")
    assert os.readlink(f"/proc/{machines[0]}/ns/net") != os.readlink("/proc/self/ns/net")


def test_huskctl_shows_lists_and_executes(pair, huskd):
    pod, server, _ = pair
    listed = json.loads(huskctl(huskd, "ps", "-o", "json").stdout)
    assert pod.id in json.dumps(listed)
    assert "ready" in huskctl(huskd, "logs", server.id).stdout
    assert huskctl(huskd, "exec", server.id, "--", "/bin/echo", "from", "exec").stdout == "from exec\n"


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("plain", labels={"a": "b", "empty": ""}, annotations={"x/y": "z\nÜ"})
    yield pod
    pod.remove()


def test_configuration_comes_back_as_given(pod, image):
    container = pod.run(
        "given", image, ["/bin/sh"], ["-c", 'echo "$0|$1|$EMPTY|$TEXT|$(pwd)|$(id -u)"; env', "zero", "one two"],
        envs=[{"key": "TEXT", "value": "a=b  c"}, {"key": "EMPTY", "value": ""}], working_dir="/usr/bin",
        labels={"l1": "v1", "l2": ""}, annotations={"an/notation": "äöü\n{}"})
    status = container.wait()
    assert container.log().splitlines()[0] == "zero|one two||a=b  c|/usr/bin|0"
    assert "PATH=/usr/bin:/bin" in container.log().splitlines()
    assert dict(status.labels) == {"l1": "v1", "l2": ""}
    assert dict(status.annotations) == {"an/notation": "äöü\n{}"}
    assert status.metadata.name == "given"
    assert status.image.image and status.image_ref and status.image_id
    assert status.log_path == str(container.log_path)
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    listed = pod.client.ListContainers(filter={"id": container.id}).containers
    assert [(item.id, item.pod_sandbox_id, dict(item.labels)) for item in listed] == \
        [(container.id, pod.id, {"l1": "v1", "l2": ""})]
    assert dict(pod.status().labels) == {"a": "b", "empty": ""}
    assert dict(pod.status().annotations) == {"x/y": "z\nÜ"}


@pytest.mark.parametrize("script, code, reason", [("exit 0", 0, "Completed"), ("exit 1", 1, "Error")])
def test_exit_codes(pod, image, script, code, reason):
    container = pod.run(f"exit{code}", image, ["/bin/sh", "-c", f"echo out; echo err >&2; {script}"])
    status = container.wait()
    assert (status.exit_code, status.reason) == (code, reason)
    # What a container wrote is in its log when its exit shows.
    assert (container.log(), container.log("stderr")) == ("out\n", "err\n")


def test_a_container_that_ignores_sigterm_is_killed_after_the_grace(pod, image):
    container = pod.run("stubborn", image, ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
    container.wait_for_log("up")
    pod.client.StopContainer(container_id=container.id, timeout=1)
    status = container.status()
    assert status.state == cri.api.CONTAINER_EXITED
    assert (status.exit_code, status.reason) == (137, "Error")


def test_a_container_that_heeds_sigterm_ends_by_itself(pod, image):
    container = pod.run("obedient", image, ["/bin/sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; "
                                                             "while :; do sleep 0.1; done"])
    container.wait_for_log("up")
    pod.client.StopContainer(container_id=container.id, timeout=60)
    assert container.status().exit_code == 3
    assert container.log() == "up\nbye\n"


def test_a_program_that_is_not_there_cannot_be_started(pod, image):
    container = pod.create("absent", image, ["/no/such/program"])
    with pytest.raises(grpc.RpcError) as error:
        container.start()
    assert "/no/such/program" in error.value.details()
    status = container.wait()
    assert (status.exit_code, status.reason) == (128, "StartError")


def test_exec_sync(pod, image):
    container = pod.run("target", image, ["/bin/sleep", "100000"])
    assert container.execute("/bin/sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    code, out, _ = container.execute("/bin/sh", "-c", "seq 1 50000")
    assert (code, out.splitlines()) == (0, [str(number) for number in range(1, 50001)])
    with pytest.raises(grpc.RpcError) as error:
        container.execute("/bin/sh", "-c", "echo $$ > /tmp/pid; exec sleep 100000", timeout=2)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: container.execute("/bin/sh", "-c", "kill -0 $(cat /tmp/pid)")[0] != 0,
               "the timed out process to be gone")
    assert container.state() == "CONTAINER_RUNNING"


def test_log_rotation(pod, image):
    container = pod.run("rotated", image, ["/bin/sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.1; done"])
    container.wait_for_log("line 3\n")
    old = container.log_path.with_suffix(".old")
    container.log_path.rename(old)
    pod.client.ReopenContainerLog(container_id=container.id)
    container.wait_for_log("line ")
    pod.client.StopContainer(container_id=container.id, timeout=0)
    lines = (logs.text(old) + container.log()).splitlines()
    assert lines == [f"line {number}" for number in range(len(lines))]
    with pytest.raises(grpc.RpcError):
        pod.client.ReopenContainerLog(container_id=container.id)


def test_long_lines_are_split_and_whole(pod, image):
    container = pod.run("long", image, ["/bin/sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; printf end"])
    container.wait()
    assert container.log() == "x" * 40000 + "\n" + "end"


def test_user_of_the_container(pod, image):
    container = pod.run("user", image, ["/bin/id"],
                        linux={"security_context": {"run_as_username": "app"}})
    assert container.wait().exit_code == 0
    assert "uid=1000(app) gid=1000(app)" in container.log()


def test_removed_container_is_unknown(pod, image):
    container = pod.run("brief", image, ["/bin/true"])
    container.wait()
    pod.client.RemoveContainer(container_id=container.id)
    pod.client.RemoveContainer(container_id=container.id)
    with pytest.raises(grpc.RpcError) as error:
        container.status()
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert container.log_path.exists(), "logs are the kubelet's to remove"


def test_stopped_pod(huskd, image):
    pod = huskd.run_pod("stopped")
    container = pod.run("running", image, ["/bin/sleep", "100000"])
    pod.stop()
    assert pod.state() == "SANDBOX_NOTREADY"
    assert container.state() == "CONTAINER_EXITED"
    assert not [pid for pid in huskd.vm_processes() if pod.id in host.command_line(pid)]
    pod.stop()
    pod.remove()
    assert pod.id not in [item.id for item in huskd.pods()]
    assert container.id not in [item.id for item in huskd.containers()]
    pod.remove()
