"""A small SPDY/3.1 client of exec, attach and port-forward, made from the protocol's facts. A thread reads; what came is waited for.
Not by TLS: a connection of Python's ssl module is not for two threads at once."""

import http.client
import json
import socket
import ssl
import struct
import threading
import urllib.parse
import zlib

PATIENCE = 120.0

_WORDS = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age
allow authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since
if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate
proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning
www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin""".split()
_TEXT = ("100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
         "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
         "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
         "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
         "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
         "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.")
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS) + _TEXT.encode()

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1


class Refused(Exception):
    """The server answered the upgrade with another status."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status}: {body}")
        self.status, self.headers, self.body = status, headers, body


def connect(url, authority=None):
    """(connection, path); by TLS for https, to a server that the certificates in the file `authority` vouch for."""
    parsed = urllib.parse.urlsplit(url)
    connection = socket.create_connection((parsed.hostname, parsed.port), timeout=PATIENCE)
    if parsed.scheme == "https":
        connection = ssl.create_default_context(cafile=authority).wrap_socket(connection, server_hostname=parsed.hostname)
    return connection, parsed.path + (f"?{parsed.query}" if parsed.query else "")


def request(method, path, headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: husk", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode()


def read_head(connection):
    """(status, headers, bytes behind the head)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        assert piece, f"the server closed after {data!r}"
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    status, *lines = head.decode().split("\r\n")
    headers = http.client.HTTPMessage()
    for line in lines:
        name, value = line.split(":", 1)
        headers[name] = value.strip()
    return int(status.split()[1]), headers, rest


def upgrade(url, method, headers, early=b"", authority=None):
    """(connection, headers of the answer, bytes behind it); `early` goes out with the request."""
    connection, path = connect(url, authority)
    connection.sendall(request(method, path, headers) + early)
    status, answer, rest = read_head(connection)
    if status == 101:
        return connection, answer, rest
    with connection:
        while piece := connection.recv(65536):
            rest += piece
    raise Refused(status, answer, rest.decode())


class Session:
    """One command. Output is gathered in `output`, by stream type, unless a stream stands in `sinks`: then it goes to
    that function."""

    def __init__(self, url, types, protocol="v4.channel.k8s.io", sinks=None, early=False, method="POST"):
        self._compress = zlib.compressobj(zdict=DICTIONARY)
        self._decompress = zlib.decompressobj(zdict=DICTIONARY)
        self._sinks = sinks or {}
        self._write_lock = threading.Lock()
        self._changed = threading.Condition()
        self.ids = {name: 2 * index + 1 for index, name in enumerate(types)}
        self._types = {number: name for name, number in self.ids.items()}
        self.output = {name: bytearray() for name in types}
        self.events = []  # in order: ("reply", type), ("data", type), ("end", type), ("reset", id), ("goaway",), ("closed",)
        self._pongs = set()
        opening = b"".join(self._syn(number, [("streamtype", name)]) for name, number in self.ids.items())
        headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"),
                   *(("X-Stream-Protocol-Version", name) for name in protocol.split(","))]
        self.socket, self.headers, rest = upgrade(url, method, headers, opening if early else b"")
        self.protocol = self.headers["X-Stream-Protocol-Version"]
        self._reader = threading.Thread(target=self._read, args=(rest,), daemon=True)
        self.reading = threading.Event()
        self.reading.set()
        self._reader.start()
        if not early:
            self._send(opening)

    def _syn(self, number, headers):
        block = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(part)) + part.encode() for header in headers for part in header)
        block = self._compress.compress(block) + self._compress.flush(zlib.Z_SYNC_FLUSH)
        return self._control(SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block)

    @staticmethod
    def _control(kind, payload):
        return struct.pack(">HHI", 0x8003, kind, len(payload)) + payload

    def _send(self, data):
        with self._write_lock:
            self.socket.sendall(data)

    def write(self, data, name="stdin"):
        for begin in range(0, len(data), 65536):
            piece = data[begin:begin + 65536]
            self._send(struct.pack(">II", self.ids[name], len(piece)) + piece)

    def end(self, name="stdin"):
        self._send(struct.pack(">II", self.ids[name], FIN << 24))

    def resize(self, width, height):
        self.write(json.dumps({"Width": width, "Height": height}).encode() + b"\n", "resize")

    def ping(self, number):
        """Until the echo."""
        self._send(self._control(PING, struct.pack(">I", number)))
        self._wait(lambda: number in self._pongs, f"the echo of ping {number}")

    def _exactly(self, count, data):
        while len(data) < count:
            self.reading.wait()
            try:
                piece = self.socket.recv(1 << 18)
            except TimeoutError:
                # A session may be idle. Whoever waits for something has a limit.
                continue
            if not piece:
                raise EOFError
            data += piece
        taken = bytes(data[:count])
        del data[:count]
        return taken

    def _read(self, rest):
        data = bytearray(rest)
        try:
            while True:
                first, second = struct.unpack(">II", self._exactly(8, data))
                self._frame(first, second >> 24, self._exactly(second & 0xFFFFFF, data))
        except (OSError, EOFError, ValueError):
            self._tell(("closed",))

    def _frame(self, first, flags, payload):
        if not first >> 31:
            name = self._types[first]
            if payload:
                self._sinks.get(name, self.output[name].extend)(payload)
                self._tell(("data", name))
            if flags & FIN:
                self._tell(("end", name))
            return
        assert first >> 16 == 0x8003, hex(first)
        kind = first & 0xFFFF
        number = struct.unpack(">I", payload[:4])[0]
        if kind == SYN_REPLY:
            assert self._decompress.decompress(payload[4:]) == b"\0\0\0\0"
            self._tell(("reply", self._types[number]))
        elif kind == PING:
            self._pongs.add(number)
            self._tell(("ping",))
        elif kind == RST_STREAM:
            self._tell(("reset", number))
        elif kind == GOAWAY:
            self._tell(("goaway",))

    def _tell(self, event):
        with self._changed:
            if not (self.events and self.events[-1] == event and event[0] == "data"):
                self.events.append(event)
            self._changed.notify_all()

    def _wait(self, check, what, seconds=PATIENCE):
        with self._changed:
            assert self._changed.wait_for(check, seconds), f"waited in vain for {what}; {self.events[-20:]}"

    def wait_for_output(self, needle, name="stdout", seconds=PATIENCE):
        self._wait(lambda: needle in self.output[name] or ("closed",) in self.events, f"{needle!r} on {name}", seconds)
        assert needle in self.output[name], (bytes(self.output[name]), self.events)

    def finish(self, seconds=PATIENCE):
        """Until the server says goodbye; the final status, parsed if it is JSON."""
        self._wait(lambda: ("goaway",) in self.events or ("closed",) in self.events, "the end", seconds)
        assert ("goaway",) in self.events, self.events
        self.close()
        status = bytes(self.output["error"]).decode()
        return json.loads(status) if self.protocol == "v4.channel.k8s.io" else status

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join(PATIENCE)
        self.socket.close()
