"""Ports of a pod over SPDY and WebSocket, with clients of the tests' own and with the Kubernetes project's. One pod."""

import contextlib
import hashlib
import os
import socket
import struct
import threading
import zlib

import grpc
import pytest

from harness import forward, guest_programs, host, spdy, websocket
from harness.daemon import eventually

MEBIBYTE = 1 << 20
VOLUME = int(os.environ.get("HUSK_E2E_STREAM_MEBIBYTES", "64")) * MEBIBYTE
CONNECTIONS = 1000

# What listens in the pod: e2e/port_server.c.
FIRST = 7000
ECHO, ECHO6, DIGEST, ENDS_FIRST, DEAF, RESETS, ENDLESS = range(FIRST, FIRST + 7)
NOBODY = FIRST + 100


@pytest.fixture(scope="module")
def image(huskd, registry):
    return guest_programs.pulled_image(huskd, registry, "husk/ports", ["port_server"])


@pytest.fixture(scope="module")
def pod(huskd, image):
    return huskd.run_pod("ports")


@pytest.fixture(scope="module")
def server(pod, image):
    container = pod.run("server", image, ["/port_server", str(FIRST)])
    container.wait_for_log("listening")
    return container


def url(pod, *ports):
    return pod.client.PortForward(pod_sandbox_id=pod.id, port=list(ports)).url


@pytest.fixture
def session(pod, server):
    opened = forward.Session(url(pod))
    yield opened
    opened.close()


def guest_sockets(server, port):
    """Connections to a port of the pod that its agent has."""
    _, table, _ = server.execute("/bin/cat", "/proc/net/tcp", "/proc/net/tcp6")
    rows = [line.split() for line in table.splitlines() if len(line.split()) > 3 and ":" in line.split()[1]]
    # ESTABLISHED, CLOSE_WAIT
    return sum(int(row[2].rsplit(":", 1)[1], 16) == port and row[3] in ("01", "08") for row in rows)


def resident(huskd):
    return int(host.read_text(f"/proc/{huskd.pid}/status").split("VmRSS:")[1].split()[0]) // 1024


def threads(huskd):
    return int(host.read_text(f"/proc/{huskd.pid}/status").split("Threads:")[1].split()[0])


# ---- bytes and ends -------------------------------------------------------------------------------------------------

def test_bytes_go_both_ways_in_flat_memory(huskd, session):
    connection = session.open(ECHO)
    sent, heard, count, most, before = hashlib.sha256(), hashlib.sha256(), 0, 0, resident(huskd)

    def sink(data):
        nonlocal count, most
        heard.update(data)
        count += len(data)
        most = max(most, resident(huskd))
    connection.sink = sink
    piece = os.urandom(MEBIBYTE)
    for _ in range(VOLUME // MEBIBYTE):
        sent.update(piece)
        connection.write(piece)
    connection.end()
    connection.wait(lambda it: it.ended and it.errors_ended, "the echo's end", 900)
    assert (count, heard.hexdigest()) == (VOLUME, sent.hexdigest())
    assert not connection.errors and not connection.reset
    assert most < before + 32, f"huskd grew from {before} to {most} MiB"


def test_the_client_may_end_first(session):
    connection = session.open(DIGEST)
    data = os.urandom(3 * MEBIBYTE)
    connection.write(data)
    connection.end()
    connection.wait_until_over()
    assert connection.output == f"{len(data)} {zlib.adler32(data)}\n".encode()


def test_the_program_may_end_first(session, server):
    connection = session.open(ENDS_FIRST)
    connection.wait(lambda it: it.ended, "the program's end")
    assert connection.output == b"all that I say\n" and not connection.errors_ended
    data = os.urandom(MEBIBYTE)
    connection.write(data)
    connection.end()
    connection.wait_until_over()
    server.wait_for_log(f"heard {len(data)} {zlib.adler32(data)}\n")


def test_a_listener_of_ipv6_only(session):
    connection = session.open(ECHO6)
    connection.write(b"six")
    connection.wait_for(b"six")
    connection.end()
    connection.wait_until_over()


def test_a_reset_is_not_taken_for_an_end(session):
    connection = session.open(RESETS)
    connection.write(b"x")
    connection.wait_until_over()
    assert connection.reset and not connection.ended
    assert b"reset" in connection.errors


# ---- what must be refused -------------------------------------------------------------------------------------------

def test_str_04_ports_that_are_none_and_where_nobody_listens(huskd, pod, session):
    for port in (0, -1, 65536):
        with pytest.raises(grpc.RpcError) as error:
            huskd.client.PortForward(pod_sandbox_id=pod.id, port=[ECHO, port])
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and f"not {port}" in error.value.details()
    for port in (0, 65536, "http", -80):
        connection = session.open(port).wait_until_over()
        assert b"port: expected 1 to 65535" in connection.errors and connection.reset, port
    # Never the host's loopback: not even where somebody listens at that port there.
    with socket.create_server(("127.0.0.1", 0)) as of_the_host:
        of_the_host.settimeout(1)
        for port in (NOBODY, of_the_host.getsockname()[1]):
            connection = session.open(port).wait_until_over()
            assert f"port {port}".encode() in connection.errors and b"refused" in connection.errors
            assert connection.reset and not connection.output
        with pytest.raises(socket.timeout):
            of_the_host.accept()
    # The session goes on.
    alive = session.open(ECHO)
    alive.write(b"still here")
    alive.wait_for(b"still here")


def test_str_04_headers_that_make_no_connection(pod, session):
    for headers, words in [
            ({"streamtype": "error", "port": str(ECHO)}, b"requestid"),
            ({"streamtype": "error", "requestid": "a"}, b"port"),
            ({"streamtype": "error", "requestid": "a" * 300, "port": str(ECHO)}, b"requestid")]:
        connection = forward.Connection(session, 0, 0)
        session.open_stream(connection, **headers)
        connection.wait(lambda it, words=words: words in it.errors and it.errors_ended, f"words on {headers}")
    for headers in ({"streamtype": "stdin", "requestid": "b", "port": str(ECHO)}, {"requestid": "b", "port": str(ECHO)},
                    {"streamtype": "data", "port": str(ECHO)}):
        number = session.open_stream(**headers)
        session.wait(lambda number=number: ("reset", number) in session.events, f"the reset of {headers}")
    # The same id twice at a time.
    connection = session.open(ECHO)
    number = session.open_stream(streamtype="data", requestid="0", port=str(ECHO))
    session.wait(lambda: ("reset", number) in session.events, "the reset of the second one")
    connection.write(b"the first one lives")
    connection.wait_for(b"the first one lives")
    # Only what was asked for when the URL was made.
    limited = forward.Session(url(pod, DIGEST))
    assert b"not one of those" in limited.open(ECHO).wait_until_over().errors
    limited.close()


def test_streams_that_stay_alone(session):
    error, data = forward.Connection(session, 0, 0), forward.Connection(session, 0, 0)
    session.open_stream(error, streamtype="error", requestid="lonely", port=str(ECHO))
    number = session.open_stream(data, streamtype="data", requestid="lonely too", port=str(ECHO))
    error.wait(lambda it: b"streamtype data did not come" in it.errors, "the words")
    session.wait(lambda: ("reset", number) in session.events, "the reset")


def test_what_the_call_refuses(huskd, image):
    stopped = huskd.run_pod("stopped")
    address = url(stopped)
    stopped.stop()
    for identity, code, words in [("", grpc.StatusCode.INVALID_ARGUMENT, "pod_sandbox_id"),
                                  ("unknown", grpc.StatusCode.NOT_FOUND, "unknown"),
                                  (stopped.id, grpc.StatusCode.FAILED_PRECONDITION, "not ready")]:
        with pytest.raises(grpc.RpcError) as error:
            huskd.client.PortForward(pod_sandbox_id=identity)
        assert error.value.code() == code and words in error.value.details()
    # Stopped after the URL was made.
    late = forward.Session(address)
    late._wait(lambda: ("goaway",) in late.events, "the goodbye")
    late.close()
    stopped.remove()


def test_protocols_that_are_refused(pod):
    for protocol in ("v4.channel.k8s.io", "v9.portforward.k8s.io"):
        with pytest.raises(spdy.Refused) as refused:
            forward.Session(url(pod), protocol)
        assert refused.value.status == 403
        assert refused.value.headers["X-Accepted-Stream-Protocol-Versions"] == "portforward.k8s.io"


# ---- many, slow and vanishing ones ----------------------------------------------------------------------------------

def test_a_thousand_connections_in_one_session(huskd, session, server):
    before, threads_before = resident(huskd), threads(huskd)
    connections = [session.open(ECHO) for _ in range(CONNECTIONS)]
    for number, connection in enumerate(connections):
        connection.write(f"connection {number};".encode())
    for number, connection in enumerate(connections):
        connection.wait_for(f"connection {number};".encode())
    assert guest_sockets(server, ECHO) == CONNECTIONS
    assert threads(huskd) <= threads_before + 8
    for number, connection in enumerate(connections):
        connection.write(b"goodbye")
        connection.end()
    for number, connection in enumerate(connections):
        connection.wait_until_over()
        assert connection.output == f"connection {number};goodbye".encode()
        assert not connection.errors and not connection.reset
    eventually(lambda: guest_sockets(server, ECHO) == 0, "the connections to be gone in the guest")
    assert resident(huskd) < before + 64


def test_a_program_that_does_not_read_holds_up_its_own_connection(session):
    deaf, quick = session.open(DEAF), session.open(ECHO)
    # More than the kernels hold there, less than may lie in huskd for the whole session.
    deaf.write(bytes(2 * MEBIBYTE))
    for turn in range(10):
        quick.write(f"turn {turn};".encode())
        quick.wait_for(f"turn {turn};".encode())
    deaf.give_up()
    quick.end()
    quick.wait_until_over()


def test_a_client_that_gives_up_one_connection(session, server):
    given_up, kept = session.open(ENDLESS), session.open(ECHO)
    given_up.sink = lambda data: None
    kept.write(b"kept")
    kept.wait_for(b"kept")
    eventually(lambda: guest_sockets(server, ENDLESS) == 1, "the connection in the guest")
    given_up.give_up()
    eventually(lambda: guest_sockets(server, ENDLESS) == 0, "its end in the guest")
    kept.write(b" on")
    kept.wait_for(b"kept on")


def test_a_client_that_reads_nothing_stalls_only_itself(huskd, pod, server, session):
    stalled = forward.Session(url(pod))
    stalled.reading.clear()
    connection = stalled.open(ENDLESS)
    connection.sink = lambda data: None
    eventually(lambda: guest_sockets(server, ENDLESS) == 1, "the connection in the guest")
    before = resident(huskd)
    other = session.open(DIGEST)
    other.write(bytes(4 * MEBIBYTE))
    other.end()
    other.wait_until_over()
    assert resident(huskd) < before + 32
    stalled.reading.set()
    stalled.close()
    eventually(lambda: guest_sockets(server, ENDLESS) == 0, "the connection to be gone in the guest")


def test_a_client_that_vanishes_takes_its_connections_along(pod, server):
    for port, write in ((ECHO, b"hello"), (DEAF, bytes(16 * MEBIBYTE)), (ENDLESS, b"")):
        vanishing = forward.Session(url(pod))
        connection = vanishing.open(port)
        connection.sink = lambda data: None
        eventually(lambda port=port: guest_sockets(server, port) > 0, "the connection in the guest")

        def send(connection=connection, write=write):
            with contextlib.suppress(OSError):
                connection.write(write)
        # Input that nobody takes must not hide it.
        writer = threading.Thread(target=send, daemon=True)
        writer.start()
        writer.join(3)
        vanishing.close()
        writer.join(60)
        eventually(lambda port=port: guest_sockets(server, port) == 0, f"the connections to {port} to be gone")


# ---- WebSocket ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_websocket(pod, server, protocol):
    session = websocket.Session(f"{url(pod)}?port={ECHO}&port={ECHO6}&ports={NOBODY}", protocol)
    assert session.protocol == protocol
    session.write(b"to the second", 2)
    session.write(b"to the first", 0)
    for channel, port, words in ((2, ECHO6, b"to the second"), (0, ECHO, b"to the first")):
        session.wait_for_output(words, channel)
        assert session.output[channel] == struct.pack("<H", port) + words
    session.wait_for_output(b"refused", 5)
    assert session.output[5].startswith(struct.pack("<H", NOBODY)) and session.output[4] == struct.pack("<H", NOBODY)
    assert session.output[1] == struct.pack("<H", ECHO)
    session.socket.close()
    eventually(lambda: guest_sockets(server, ECHO) == 0, "the connections to be gone in the guest")


def test_websocket_ends_with_its_last_connection(pod, server):
    # The ports of the call, and a query that says nothing then.
    session = websocket.Session(f"{url(pod, ENDS_FIRST, NOBODY)}?port={ECHO}", "v4.channel.k8s.io")
    while session.read():
        pass
    assert session.close_code == 1000
    assert session.output[0] == struct.pack("<H", ENDS_FIRST) + b"all that I say\n"
    session.socket.close()
    for query in ("", "?port=0", "?port=65536", "?port=http", "?" + "&".join(["port=80"] * 128)):
        with pytest.raises(spdy.Refused) as refused:
            websocket.Session(url(pod) + query, "v4.channel.k8s.io")
        assert refused.value.status == 400, query
    with pytest.raises(spdy.Refused) as refused:
        websocket.Session(f"{url(pod)}?port={ECHO}", "v5.channel.k8s.io")
    assert refused.value.status == 403


# ---- the Kubernetes project's client --------------------------------------------------------------------------------

def test_the_kubernetes_client(pod, server):
    with forward.Judge(url(pod), ECHO, ECHO6, DIGEST) as judge:
        def connect(port):
            return socket.create_connection(("127.0.0.1", judge.local[port]), timeout=spdy.PATIENCE)
        data = os.urandom(8 * MEBIBYTE)
        with connect(DIGEST) as digest:
            digest.sendall(data)
            digest.shutdown(socket.SHUT_WR)
            assert digest.makefile().read() == f"{len(data)} {zlib.adler32(data)}\n"
        connections = [connect((ECHO, ECHO6)[number % 2]) for number in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(f"{number}\n".encode())
        for number, connection in enumerate(connections):
            with connection, connection.makefile() as lines:
                assert lines.readline() == f"{number}\n"
                connection.shutdown(socket.SHUT_WR)
                assert lines.read() == ""
        assert "an error occurred" not in judge.stop()
    with forward.Judge(url(pod), NOBODY) as judge:
        with socket.create_connection(("127.0.0.1", judge.local[NOBODY]), timeout=spdy.PATIENCE) as refused:
            assert refused.recv(1) == b""
        complaints = judge.stop()
        assert f"port {NOBODY}" in complaints and "refused" in complaints
    eventually(lambda: guest_sockets(server, ECHO) == 0, "the connections to be gone in the guest")


# ---- the end of huskd and of the pod --------------------------------------------------------------------------------

def test_a_huskd_that_was_killed_leaves_no_connection(huskd, pod, server):
    session = forward.Session(url(pod))
    for port in (ECHO, ECHO6, ENDLESS):
        session.open(port).sink = lambda data: None
    eventually(lambda: all(guest_sockets(server, port) == 1 for port in (ECHO, ECHO6, ENDLESS)), "the connections")
    huskd.kill()
    session.close()
    huskd.start()
    for port in (ECHO, ECHO6, ENDLESS):
        eventually(lambda port=port: guest_sockets(server, port) == 0, "the connections to be gone")
    again = forward.Session(url(pod))
    connection = again.open(ECHO)
    connection.write(b"again")
    connection.wait_for(b"again")
    again.close()


def test_the_pods_end_is_the_sessions(huskd, image):
    short = huskd.run_pod("short")
    container = short.run("server", image, ["/port_server", str(FIRST)])
    container.wait_for_log("listening")
    session = forward.Session(url(short))
    connection = session.open(ECHO)
    connection.write(b"hello")
    connection.wait_for(b"hello")
    short.remove()
    connection.wait(lambda it: it.errors_ended and it.reset, "the connection's end")
    assert b"stopped" in connection.errors
    session._wait(lambda: ("goaway",) in session.events, "the goodbye")
    session.close()
