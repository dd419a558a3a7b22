"""kubectl exec, attach, cp and port-forward, over WebSocket as kubectl wants it and over SPDY as it used to."""

import os
import subprocess
import urllib.request

import pytest
from harness.daemon import PATIENCE, eventually
from harness.kubelet import container_status, is_ready
from harness.manifests import pod, shell
from harness.terminal import PtyProgram

TRANSPORTS = {"websocket": "true", "spdy": "false"}
SERVER = "mkdir /www && echo hello >/www/index.html && exec httpd -f -p 8080 -h /www"


@pytest.fixture(scope="module")
def tools(cluster, shared_space):
    shared_space.apply({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "tools"},
        "spec": {"selector": {"app": "tools"}, "ports": [{"port": 80, "targetPort": "web"}]}})
    shared_space.run(pod(
        "tools",
        shell("main", SERVER, cluster.image, ports=[{"name": "web", "containerPort": 8080}],
              readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 20}),
        shell("cat", "cat", cluster.image, stdin=True),
        shell("terminal", "exec sh", cluster.image, stdin=True, tty=True), labels={"app": "tools"}))
    return shared_space


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    """Environment of a kubectl."""
    value = TRANSPORTS[request.param]
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": value, "KUBECTL_PORT_FORWARD_WEBSOCKETS": value}


def run(space, transport, *arguments, stdin=b""):
    command = space.cluster.kubectl_command("--namespace", space.name, *arguments)
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=PATIENCE,
                          env={**os.environ, **transport})


def terminal(space, transport, *arguments):
    variables = [f"{key}={value}" for key, value in transport.items()]
    return PtyProgram(["env", *variables, *space.cluster.kubectl_command("--namespace", space.name, *arguments)])


def test_exec_with_pipes(tools, transport):
    ended = run(tools, transport, "exec", "tools", "--container", "main", "--", "/bin/sh", "-c",
                "echo out; echo err >&2; exit 42")
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()[0]) == (42, b"out\n", b"err")
    blob = bytes(range(256)) * 4096
    ended = run(tools, transport, "exec", "--stdin", "tools", "--container", "main", "--", "cat", stdin=blob)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, blob, b"")
    ended = run(tools, transport, "exec", "tools", "--container", "main", "--", "/no/such/program")
    assert ended.returncode != 0 and b"/no/such/program" in ended.stderr


def test_exec_with_a_terminal(tools, transport):
    with terminal(tools, transport, "exec", "-it", "tools", "--container", "main", "--", "/bin/sh") as program:
        program.wait_for(b"# ")
        program.type(b"stty size\r")
        program.wait_for(b"24 80")
        program.resize(101, 31)
        # The command runs again until the new size has arrived.
        program.type(b"until [ \"$(stty size)\" = '31 101' ]; do sleep 0.1; done; echo larger$((6*7))\r")
        program.wait_for(b"larger42")
        # The terminal is this command's when it says so; the shell would say it too early.
        program.type(b"sh -c 'echo begin$((1+1)); exec sleep 100000'\r")
        program.wait_for(b"begin2")
        program.type(b"\x03")
        program.type(b"exit 7\r")
        assert program.wait() == 7


def test_attach(tools, transport):
    with tools.following("attach", "--stdin", "tools", "--container", "cat", environment=transport) as client:
        # What is typed before it is attached waits in its pipe.
        client.type("first line\n")
        client.wait_for_line("first line")
        client.type("second line\n")
        client.wait_for_line("second line")
    with terminal(tools, transport, "attach", "-it", "tools", "--container", "terminal") as client:
        client.type(b"echo attached$((6*7))\r")
        client.wait_for(b"attached42")
    found = tools.get("pod", "tools")
    assert all(container_status(found, name)["restartCount"] == 0 for name in ("cat", "terminal"))


def make_tree(directory):
    (directory / "deep" / "deeper").mkdir(parents=True)
    (directory / "deep" / "deeper" / "blob").write_bytes(os.urandom(3 << 20))
    (directory / "a name with spaces").write_text("spaces\n")
    (directory / "empty").touch()
    (directory / "program").write_text("#!/bin/sh\necho it runs\n")
    (directory / "program").chmod(0o750)
    (directory / "private").write_text("private\n")
    (directory / "private").chmod(0o600)
    (directory / "link").symlink_to("deep/deeper/blob")
    (directory / "dangling").symlink_to("nowhere")


def files(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*")
            if path.is_file() and not path.is_symlink()}


def test_a_tree_is_copied_both_ways(tools, transport, tmp_path):
    make_tree(tmp_path / "tree")
    where = f"/tmp/tree-{len(transport['KUBECTL_REMOTE_COMMAND_WEBSOCKETS'])}"
    copied = run(tools, transport, "cp", str(tmp_path / "tree"), f"tools:{where}", "--container", "main")
    assert copied.returncode == 0, copied.stderr
    script = (f"cd {where} && stat -c '%a %n' program private && readlink link && readlink dangling && ./program && "
              "cmp link deep/deeper/blob && echo same")
    assert tools.execute("tools", "/bin/sh", "-c", script, container="main").splitlines() == [
        "750 program", "600 private", "deep/deeper/blob", "nowhere", "it runs", "same"]
    copied = run(tools, transport, "cp", f"tools:{where}", str(tmp_path / "back"), "--container", "main")
    assert copied.returncode == 0, copied.stderr
    # kubectl does not make symlinks of what a container says.
    assert files(tmp_path / "back") == files(tmp_path / "tree")


@pytest.mark.parametrize("target", ["pod/tools", "service/tools"])
def test_ports_are_forwarded(tools, transport, target):
    port = {"pod/tools": 8080, "service/tools": 80}[target]
    with tools.following("port-forward", target, f":{port}", environment=transport) as client:
        line = client.wait_for(lambda lines: any("127.0.0.1:" in one for one in lines), "a local port")[0]
        local = line.split("127.0.0.1:")[1].split()[0]
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/index.html", timeout=PATIENCE) as answer:
                assert answer.read() == b"hello\n"


def test_a_command_ends_with_its_pod(cluster, tools):
    tools.run(pod("short", shell("main", "sleep 100000", cluster.image)))
    with tools.following("exec", "short", "--", "sleep", "100000") as command, \
            tools.following("logs", "--follow", "short") as log:
        eventually(lambda: "sleep" in tools.execute("short", "ps").split("sleep 100000", 1)[-1], "the command to run")
        tools.delete("pod", "short")
        assert command.wait() != 0
        log.wait()
    assert is_ready(tools.get("pod", "tools"))
