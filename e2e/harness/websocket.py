"""A small WebSocket client of exec, attach and port-forward, made from the protocol's facts, for the channel protocols of Kubernetes."""

import base64
import collections
import hashlib
import json
import os
import struct

from harness.spdy import upgrade

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)


class Session:
    """One command. Blocking, for one thread. Output is gathered in `output`, by channel, unless a channel stands in
    `sinks`: then it goes to that function."""

    def __init__(self, url, protocol="v5.channel.k8s.io", sinks=None, authority=None):
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket, headers, rest = upgrade(url, "GET", [
            ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key), ("Sec-WebSocket-Protocol", protocol)], authority=authority)
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        assert headers["Sec-WebSocket-Accept"] == base64.b64encode(digest).decode()
        self.protocol = headers["Sec-WebSocket-Protocol"]
        self._base64 = "base64" in self.protocol
        self._sinks = sinks or {}
        self._data = bytearray(rest)
        self.output = collections.defaultdict(bytes)
        self.messages = 0
        self.pongs = []
        self.close_code = None

    def send_frame(self, opcode, payload):
        mask = os.urandom(4)
        size = len(payload)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")).to_bytes(
            size, "big")
        self.socket.sendall(head + mask + masked)

    def write(self, data, channel=STDIN):
        if self._base64:
            self.send_frame(TEXT, str(channel).encode() + base64.b64encode(data))
        else:
            self.send_frame(BINARY, bytes([channel]) + data)

    def end(self, channel=STDIN):
        assert self.protocol == "v5.channel.k8s.io"
        self.send_frame(BINARY, bytes([255, channel]))

    def resize(self, width, height):
        self.write(json.dumps({"Width": width, "Height": height}).encode(), RESIZE)

    def _exactly(self, count):
        while len(self._data) < count:
            piece = self.socket.recv(1 << 18)
            if not piece:
                raise EOFError
            self._data += piece
        data = bytes(self._data[:count])
        del self._data[:count]
        return data

    def read(self):
        """One frame; False after the server's close."""
        first, size = self._exactly(2)
        assert first & 0x80 and not size & 0x80, "whole messages without a mask"
        if size == 126:
            size = struct.unpack(">H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._exactly(8))[0]
        payload = self._exactly(size)
        opcode = first & 0xF
        if opcode == PONG:
            self.pongs.append(payload)
        elif opcode == CLOSE:
            self.close_code = struct.unpack(">H", payload[:2])[0]
            return False
        else:
            assert opcode == (TEXT if self._base64 else BINARY)
            self.messages += 1
            channel = payload[0] - (ord("0") if self._base64 else 0)
            data = base64.b64decode(payload[1:]) if self._base64 else payload[1:]
            if channel in self._sinks:
                self._sinks[channel](data)
            else:
                self.output[channel] += data
        return True

    def wait_for_output(self, needle, channel=STDOUT):
        while needle not in self.output[channel]:
            assert self.read(), self.output

    def finish(self):
        """Until the server closes; the final status, parsed if it is JSON."""
        while self.read():
            pass
        self.send_frame(CLOSE, struct.pack(">H", 1000))
        self.socket.close()
        status = self.output[STATUS].decode()
        return json.loads(status) if self.protocol.startswith(("v4", "v5")) else status
