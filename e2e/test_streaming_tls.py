"""The streaming server by TLS, with a certificate of an authority of the test's own. One pod."""

import hashlib
import os
import socket
import ssl
import urllib.parse

import pytest

from harness import judge, spdy, websocket
from harness.secured import Authority

MEBIBYTE = 1 << 20
PROTOCOLS = [("spdy", "v4.channel.k8s.io"), ("websocket", "v5.channel.k8s.io")]


@pytest.fixture(scope="module")
def authority(request, tmp_path_factory):
    """Before huskd, which gets a certificate of it."""
    made = Authority(tmp_path_factory.mktemp("streaming") / "authority")
    certificate, key = made.issue("streaming")
    request.module.HUSKD_CONFIGURATION = {"streaming": {"certificate": str(certificate), "key": str(key)}}
    return made


@pytest.fixture(scope="module")
def huskd(authority, huskd):
    return huskd


@pytest.fixture(scope="module")
def container(authority, huskd, image):
    return huskd.run_pod("streams").run("main", image, ["/bin/cat"], stdin=True)


def exec_url(container, command, stdin=False, tty=False):
    url = container.pod.client.Exec(container_id=container.id, cmd=list(command), stdin=stdin, stdout=True,
                                    stderr=not tty, tty=tty).url
    assert url.startswith("https://127.0.0.1:")
    return url


@pytest.mark.parametrize("transport, protocol", PROTOCOLS)
def test_the_kubernetes_client(container, authority, transport, protocol):
    options = ["-transport", transport, "-protocols", protocol, "-ca", str(authority.certificate)]
    command = ["/bin/sh", "-c", "head -c 5; echo complaint >&2; exit 42"]
    done = judge.run(exec_url(container, command, stdin=True), *options, "-stdin", stdin=b"hello, more")
    assert done == (42, b"hello", b"complaint\n")
    data = os.urandom(8 * MEBIBYTE)
    # Both ways at once: reading and writing share the connection's TLS.
    assert judge.run(exec_url(container, ["/bin/cat"], stdin=True), *options, "-stdin", stdin=data) == (0, data, b"")


def test_attach(container, authority):
    url = container.pod.client.Attach(container_id=container.id, stdin=True, stdout=True, stderr=True).url
    session = websocket.Session(url, authority=authority.certificate)
    session.write(b"typed\n")
    session.wait_for_output(b"typed\n")
    session.socket.close()


def test_our_client_of_websocket(container, authority):
    data = os.urandom(8 * MEBIBYTE)
    session = websocket.Session(exec_url(container, ["sha256sum"], stdin=True), authority=authority.certificate)
    assert session.socket.version() in ("TLSv1.2", "TLSv1.3")
    for begin in range(0, len(data), 65536):
        session.write(data[begin:begin + 65536])
    session.end()
    assert session.finish()["status"] == "Success"
    assert session.output[websocket.STDOUT].split()[0].decode() == hashlib.sha256(data).hexdigest()
    count = 0

    def sink(piece):
        nonlocal count
        count += len(piece)
    session = websocket.Session(exec_url(container, ["dd", "if=/dev/zero", "bs=65536", "count=1024"]),
                                sinks={websocket.STDOUT: sink}, authority=authority.certificate)
    assert session.finish()["status"] == "Success"
    assert count == 64 * MEBIBYTE


def test_who_does_not_get_in(container, authority, tmp_path):
    url = exec_url(container, ["/bin/cat"], stdin=True)
    # A client that trusts somebody else.
    other = Authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        websocket.Session(url, authority=other.certificate)
    code, _, words = judge.run(url, "-ca", str(other.certificate))
    assert code == 254 and b"certificate signed by unknown authority" in words
    # One without TLS gets no answer of HTTP.
    parsed = urllib.parse.urlsplit(url)
    with socket.create_connection((parsed.hostname, parsed.port), timeout=spdy.PATIENCE) as plain:
        plain.sendall(f"GET {parsed.path} HTTP/1.1\r\nHost: husk\r\n\r\n".encode())
        answer = b""
        try:
            while piece := plain.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1" not in answer
    # None of them has spent the URL.
    session = websocket.Session(url, authority=authority.certificate)
    session.end()
    assert session.finish()["status"] == "Success"
