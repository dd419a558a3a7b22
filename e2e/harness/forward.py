"""Forwarded ports over SPDY: a session whose connections are opened as a test likes, and kubectl's client in a process."""

import re
import struct
import subprocess

from harness import judge, spdy


class Connection:
    """A data stream and an error stream. What came is in `output` and `errors`; `ended`, `errors_ended` and `reset` say
    how it went."""

    def __init__(self, session, data, error):
        self._session, self.data, self.error = session, data, error
        self.output, self.errors = bytearray(), bytearray()
        self.ended = self.errors_ended = self.reset = False
        self.sink = self.output.extend

    def write(self, data):
        for begin in range(0, len(data), 65536):
            self._session.send_data(self.data, data[begin:begin + 65536])

    def end(self):
        self._session.send_data(self.data, b"", spdy.FIN)

    def give_up(self):
        self._session.send_control(spdy.RST_STREAM, struct.pack(">II", self.data, 5))

    def wait(self, check, what, seconds=spdy.PATIENCE):
        """Until check(self)."""
        self._session.wait(lambda: check(self), f"{what}; errors: {bytes(self.errors)}", seconds)
        return self

    def wait_for(self, needle):
        return self.wait(lambda connection: needle in connection.output, f"{needle!r}")

    def wait_until_over(self):
        return self.wait(lambda connection: connection.errors_ended and (connection.ended or connection.reset), "the end")


class Session(spdy.Session):
    def __init__(self, url, protocol="portforward.k8s.io"):
        self._connections = {}  # by their streams' numbers
        self._last = -1
        self._requests = 0
        super().__init__(url, [], protocol)

    def send_data(self, number, data, flags=0):
        self._send(struct.pack(">II", number, flags << 24 | len(data)) + data)

    def send_control(self, kind, payload):
        self._send(self._control(kind, payload))

    def wait(self, check, what, seconds=spdy.PATIENCE):
        self._wait(lambda: check() or ("closed",) in self.events, what, seconds)
        assert check(), f"{what}: the session is closed, {self.events[-10:]}"

    def open_stream(self, connection=None, **headers):
        """Its number. What comes on it goes to `connection`."""
        self._last += 2
        number = self._last
        if connection is not None:
            self._connections[number] = connection
        self._send(self._syn(number, list(headers.items())))
        return number

    def open(self, port):
        """As kubectl does: the stream of errors first, with nothing to say on it."""
        connection = Connection(self, 0, 0)
        headers = {"port": str(port), "requestid": str(self._requests)}
        self._requests += 1
        connection.error = self.open_stream(connection, streamtype="error", **headers)
        self.send_data(connection.error, b"", spdy.FIN)
        connection.data = self.open_stream(connection, streamtype="data", **headers)
        return connection

    def _frame(self, first, flags, payload):
        if first >> 31:
            kind, number = first & 0xFFFF, struct.unpack(">I", payload[:4])[0]
            if kind == spdy.SYN_REPLY:
                assert self._decompress.decompress(payload[4:]) == b"\0\0\0\0"
            elif kind == spdy.RST_STREAM:
                if number in self._connections:
                    self._connections[number].reset = True
                self._tell(("reset", number))
            else:
                super()._frame(first, flags, payload)
            return
        connection = self._connections[first]
        is_data = first == connection.data
        if payload:
            (connection.sink if is_data else connection.errors.extend)(payload)
        if flags & spdy.FIN and is_data:
            connection.ended = True
        elif flags & spdy.FIN:
            connection.errors_ended = True
        self._tell(("data", first))


class Judge:
    """The Kubernetes project's client, which listens on the host for each of `ports` of the pod."""

    def __init__(self, url, *ports, options=()):
        self.process = subprocess.Popen(judge.command(url, *options, "-forward", ",".join(map(str, ports))),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.local = {}
        while len(self.local) < len(ports):
            line = self.process.stdout.readline().decode()
            assert line, self.process.stderr.read().decode()
            if found := re.search(r"127\.0\.0\.1:(\d+) -> (\d+)", line):
                self.local[int(found[2])] = int(found[1])

    def stop(self):
        """What it has complained of."""
        _, complaints = self.process.communicate(timeout=spdy.PATIENCE)
        return complaints.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            print("judge:", *(piece.decode() for piece in self.process.communicate()))
