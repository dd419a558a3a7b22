#!/usr/bin/env python3
"""Writes the seed corpus of this room's fuzz targets: corpus/TARGET/*. The same bytes each time.

Files that are there and not made here, such as inputs that once found a fault, are left alone.
make_seeds.py --check fails if what is committed is something else."""

import json
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "agent" / "common"))
sys.dont_write_bytecode = True

from fuzz_seeds import main, message, text  # noqa: E402

# fuzz_channel's steps.
OPEN, CUT_OPENING, REQUEST, FRAME, RAW_MASKED, RAW, MARKER_PIECE = range(7)
# fuzz_channels' steps.
ECHO, OLD_ECHO, RAW_BYTES, GUEST_FRAME, RESPONSE, MARKER_CUT = range(6)


def channel():
    nonce = bytes(range(16))
    opening = bytes([OPEN]) + nonce
    hello = bytes([REQUEST]) + text(message((1, "husk.agent.v1.Agent"), (2, "Hello"), (4, 1000))) + b"\1"
    ask = bytes([REQUEST]) + text(message((1, "husk.agent.v1.Agent"), (2, "Poll"), (3, b"\x18\x01"))) + b"\3"
    long_frame = bytes([FRAME]) + struct.pack(">IIBB", 0xFFFFFFFF, 1, 1, 0) + text("")
    cut_frame = bytes([FRAME]) + struct.pack(">IIBB", 4096, 1, 1, 0) + text("abc")
    return {
        "asks": b"\7" + opening + hello + ask,
        "twice": b"\2" + opening + hello + opening + ask,
        "cut-opening": b"\0" + bytes([CUT_OPENING]) + text(nonce) + b"\x14" + opening + hello,
        "cut-frame": b"\x1f" + opening + cut_frame + opening + hello,
        "long-frame": b"\xff" + opening + long_frame + hello,
        "unknown-type": b"\1" + opening + bytes([FRAME]) + struct.pack(">IIBB", 0, 1, 9, 0) + text("") + ask,
        "rubbish": b"\3" + bytes([RAW]) + text("rubbish") + bytes([MARKER_PIECE, 9]) + opening + hello +
                   bytes([RAW_MASKED]) + text("\xff" * 20),
    }


def channels():
    hello = message((2, message((1, 1), (2, "0.1.0"), (4, "boot"))))
    refused = message((1, message((1, 5), (2, "crun:\n\x1b[31mno"))))
    answer = bytes([RESPONSE, 1]) + text(hello)
    error = bytes([RESPONSE, 3]) + text(refused)
    return {
        "hello": b"\7\0" + bytes([ECHO]) + answer + error,
        "old-echoes": b"\2\3" + bytes([OLD_ECHO, 0, OLD_ECHO, 1, ECHO]) + answer,
        "other-version": b"\3\0" + bytes([ECHO]) + bytes([RESPONSE, 1]) + text(message((2, message((1, 7))))),
        "long-frame": b"\3\0" + bytes([ECHO, GUEST_FRAME]) + struct.pack(">IIBB", 0xFFFFFFFF, 1, 2, 0) + text(""),
        "cut-frame": b"\0\1" + bytes([ECHO, GUEST_FRAME]) + struct.pack(">IIBB", 4096, 3, 2, 0) + text("abc"),
        "request": b"\0\1" + bytes([ECHO, GUEST_FRAME]) + struct.pack(">IIBB", 0, 3, 1, 0) + text(""),
        "stale": b"\4\1" + bytes([RAW_BYTES]) + text("stale") + bytes([MARKER_CUT, 12, ECHO]) + answer,
        "unknown-code": b"\4\0" + bytes([ECHO, RESPONSE, 5]) + text(message((1, message((1, -3), (2, "\u00fc"))))),
    }


def requests():
    config = {"ociVersion": "1.0.2", "process": {"args": ["/bin/sh"], "env": ["PATH=/bin"], "user": {"uid": 0}},
              "mounts": [{"destination": "/dev/shm", "type": "tmpfs"}, {"destination": "/etc/hosts", "type": "bind"}],
              "linux": {"resources": {"cpu": {"cpus": "0-3", "mems": "0"}, "memory": {"limit": 1 << 27}}}}
    resources = {"cpu": {"shares": 2, "cpus": "0,1-3", "mems": "0-1"}, "unified": {"memory.high": "max"}}
    passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/false\nbroken:x:a:\n"
    group = "root:x:0:\nweb:x:33:\nextra:x:44:web,root\n"
    envelope = message((1, "husk.agent.v1.Agent"), (2, "CreateContainer"),
                       (3, message((1, message((1, "c"), (4, json.dumps(config)))))))

    def user(kind, name):
        return bytes([2, kind]) + f"{name}\n{passwd}\0{group}".encode()
    return {
        "config": b"\0\1" + b"\5\6" + text("/root") + text("/data") + json.dumps(config).encode(),
        "config-wrong": b"\0\0" + b"\0\0" + text("") + text("data") + b'{"process":[],"root":7}',
        "resources": b"\1" + json.dumps(resources).encode() + b"\n" + json.dumps(config).encode(),
        "user-name": user(1, "web"),
        "user-image": user(2, "web:extra"),
        "user-number": user(2, "1000:100"),
        "user-strict": user(2 | 16 | 32, "33"),
        "user-uid": user(4 | 8, ""),
        "sysctl": b"\3net.ipv4.ip_forward",
        "sysctl-path": b"\3net/ipv4/conf/eth0.1/forwarding",
        "prefix": b"\3fd00::1/64",
        "mac": b"\x0352:54:00:12:34:56",
        "sandbox": b"\3" + message((1, "host"), (3, "10.0.0.10"), (4, "svc.cluster.local"), (5, "ndots:5")),
        "envelope": b"\4" + envelope,
    }


if __name__ == "__main__":
    sys.exit(main(__file__, {"fuzz_channel": channel(), "fuzz_channels": channels(), "fuzz_agent_requests": requests()},
                  __doc__))
