"""exec and attach by their URLs, over SPDY and WebSocket, with clients of the tests' own and with the Kubernetes project's. One pod."""

import concurrent.futures
import hashlib
import io
import os
import socket
import subprocess
import tarfile
import threading
import time

import grpc
import pytest

from harness import host, judge, spdy, websocket
from harness.daemon import eventually

SPDY_PROTOCOLS = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
WEBSOCKET_PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io",
                       "base64.channel.k8s.io"]
JUDGES = [("spdy", name) for name in SPDY_PROTOCOLS] + [("websocket", name) for name in WEBSOCKET_PROTOCOLS[:2]]

MEBIBYTE = 1 << 20


def size(name, default):
    """More where somebody has the time: HUSK_E2E_STREAM_<name>=..."""
    return int(os.environ.get(f"HUSK_E2E_STREAM_{name}", default))


INPUT = size("INPUT_MEBIBYTES", 128) * MEBIBYTE
OUTPUT = size("OUTPUT_MEBIBYTES", 1024) * MEBIBYTE
COMMANDS = size("COMMANDS", 100)
IDLE_SECONDS = size("IDLE_SECONDS", 12)

PIPES = ["/bin/sh", "-c", "head -c 5; echo complaint >&2; exit 42"]
# Without sizes there is nothing to wait for.
TERMINAL = ["/bin/sh", "-c", "test -t 0 && test $TERM = xterm && echo first; read line; echo got $line; exit 7"]
SIZES = ["/bin/sh", "-c", """
    test $TERM = xterm || exit 3
    until [ "$(stty size)" = "24 80" ]; do sleep 0.1; done; echo first
    until [ "$(stty size)" = "43 132" ]; do sleep 0.1; done; echo second
    read line; echo got $line; exit 7"""]


@pytest.fixture(scope="module")
def pod(huskd, image):
    return huskd.run_pod("streams")


@pytest.fixture(scope="module")
def container(pod, image):
    return pod.run("main", image, ["/bin/sleep", "100000"])


@pytest.fixture(scope="module", autouse=True)
def idle(pod, image, container):
    """Sessions on which nothing happens from the file's first test to its last: (when they were opened, sessions)."""
    quiet = pod.run("quiet", image, ["/bin/cat"], stdin=True)
    sessions = (spdy_exec(container, ["/bin/cat"], stdin=True), attach(quiet),
                websocket.Session(exec_url(container, ["/bin/cat"], stdin=True)))
    return time.monotonic(), sessions


def exec_url(container, command, stdin=False, stdout=True, stderr=True, tty=False):
    return container.pod.client.Exec(container_id=container.id, cmd=list(command), stdin=stdin, stdout=stdout,
                                     stderr=stderr and not tty, tty=tty).url


def types(stdin=False, tty=False, resize=True):
    return ["error", *(["stdin"] if stdin else []), "stdout", *([] if tty else ["stderr"]),
            *(["resize"] if tty and resize else [])]


def spdy_exec(container, command, stdin=False, tty=False, protocol="v4.channel.k8s.io", **options):
    has_sizes = protocol in SPDY_PROTOCOLS[:2]
    return spdy.Session(exec_url(container, command, stdin=stdin, tty=tty), types(stdin, tty, has_sizes), protocol,
                        **options)


def exit_code(status, protocol):
    """Of a final status, whose form depends on the protocol."""
    if not isinstance(status, dict):
        return int(status.rsplit(" ", 1)[1]) if status else 0
    if status["status"] == "Success":
        return 0
    assert status["reason"] == "NonZeroExitCode", (status, protocol)
    return int(status["details"]["causes"][0]["message"])


# ---- the matrix: protocol x pipes or terminal x input x exit code x half-close x sizes ------------------------------

@pytest.mark.parametrize("protocol", SPDY_PROTOCOLS)
def test_spdy_with_pipes(container, protocol):
    session = spdy_exec(container, PIPES, stdin=True, protocol=protocol)
    session.ping(1)
    session.write(b"hello, and more than it reads")
    assert exit_code(session.finish(), protocol) == 42
    assert (bytes(session.output["stdout"]), bytes(session.output["stderr"])) == (b"hello", b"complaint\n")
    # Each stream is answered at once, and all end before the goodbye.
    assert session.events[:4] == [("reply", name) for name in session.ids]
    assert {("end", name) for name in session.ids} < set(session.events[:session.events.index(("goaway",))])

    half_closed = spdy_exec(container, ["/bin/cat"], stdin=True, protocol=protocol, early=True)
    half_closed.write(b"until the end")
    half_closed.end()
    assert exit_code(half_closed.finish(), protocol) == 0
    assert half_closed.output["stdout"] == b"until the end"


@pytest.mark.parametrize("protocol", SPDY_PROTOCOLS)
def test_spdy_with_a_terminal(container, protocol):
    has_sizes = protocol in SPDY_PROTOCOLS[:2]
    session = spdy_exec(container, SIZES if has_sizes else TERMINAL, stdin=True, tty=True, protocol=protocol)
    if has_sizes:
        session.resize(80, 24)
    session.wait_for_output(b"first\r\n")
    if has_sizes:
        session.resize(1, 1)
        session.resize(132, 43)
        session.wait_for_output(b"second\r\n")
    session.write(b"typed\r")
    assert exit_code(session.finish(), protocol) == 7
    assert session.output["stdout"].endswith(b"typed\r\ngot typed\r\n"), session.output


@pytest.mark.parametrize("protocol", WEBSOCKET_PROTOCOLS)
def test_websocket_with_pipes(container, protocol):
    session = websocket.Session(exec_url(container, PIPES, stdin=True), f"unknown.channel.k8s.io, {protocol}")
    assert session.protocol == protocol
    session.send_frame(websocket.PING, b"hello?")
    session.write(b"hello, and more than it reads")
    assert exit_code(session.finish(), protocol) == 42
    assert (session.output[websocket.STDOUT], session.output[websocket.STDERR]) == (b"hello", b"complaint\n")
    assert session.pongs == [b"hello?"]
    assert session.close_code == 1000


def test_websocket_half_close(container):
    session = websocket.Session(exec_url(container, ["/bin/cat"], stdin=True))
    session.write(b"until the end")
    session.end()
    assert session.finish()["status"] == "Success"
    assert session.output[websocket.STDOUT] == b"until the end"


@pytest.mark.parametrize("protocol", WEBSOCKET_PROTOCOLS)
def test_websocket_with_a_terminal(container, protocol):
    session = websocket.Session(exec_url(container, SIZES, stdin=True, tty=True), protocol)
    session.resize(80, 24)
    session.wait_for_output(b"first\r\n")
    session.resize(132, 43)
    session.wait_for_output(b"second\r\n")
    session.write(b"typed\r")
    assert exit_code(session.finish(), protocol) == 7
    assert session.output[websocket.STDOUT].endswith(b"typed\r\ngot typed\r\n")


@pytest.mark.parametrize("transport, protocol", JUDGES)
def test_the_kubernetes_client_with_pipes(container, transport, protocol):
    options = ["-transport", transport, "-protocols", protocol]
    code, out, err = judge.run(exec_url(container, PIPES, stdin=True), *options, "-stdin", stdin=b"hello, more")
    if protocol in ("v4.channel.k8s.io", "v5.channel.k8s.io"):
        assert (code, out, err) == (42, b"hello", b"complaint\n")
    elif protocol != "channel.k8s.io":
        # These protocols have no exit code, only words.
        assert (code, out) == (254, b"hello")
        assert err.startswith(b"complaint\n") and b"the command ended with exit code 42" in err
    else:
        # Its client does not wait for the words.
        assert out == b"hello" and err.startswith(b"complaint\n")
    # Of these the client does not tell that the input has ended.
    if (transport, protocol) not in [("websocket", "v4.channel.k8s.io"), ("spdy", "channel.k8s.io")]:
        done = judge.run(exec_url(container, ["/bin/cat"], stdin=True), *options, "-stdin", stdin=b"until the end")
        assert done == (0, b"until the end", b"")


@pytest.mark.parametrize("transport, protocol", [JUDGES[0], JUDGES[4], JUDGES[5]])
def test_the_kubernetes_client_with_a_terminal(container, transport, protocol):
    url = exec_url(container, SIZES, stdin=True, tty=True)
    process = subprocess.Popen(judge.command(url, "-transport", transport, "-protocols", protocol, "-stdin", "-tty",
                                             "-sizes", "80x24,132x43", "-mark", "first"),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        watchdog = threading.Timer(300, process.kill)
        watchdog.start()
        out = b""
        while b"second\r\n" not in out:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, (out, process.stderr.read())
            out += piece
        process.stdin.write(b"typed\r")
        process.stdin.flush()
        out += process.stdout.read()
        assert process.wait() == 7, process.stderr.read()
        watchdog.cancel()
    assert out.endswith(b"typed\r\ngot typed\r\n")


# ---- what must not go wrong -----------------------------------------------------------------------------------------

def test_many_short_commands(container):
    def echo(number):
        text = f"a{number}\n".encode()
        session = spdy_exec(container, ["/bin/cat"], stdin=True, early=True)
        session.write(text)
        session.end()
        return exit_code(session.finish(), session.protocol) == 0 and session.output["stdout"] == text
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert all(threads.map(echo, range(COMMANDS)))


def patience(count):
    """For so many bytes, however slow the machine."""
    return spdy.PATIENCE + count / MEBIBYTE


def test_a_large_input_arrives_whole(container):
    piece = os.urandom(MEBIBYTE)
    expected = hashlib.sha256()
    session = spdy_exec(container, ["sha256sum"], stdin=True)
    for _ in range(INPUT // MEBIBYTE):
        expected.update(piece)
        session.write(piece)
    session.end()
    assert exit_code(session.finish(patience(INPUT)), session.protocol) == 0
    assert session.output["stdout"].split()[0].decode() == expected.hexdigest()


def test_str_03_a_large_output_takes_no_memory(huskd, container):
    count, most, before = 0, 0, host.resident_bytes(huskd.pid)

    def sink(data):
        nonlocal count, most
        count += len(data)
        most = max(most, host.resident_bytes(huskd.pid))
    # busybox's head would take longer than all that is tested here: it goes byte by byte.
    session = spdy_exec(container, ["dd", "if=/dev/zero", "bs=65536", f"count={OUTPUT // 65536}"], sinks={"stdout": sink})
    assert exit_code(session.finish(patience(OUTPUT)), session.protocol) == 0
    assert count == OUTPUT
    assert most < before + 32 * MEBIBYTE, f"huskd grew from {before} to {most} bytes"


def tree():
    """Files as somebody may copy them, by name: large, empty, small and many, a link, a directory without files."""
    files = {"large": os.urandom(24 * MEBIBYTE), "empty": b"", "with a space": b"a space\n"}
    return {**files, **{f"deep/er/{number}": os.urandom(number * 257) for number in range(100)}}


def pack(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o640
            tar.addfile(entry, io.BytesIO(content))
        for name, kind in (("link", tarfile.SYMTYPE), ("nothing/in/it", tarfile.DIRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname = kind, 0o755, "large" if kind == tarfile.SYMTYPE else ""
            tar.addfile(entry)
    return buffer.getvalue()


def unpack(archive, files):
    """Compares what came out with `files`."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {entry.name.removeprefix("./"): entry for entry in tar}
        assert found["link"].linkname == "large" and found["nothing/in/it"].isdir()
        assert {name for name, entry in found.items() if entry.isfile()} == set(files)
        for name, content in files.items():
            assert found[name].mode == 0o640 and tar.extractfile(found[name]).read() == content, name


def test_a_tree_is_copied_in_and_out(container):
    files = tree()
    archive = pack(files)
    into = spdy_exec(container, ["/bin/sh", "-c", "mkdir /own && exec tar xmf - -C /own"], stdin=True)
    into.write(archive)
    into.end()
    assert exit_code(into.finish(), into.protocol) == 0, into.output
    out = spdy_exec(container, ["tar", "cf", "-", "-C", "/own", "."])
    assert exit_code(out.finish(), out.protocol) == 0, out.output["stderr"]
    unpack(bytes(out.output["stdout"]), files)
    # And with the Kubernetes project's client, which kubectl cp is made of.
    done = judge.run(exec_url(container, ["/bin/sh", "-c", "mkdir /theirs && exec tar xmf - -C /theirs"], stdin=True),
                     "-stdin", stdin=archive)
    assert done == (0, b"", b"")
    code, theirs, errors = judge.run(exec_url(container, ["tar", "cf", "-", "-C", "/theirs", "."]))
    assert (code, errors) == (0, b"")
    unpack(theirs, files)
    assert container.execute("rm", "-r", "/own", "/theirs")[0] == 0


def test_str_02_a_client_that_vanishes_takes_its_process_along(container):
    for vanish in (lambda session: session.close(),
                   # Input that is not read must not hide it.
                   lambda session: (session.write(bytes(2 * MEBIBYTE)), session.close())):
        session = spdy_exec(container, ["/bin/sh", "-c", "echo pid $$; exec sleep 100000"], stdin=True)
        session.wait_for_output(b"\n")
        pid = session.output["stdout"].split()[1].decode()
        assert container.execute("/bin/sh", "-c", f"test -d /proc/{pid}")[0] == 0
        vanisher = threading.Thread(target=vanish, args=(session,), daemon=True)
        vanisher.start()
        vanisher.join(5)
        session.close()
        eventually(lambda pid=pid: container.execute("/bin/sh", "-c", f"test -d /proc/{pid}")[0] != 0,
                   "the process to be gone", interval=1)


def test_str_02_a_client_that_reads_nothing_stalls_only_itself(pod, image, container):
    victim = pod.run("victim", image, ["/bin/sleep", "100000"])
    stalled = spdy_exec(victim, ["yes"])
    stalled.wait_for_output(b"y\n")
    stalled.reading.clear()
    other = spdy_exec(victim, ["/bin/echo", "through"])
    assert exit_code(other.finish(), other.protocol) == 0 and other.output["stdout"] == b"through\n"
    pod.client.StopContainer(container_id=victim.id, timeout=0)
    assert victim.state() == "CONTAINER_EXITED"
    pod.client.RemoveContainer(container_id=victim.id)
    stalled.reading.set()
    stalled.close()


def test_str_02_pings_are_answered_while_input_is_stalled(container):
    session = websocket.Session(exec_url(container, ["/bin/sleep", "100000"], stdin=True))
    session.socket.settimeout(2)
    with pytest.raises(socket.timeout):
        while True:
            session.write(bytes(65000))
    session.socket.settimeout(spdy.PATIENCE)
    while not session.pongs:
        assert session.read()
    session.socket.close()


def test_str_02_a_flood_of_sizes(container):
    session = spdy_exec(container, ["/bin/sh", "-c", "read line; stty size"], stdin=True, tty=True)
    for width in range(1, 5001):
        session.resize(width, 10)
    session.write(b"not json at all }{ \xff }", "resize")
    session.resize(77, 33)
    eventually(lambda: b"33 77" in container.execute("/bin/sh", "-c", "for t in /dev/pts/[0-9]*; do stty size < $t; done")[
        1].encode(), "the last size")
    session.write(b"\r")
    session.finish()
    assert session.output["stdout"].endswith(b"33 77\r\n")


def test_a_command_ends_with_its_container(pod, image):
    short = pod.run("short", image, ["/bin/sleep", "100000"])
    session = spdy_exec(short, ["/bin/sh", "-c", "echo begun; exec sleep 100000"])
    session.wait_for_output(b"begun\n")
    pod.client.StopContainer(container_id=short.id, timeout=0)
    assert session.finish()["status"] == "Failure"
    with pytest.raises(grpc.RpcError) as error:
        exec_url(short, ["/bin/true"])
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_program_that_is_not_there(container):
    status = spdy_exec(container, ["/no/such/program"]).finish()
    assert status["status"] == "Failure" and "/no/such/program" in status["message"]
    code, _, err = judge.run(exec_url(container, ["/no/such/program"]))
    assert code == 254 and b"/no/such/program" in err


# ---- attach ---------------------------------------------------------------------------------------------------------

def attach(container, stdin=True, tty=False, stderr=True, transport=spdy.Session):
    url = container.pod.client.Attach(container_id=container.id, stdin=stdin, stdout=True, stderr=stderr and not tty,
                                      tty=tty).url
    return spdy.Session(url, types(stdin, tty)) if transport is spdy.Session else websocket.Session(url)


def test_attach_by_several_clients(pod, image):
    chat = pod.run("chat", image, ["/bin/sh", "-c", """
        while read line; do echo got $line; echo aside $line >&2; test "$line" = bye && exit 5; done"""], stdin=True)
    first, second, third = attach(chat), attach(chat), attach(chat, stdin=False, transport=websocket.Session)
    for session in (first, second):
        session.ping(1)
    first.write(b"one\n")
    first.wait_for_output(b"got one\n")
    first.wait_for_output(b"aside one\n", "stderr")
    second.write(b"two\n")
    for session in (first, second):
        session.wait_for_output(b"got two\n")
    third.wait_for_output(b"got two\n")
    # Neither the end of a client's input nor its going is the container's business.
    first.end()
    first.close()
    second.write(b"three\n")
    second.wait_for_output(b"got three\n")
    third.wait_for_output(b"got three\n")
    assert chat.state() == "CONTAINER_RUNNING"
    code, out, _ = judge.run(chat.pod.client.Attach(container_id=chat.id, stdin=True, stdout=True, stderr=True).url,
                             "-stdin", stdin=b"bye\n")
    assert (code, out) == (0, b"got bye\n")
    assert second.finish()["status"] == "Success"
    assert third.finish()["status"] == "Success"
    assert chat.wait().exit_code == 5
    assert chat.log() == "got one\ngot two\ngot three\ngot bye\n"


def test_attach_with_stdin_once(pod, image):
    for goodbye in (lambda session: session.end(), lambda session: session.close()):
        once = pod.run(f"once-{goodbye.__code__.co_names[0]}", image, ["/bin/cat"], stdin=True, stdin_once=True)
        session = attach(once)
        session.write(b"all there is\n")
        session.wait_for_output(b"all there is\n")
        goodbye(session)
        assert once.wait().exit_code == 0
        session.close()
        assert once.log() == "all there is\n"


def test_attach_to_a_terminal(pod, image):
    terminal = pod.run("terminal", image, SIZES, stdin=True, tty=True)
    session = attach(terminal, tty=True)
    session.resize(80, 24)
    session.wait_for_output(b"first\r\n")
    session.resize(132, 43)
    session.wait_for_output(b"second\r\n")
    session.write(b"typed\r")
    assert session.finish()["status"] == "Success"
    assert session.output["stdout"].endswith(b"got typed\r\n")
    assert terminal.wait().exit_code == 7


def test_str_02_a_slow_client_of_attach_is_cut_off(pod, image):
    flood = pod.run("flood", image, ["/bin/sh", "-c", "read go; head -c 12582912 /dev/zero | tr '\\0' x; echo; echo over"],
                    stdin=True)
    session = attach(flood)
    session.ping(1)
    session.reading.clear()
    session.write(b"go\n")
    # The container does not wait for its client.
    assert flood.wait().exit_code == 0
    session.reading.set()
    status = session.finish()
    assert status["status"] == "Failure" and "reads too slowly" in status["message"]
    assert flood.log().endswith("x\nover\n") and len(flood.log()) == 12582912 + 6


def test_what_attach_refuses(huskd, pod, image, container):
    plain = pod.run("plain", image, ["/bin/sleep", "100000"], tty=True)
    for identity, fields, code, words in [
            (container.id, {}, grpc.StatusCode.INVALID_ARGUMENT, "at least one"),
            (container.id, {"stdout": True, "tty": True}, grpc.StatusCode.INVALID_ARGUMENT, "without a terminal"),
            (plain.id, {"stdout": True}, grpc.StatusCode.INVALID_ARGUMENT, "with a terminal"),
            (plain.id, {"stdout": True, "stderr": True, "tty": True}, grpc.StatusCode.INVALID_ARGUMENT, "stderr"),
            (container.id, {"stdout": True, "stdin": True}, grpc.StatusCode.INVALID_ARGUMENT, "stdin"),
            ("", {"stdout": True}, grpc.StatusCode.INVALID_ARGUMENT, "container_id"),
            ("unknown", {"stdout": True}, grpc.StatusCode.NOT_FOUND, "unknown")]:
        with pytest.raises(grpc.RpcError) as error:
            huskd.client.Attach(container_id=identity, **fields)
        assert error.value.code() == code and words in error.value.details(), fields


# ---- bad requests ---------------------------------------------------------------------------------------------------

def test_what_exec_refuses(huskd, container):
    for fields, code, words in [
            ({"stdout": True, "stderr": True, "tty": True}, grpc.StatusCode.INVALID_ARGUMENT, "stderr"),
            ({}, grpc.StatusCode.INVALID_ARGUMENT, "at least one"),
            ({"stdout": True, "cmd": []}, grpc.StatusCode.INVALID_ARGUMENT, "cmd"),
            ({"stdout": True, "container_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "container_id"),
            ({"stdout": True, "container_id": "unknown"}, grpc.StatusCode.NOT_FOUND, "unknown")]:
        with pytest.raises(grpc.RpcError) as error:
            huskd.client.Exec(**{"container_id": container.id, "cmd": ["true"], **fields})
        assert error.value.code() == code and words in error.value.details(), fields


def test_str_01_a_url_works_once_and_cannot_be_guessed(container):
    url = exec_url(container, ["/bin/true"])
    base, token = url.rsplit("/", 1)
    assert url.startswith("http://127.0.0.1:") and len(token) == 43
    assert spdy.Session(url, types()).finish()["status"] == "Success"
    other = exec_url(container, ["/bin/true"]).rsplit("/", 1)[1]
    for bad in (url, f"{base}/{'A' * 43}", f"{base}/", f"{base}/{other[:-1]}", f"{base}/..%2f{other}",
                url.replace("/exec/", "/"), f"{base.replace('/exec', '/attach')}/{other}"):
        with pytest.raises(spdy.Refused) as refused:
            spdy.Session(bad, types())
        assert refused.value.status == 404, bad
    # Tried at the wrong place it is spent.
    with pytest.raises(spdy.Refused):
        spdy.Session(f"{base}/{other}", types())


def test_upgrades_that_are_refused(container):
    url = exec_url(container, ["/bin/true"])
    with pytest.raises(spdy.Refused) as refused:
        spdy.Session(url, types(), "v9.channel.k8s.io")
    assert refused.value.status == 403
    assert refused.value.headers["X-Accepted-Stream-Protocol-Versions"] == ", ".join(SPDY_PROTOCOLS)
    for headers in ([], [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")], [("Connection", "Upgrade"), ("Upgrade", "h2c")]):
        with pytest.raises(spdy.Refused) as refused:
            spdy.upgrade(exec_url(container, ["/bin/true"]), "POST", headers)
        assert refused.value.status == 400, headers
    with pytest.raises(spdy.Refused) as refused:
        spdy.upgrade(exec_url(container, ["/bin/true"]), "DELETE", [])
    assert refused.value.status == 405
    # The client's preference counts, not the server's.
    session = spdy.Session(exec_url(container, ["/bin/true"]), types(), "v3.channel.k8s.io,v4.channel.k8s.io", method="GET")
    assert session.protocol == "v3.channel.k8s.io"
    assert session.finish() == ""


def test_many_urls_that_nobody_comes_for(huskd, container):
    urls = []
    with pytest.raises(grpc.RpcError) as error:
        for _ in range(1001):
            urls.append(exec_url(container, ["/bin/true"]))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(urls) > 900
    # Those that are there still work.
    assert spdy.Session(urls[-1], types()).finish()["status"] == "Success"


# ---- the last -------------------------------------------------------------------------------------------------------

def test_sessions_that_are_idle_live_on(container, idle):
    opened, (exec_session, attach_session, websocket_session) = idle
    time.sleep(max(0.0, opened + IDLE_SECONDS - time.monotonic()))
    for session in (exec_session, websocket_session):
        session.write(b"still here\n")
        session.wait_for_output(b"still here\n")
        session.end()
        assert session.finish()["status"] == "Success"
    attach_session.write(b"here too\n")
    attach_session.wait_for_output(b"here too\n")
    attach_session.close()
