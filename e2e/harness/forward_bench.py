"""The throughput of a forwarded port, beside a connection to the same program by the pod's own address."""

import contextlib
import socket
import statistics
import sys
import time

from harness import forward, spdy

PORT = 8080
# What comes out, and what goes in. The second way is the channel's slow one.
BYTES = {"out": 1 << 30, "in": 128 << 20}
PIECE = bytes(1 << 16)


class Direct:
    def __init__(self, pod):
        self._socket = socket.create_connection((pod.address(), PORT), timeout=spdy.PATIENCE)

    def out(self, count):
        self._socket.sendall(b"give %d\n" % count)
        while count > 0:
            piece = self._socket.recv(1 << 18)
            if not piece:
                sys.exit(f"the connection to the pod ended {count} bytes too early")
            count -= len(piece)

    def into(self, count):
        self._socket.sendall(b"take %d\n" % count)
        for _ in range(count // len(PIECE)):
            self._socket.sendall(PIECE)
        if self._socket.recv(3) != b"ok\n":
            sys.exit("the pod did not take all")

    def close(self):
        self._socket.close()


class Forwarded:
    def __init__(self, pod):
        self._session = forward.Session(pod.client.PortForward(pod_sandbox_id=pod.id, port=[PORT]).url)
        self._connection = self._session.open(PORT)
        self._connection.sink = self._take
        self._came = 0

    def _take(self, data):
        self._came += len(data)

    def _wait(self, count):
        self._connection.wait(lambda _: self._came >= count, f"{count} bytes", spdy.PATIENCE + count / 2**20)
        self._came = 0

    def out(self, count):
        self._connection.write(b"give %d\n" % count)
        self._wait(count)

    def into(self, count):
        self._connection.write(b"take %d\n" % count)
        for _ in range(count // len(PIECE)):
            self._connection.write(PIECE)
        self._wait(len(b"ok\n"))

    def close(self):
        self._session.close()


def measure(pod, rounds):
    """{"out" or "in": (MB/s forwarded, MB/s direct)}: medians of rounds in turns. The pod runs serve_bytes at PORT."""
    rates = {way: ([], []) for way in BYTES}
    with contextlib.closing(Forwarded(pod)) as forwarded, contextlib.closing(Direct(pod)) as direct:
        for turn in range(rounds):
            for index, side in enumerate((forwarded, direct)):
                for way, call in (("out", side.out), ("in", side.into)):
                    begin = time.monotonic()
                    call(BYTES[way])
                    rates[way][index].append(BYTES[way] / 1e6 / (time.monotonic() - begin))
            print(f"round {turn + 1} of {rounds}: " + ", ".join(
                f"forward_{way} {values[0][-1]:.1f} and {values[1][-1]:.1f} MB/s" for way, values in rates.items()),
                file=sys.stderr)
    return {way: tuple(map(statistics.median, values)) for way, values in rates.items()}
