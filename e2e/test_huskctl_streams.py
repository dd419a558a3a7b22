"""huskctl exec and attach with pipes, under a pty and under tmux, and huskctl port-forward. One pod."""

import concurrent.futures
import hashlib
import os
import re
import signal
import socket
import subprocess
import urllib.request

import pytest
import yaml

from harness import cri
from harness.daemon import eventually
from harness.guest_programs import installed_program_layer, sample_image
from harness.secured import Authority
from harness.terminal import PtyProgram, Tmux

HUSKCTL = cri.BUILD / "bin" / "huskctl"
FAILED = 125  # huskctl's own exit code

MEBIBYTE = 1 << 20
EDITOR = "/usr/bin/vim.tiny"
DETACH = b"\x10\x11"


@pytest.fixture(scope="module")
def editor_image(registry, huskd):
    """The sample image with a full-screen editor."""
    reference = registry.push("husk/editor", layers=[*sample_image.sample_layers(), installed_program_layer(EDITOR)])
    huskd.pull(reference)
    return reference


@pytest.fixture(scope="module")
def pod(huskd):
    return huskd.run_pod("streams", labels={"io.kubernetes.pod.name": "streams"})


@pytest.fixture(scope="module")
def container(pod, editor_image):
    return pod.run("main", editor_image, ["/bin/sleep", "100000"], labels={"io.kubernetes.pod.name": "streams"})


def command(huskd, *arguments):
    return [str(HUSKCTL), "--endpoint", f"unix://{huskd.socket}", *arguments]


def run(huskd, *arguments, stdin=None):
    """(exit code, stdout, stderr)"""
    result = subprocess.run(command(huskd, *arguments), capture_output=True, timeout=300,
                            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}))
    return result.returncode, result.stdout, result.stderr


# ---- exec with pipes ------------------------------------------------------------------------------------------------

def test_exec_keeps_outputs_apart_and_has_the_exit_code(huskd, container):
    script = "echo out; echo error >&2; test -t 0 || test -t 1 || exit 42"
    for name in ("main", "streams/main", container.id, container.id[:10]):
        assert run(huskd, "exec", name, "--", "/bin/sh", "-c", script) == (42, b"out\n", b"error\n"), name
    assert run(huskd, "exec", "main", "--", "/bin/sh", "-c", "kill -9 $$")[0] == 137
    assert run(huskd, "exec", "main", "/bin/true") == (0, b"", b"")
    code, out, _ = run(huskd, "exec", "--timeout", "60", "main", "--", "/bin/sh", "-c", "echo timed; exit 3")
    assert (code, out) == (3, b"timed\n")


def test_exec_takes_input_to_its_end(huskd, container):
    assert run(huskd, "exec", "-i", "main", "cat", stdin=b"a\n") == (0, b"a\n", b"")
    assert run(huskd, "exec", "-i", "main", "cat", stdin=b"") == (0, b"", b"")
    # A file and /dev/null are inputs too, which epoll does not know.
    with open(__file__, "rb") as file:
        result = subprocess.run(command(huskd, "exec", "-i", "main", "cat"), stdin=file, capture_output=True, timeout=300)
    with open(__file__, "rb") as file:
        assert result.stdout == file.read()
    # Without -i the input is not this command's.
    assert run(huskd, "exec", "main", "cat", stdin=b"not for you") == (0, b"", b"")


def test_a_large_input_arrives_whole_and_comes_back(huskd, container):
    data = os.urandom(16 * MEBIBYTE)
    code, out, _ = run(huskd, "exec", "-i", "main", "sha256sum", stdin=data)
    assert code == 0
    assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()
    code, out, _ = run(huskd, "exec", "-i", "main", "cat", stdin=data)
    assert code == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_output_comes_as_it_is_written(huskd, container):
    with subprocess.Popen(command(huskd, "exec", "-i", "main", "--", "/bin/sh", "-c", "echo first; read x; echo got $x"),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdin.write(b"on\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got on\n"
        # The input is still open; that holds nothing up.
        assert process.wait(60) == 0
        process.stdin.close()


def test_a_reader_that_goes_ends_it_as_it_ends_others(huskd, container):
    with subprocess.Popen(command(huskd, "exec", "main", "yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(60) == -signal.SIGPIPE
        assert process.stderr.read() == b""
    eventually(lambda: container.execute("pidof", "yes")[0] != 0, "the command to be gone")


def test_what_cannot_be_streamed_is_named(huskd, pod, container, editor_image):
    code, _, err = run(huskd, "exec", "nobody", "--", "true")
    assert code == FAILED and b'no container "nobody"' in err and b"streams/main" in err
    ended = pod.run("ended", editor_image, ["/bin/true"])
    ended.wait()
    for words in (["exec", "ended", "--", "true"], ["attach", "ended"]):
        code, _, err = run(huskd, *words)
        assert code == FAILED and b"ended" in err and b"not running: exited" in err, (words, err)
    # Of two attempts the newer one is meant.
    again = pod.run("ended", editor_image, ["/bin/sleep", "100000"], attempt=1)
    assert run(huskd, "exec", "ended", "--", "echo", "again") == (0, b"again\n", b"")
    again.pod.client.StopContainer(container_id=again.id, timeout=0)
    code, _, err = run(huskd, "exec", "-it", "main", "--", "true")
    assert code == FAILED and b"no terminal" in err
    code, _, err = run(huskd, "exec", "main", "--", "/no/such/program")
    assert code == FAILED and b"/no/such/program" in err
    code, _, err = run(huskd, "attach", "-i", "main")
    assert code == FAILED and b"stdin" in err
    code, _, err = run(huskd, "exec", "--timeout", "5", "-i", "main", "--", "true")
    assert code == 2 and b"--timeout" in err


# ---- exec with a terminal -------------------------------------------------------------------------------------------

def test_a_terminal_has_its_size_and_is_as_before_afterwards(huskd, container):
    # Of a terminal that has no size yet stty complains.
    script = """size() { until [ "$(stty size 2>/dev/null)" = "$1" ]; do sleep 0.1; done; echo size $1; }
                size "24 80"; size "43 132"; read line; echo got $line; exit 42"""
    with PtyProgram(command(huskd, "exec", "-it", "main", "--", "/bin/sh", "-c", script)) as program:
        program.wait_for(b"size 24 80\r\n")
        assert program.is_raw()
        program.resize(132, 43)
        program.wait_for(b"size 43 132\r\n")
        program.type(b"typed\r")
        program.wait_for(b"typed\r\ngot typed\r\n")
        assert program.wait() == 42


def test_keys_that_make_signals_are_the_commands(huskd, container):
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with PtyProgram(command(huskd, "exec", "-it", "main", "--", "/bin/sh", "-c", script)) as program:
        program.wait_for(b"ready\r\n")
        program.type(b"\x03")
        program.wait_for(b"interrupted\r\n")
        assert program.wait() == 5


def test_a_terminal_without_input_leaves_the_keys_here(huskd, container):
    script = 'until [ "$(stty size 2>/dev/null)" = "24 80" ]; do sleep 0.1; done; echo ready; exec sleep 100000'
    with PtyProgram(command(huskd, "exec", "-t", "main", "--", "/bin/sh", "-c", script)) as program:
        program.wait_for(b"ready\r")
        assert not program.is_raw()
        program.type(b"\x03")
        assert program.wait() == -signal.SIGINT


@pytest.mark.parametrize("deadly", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_restores_the_terminal_and_ends_the_command(huskd, container, deadly):
    with PtyProgram(command(huskd, "exec", "-it", "main", "--", "/bin/sh", "-c", "echo pid $$.; exec sleep 100000")) as program:
        program.wait_for(b".\r\n")
        pid = program.output.split(b"pid ")[1].split(b".")[0].decode()
        assert program.is_raw()
        os.kill(program.pid, deadly)
        assert program.wait() == -deadly
    eventually(lambda: container.execute("/bin/sh", "-c", f"test -d /proc/{pid}")[0] != 0, "the command to be gone")


def test_a_full_screen_program_under_tmux(huskd, container):
    text = "".join(f"this is line {number}\n" for number in range(1, 81))
    assert run(huskd, "exec", "-i", "main", "--", "/bin/sh", "-c", "cat > /tmp/text", stdin=text.encode())[0] == 0

    def shows(lines, height):
        # Above the status line is the text, below it the line for commands.
        return (len(lines) == height and lines[:height - 2] == text.splitlines()[:height - 2]
                and lines[height - 2].startswith("/tmp/text"))
    with Tmux(huskd.state / "tmux", 100, 30) as tmux:
        tmux.command(command(huskd, "exec", "-it", "main", "--", EDITOR, "-u", "NONE", "-c", "set laststatus=2", "/tmp/text"))
        tmux.wait_for(lambda lines: shows(lines, 30), "the text on 30 lines")
        tmux.resize(70, 40)
        tmux.wait_for(lambda lines: shows(lines, 40), "the text on 40 lines")
        tmux.resize(90, 12)
        tmux.wait_for(lambda lines: shows(lines, 12), "the text on 12 lines")
        tmux.type("Gofrom a terminal")
        tmux.press("Escape")
        tmux.wait_for(lambda lines: lines[9] == "from a terminal", "the new line at the end")
        tmux.type(":wq")
        tmux.press("Enter")
        tmux.wait_for(lambda lines: any(line.endswith("ended with 0") for line in lines), "huskctl to end")
        # The shell has its terminal back: it echoes, and knows lines.
        tmux.type("echo back $((6 * 7))")
        tmux.press("Enter")
        tmux.wait_for(lambda lines: "back 42" in lines, "the shell")
    assert run(huskd, "exec", "main", "--", "tail", "-n1", "/tmp/text") == (0, b"from a terminal\n", b"")


# ---- attach ---------------------------------------------------------------------------------------------------------

def test_attach_twice_and_leave_by_the_keys(huskd, pod, editor_image):
    script = """while read line; do echo got $line; test "$line" = bye && exit 5; done"""
    chat = pod.run("chat", editor_image, ["/bin/sh", "-c", script], stdin=True, tty=True)
    with PtyProgram(command(huskd, "attach", "-it", "chat")) as first, \
            PtyProgram(command(huskd, "attach", "-it", "chat")) as second:
        for program in (first, second):
            eventually(program.is_raw, "the terminal to be raw")
        first.type(b"one\r")
        first.wait_for(b"got one\r\n")
        # Who sees an answer is attached.
        second.type(b"two\r")
        for program in (first, second):
            program.wait_for(b"got two\r\n")
        first.type(DETACH)
        first.wait_for(b"detached")
        assert first.wait() == 0
        assert chat.state() == "CONTAINER_RUNNING"
        second.type(b"three\r")
        second.wait_for(b"got three\r\n")
        with PtyProgram(command(huskd, "attach", "-it", "chat"), 132, 43) as third:
            eventually(third.is_raw, "the terminal to be raw")
            third.type(b"bye\r")
            assert third.wait() == 5
        assert second.wait() == 5
        assert b"got three" not in first.output
    assert chat.wait().exit_code == 5


def test_attach_with_pipes(huskd, pod, editor_image):
    script = "while read line; do echo got $line; echo aside $line >&2; done; exit 3"
    plain = pod.run("plain", editor_image, ["/bin/sh", "-c", script], stdin=True, stdin_once=True)
    assert run(huskd, "attach", "-i", "plain", stdin=b"a\nb\n") == (3, b"got a\ngot b\n", b"aside a\naside b\n")
    assert plain.wait().exit_code == 3
    quiet = pod.run("quiet", editor_image, ["/bin/sleep", "100000"], tty=True)
    code, _, err = run(huskd, "attach", quiet.id)
    assert code == FAILED and b"with a terminal" in err


# ---- port-forward ---------------------------------------------------------------------------------------------------

class Forwarding:
    """A running huskctl port-forward."""

    def __init__(self, huskd, *arguments):
        self.process = subprocess.Popen(command(huskd, "port-forward", *arguments), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def port(self, remote):
        """Of 127.0.0.1, as it is printed."""
        for line in self.process.stdout:
            found = re.fullmatch(rf"Forwarding from 127\.0\.0\.1:(\d+) -> {remote}\n", line)
            if found:
                return int(found.group(1))
        raise AssertionError(self.process.stderr.read())

    def end(self):
        """What it has said to standard error."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == -signal.SIGINT
        return err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def get(port, path="/", host="127.0.0.1"):
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=120) as response:
        return response.read()


@pytest.fixture(scope="module")
def web(pod, editor_image):
    """An HTTP server at the pod's 127.0.0.1:8080; the digest of its large file."""
    script = """mkdir /tmp/www; echo hello from the pod > /tmp/www/index.html
                head -c 8388608 /dev/urandom > /tmp/www/large; sha256sum < /tmp/www/large
                exec httpd -f -p 127.0.0.1:8080 -h /tmp/www"""
    server = pod.run("web", editor_image, ["/bin/sh", "-c", script])
    digest = server.wait_for_log("-").split()[0]
    eventually(lambda: server.execute("/bin/sh", "-c", "netstat -ltn | grep -q 127.0.0.1:8080")[0] == 0, "the server")
    return digest


def test_port_forward_to_an_http_server(huskd, web):
    with Forwarding(huskd, "streams", ":8080", "0:8080") as forwarding:
        first, second = forwarding.port(8080), forwarding.port(8080)
        assert first != second
        assert get(first) == b"hello from the pod\n"
        assert hashlib.sha256(get(second, "/large")).hexdigest() == web
        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            assert set(threads.map(get, [first, second] * 15)) == {b"hello from the pod\n"}
        assert forwarding.end() == ""
    with Forwarding(huskd, "--address", "127.0.0.2", "streams", ":8080") as forwarding:
        line = forwarding.process.stdout.readline()
        assert get(int(re.fullmatch(r"Forwarding from 127\.0\.0\.2:(\d+) -> 8080\n", line).group(1)), host="127.0.0.2")


def test_port_forward_says_what_is_wrong(huskd, pod, web):
    with Forwarding(huskd, "streams", ":9") as forwarding:
        port = forwarding.port(9)
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            assert client.recv(1) == b""
        # It goes on.
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            client.sendall(b"anybody?")
            assert client.recv(1) == b""
        err = forwarding.end().splitlines()
        assert len(err) == 2 and all(f"127.0.0.1:{port} -> 9: " in line and "refused" in line for line in err), err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, expected in [(["streams", f"{port}:8080"], f"listen at 127.0.0.1:{port}"), (["nobody", "80"], 'no pod "nobody"'),
                                (["streams", "eighty"], 'port "eighty"'), (["--address", "here", "streams", "80"], '"here"')]:
            code, _, err = run(huskd, "port-forward", *words)
            assert code == FAILED and expected in err.decode(), (words, err)


# ---- other huskds: last, for the first is killed --------------------------------------------------------------------

def test_a_huskd_that_is_killed_is_an_error_and_the_terminal_as_before(huskd, container):
    with PtyProgram(command(huskd, "exec", "-it", "main", "--", "/bin/sh", "-c", "echo ready; exec sleep 100000")) as program, \
            subprocess.Popen(command(huskd, "exec", "-i", "main", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE) as plain:
        program.wait_for(b"ready\r\n")
        plain.stdin.write(b"through\n")
        plain.stdin.flush()
        assert plain.stdout.readline() == b"through\n"
        assert program.is_raw()
        huskd.kill()
        assert program.wait() == FAILED
        program.wait_for(b"is lost")
        assert plain.wait(60) == FAILED
        assert b"is lost" in plain.stderr.read()
        code, _, err = run(huskd, "exec", "main", "--", "true")
        assert code == FAILED and b"is huskd running?" in err
    huskd.start()
    assert run(huskd, "exec", "main", "echo", "again") == (0, b"again\n", b"")


def test_streams_go_over_tls_to_a_server_that_is_trusted(huskd, container):
    authority = Authority(huskd.root / "authority")
    certificate, key = authority.issue("streaming")
    configuration = yaml.safe_load(huskd.config_path.read_text())
    configuration["streaming"] = {"certificate": str(certificate), "key": str(key)}
    huskd.config_path.write_text(yaml.safe_dump(configuration))
    huskd.restart()
    trusting = ["exec", "--streaming-ca", str(authority.certificate), "-i", "main", "cat"]
    assert run(huskd, *trusting, stdin=b"through TLS") == (0, b"through TLS", b"")
    code, out, err = run(huskd, "exec", "main", "echo", "never")
    assert (code, out) == (FAILED, b"")
    assert b"is not trusted" in err and b"--streaming-ca" in err
