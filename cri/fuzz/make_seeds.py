#!/usr/bin/env python3
"""Writes the seed corpus of this room's fuzz targets: corpus/TARGET/*. The same bytes each time.

Files that are there and not made here, such as inputs that once found a fault, are left alone.
make_seeds.py --check fails if what is committed is something else."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "agent" / "common"))
sys.dont_write_bytecode = True

from fuzz_seeds import main, message, text  # noqa: E402

POD, CONTAINER, RESOURCES, FILTERS = b"\0", b"\1", b"\2", b"\3"


def entry(key, value):
    """One of a map<string, string>."""
    return message((1, key), (2, value))


def cri():
    metadata = message((1, "web"), (2, "8c1f"), (3, "default"), (4, 1))
    resources = message((1, 100_000), (2, 50_000), (3, 512), (4, 128 << 20), (5, -997), (6, "0-3,5"), (7, "0"),
                        (9, entry("memory.high", "max")), (10, 256 << 20))
    # security context of a sandbox: namespaces, privileged, seccomp RuntimeDefault
    sandbox_security = message((1, message((1, 0), (2, 1), (3, 0))), (6, 0), (9, message((1, 0))))
    sandbox_linux = message((1, "/kubepods/pod1"), (2, sandbox_security), (3, entry("net.core.somaxconn", "1024")),
                            (4, resources), (5, resources))
    pod = message((1, metadata), (2, "web-0"), (3, "/var/log/pods/p"),
                  (4, message((1, "10.0.0.10"), (2, "svc.cluster.local"), (3, "ndots:5"))),
                  (5, message((1, 0), (2, 80), (3, 8080), (4, "127.0.0.1"))), (6, entry("app", "web")),
                  (7, entry("note", "text\nlines")), (8, sandbox_linux))
    # capabilities, privileged, namespaces, run_as_user, masked paths, no_new_privs, run_as_group, seccomp
    security = message((1, message((1, "NET_ADMIN"), (2, "ALL"))), (2, 0), (3, message((2, 1))), (5, message((1, 1000))),
                       (7, 1), (8, 44), (11, 1), (12, message((1, 100))), (13, "/proc/kcore"), (14, "/proc/sys"))
    container = message((1, message((1, "app"), (2, 2))), (2, message((1, "sha256:0123"), (18, "busybox"))),
                        (3, "/bin/sh"), (4, "-c"), (4, "true"), (5, "/work"), (6, message((1, "KEY"), (2, "value"))),
                        (7, message((1, "/data"), (2, "/var/lib/data"), (3, 1))), (9, entry("app", "web")),
                        (11, "app/2.log"), (12, 1), (15, message((1, resources), (2, security))), (18, 5))
    return {
        "pod": POD + pod,
        "pod-empty": POD,
        "pod-node-network": POD + message((1, metadata), (8, message((2, message((1, message((1, 2)))))))),
        "pod-bad-port": POD + message((1, metadata), (5, message((1, 9), (2, 70000)))),
        "pod-name-with-del": POD + message((1, message((1, "a\x7f"), (2, "u"), (3, "n")))),
        "container": CONTAINER + container,
        "container-no-image": CONTAINER + message((1, message((1, "app")))),
        "container-env-not-printable": CONTAINER + message((1, message((1, "app"))), (2, message((1, "i"))),
                                                           (6, message((1, "\u00fc=\x1b[31m"), (2, "")))),
        "container-device": CONTAINER + message((1, message((1, "app"))), (2, message((1, "i"))),
                                                (8, message((1, "/dev/x"), (2, "/dev/y"), (3, "rwm")))),
        "container-signal": CONTAINER + message((1, message((1, "app"))), (2, message((1, "i"))), (18, 1000)),
        "resources": RESOURCES + resources,
        "resources-wrong": RESOURCES + message((1, 5), (4, -1)),
        "resources-list": RESOURCES + message((6, "3-\x7f\u00fc")),
        "resources-unified": RESOURCES + message((9, entry("cgroup.procs\x1b", "1"))),
        "resources-huge-pages": RESOURCES + message((8, message((1, "2MB\n"), (2, 7)))),
        "filters": FILTERS + message((1, "0123"), (2, message((1, 1))), (3, "4567"), (4, entry("app", "web"))),
    }


# fuzz_spdy's steps.
RAW, SYN, DATA, CONTROL, HEADERS = range(5)


def spdy():
    def syn(number, kind, flags=0):
        return bytes([SYN, number, flags, 1]) + text("streamtype") + text(kind)
    streams = syn(1, "error") + syn(3, "stdin") + syn(5, "stdout")
    data = bytes([DATA, 3, 0]) + text("hello") + bytes([DATA, 3, 1]) + text("")
    ping, reset, goaway = (bytes([CONTROL, 1, kind]) + text(rest) for kind, rest in ((6, ""), (3, b"\0\0\0\5"), (7, b"\0" * 4)))
    return {
        "session": b"\7" + streams + data + ping + goaway,
        "resets": b"\0" + streams + reset + data + syn(3, "stdin") + syn(2, "even"),
        "headers": b"\x1f" + streams + bytes([HEADERS, 1, 0, 2]) + text("a") + text("b") + text("c") + text("") + data,
        "raw": b"\2" + streams + bytes([RAW, 0, 0]) + text(b"\x80\x03\x00\x01\x00\x00\x00\x0a" + b"\0" * 10) + data,
        "long-control": b"\xff" + bytes([RAW, 0, 0]) + text(b"\x80\x03\x00\x01\x00\xff\xff\xff"),
        "ended-at-once": b"\1" + syn(1, "stdin", 1) + bytes([DATA, 1, 1]) + text("late"),
    }


def websocket():
    def frame(opcode, payload, final=True, mask=b"\x12\x34\x56\x78"):
        head = bytes([(0x80 if final else 0) | opcode])
        size = len(payload)
        head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
        return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    binary, base64 = b"\2", b"\1"
    return {
        "session": b"\7" + binary + frame(2, b"\0hello") + frame(9, b"ping") + frame(2, b"\xff\0") + frame(8, b"\x03\xe8"),
        "pieces": b"\0" + binary + frame(2, b"\0a", False) + frame(9, b"") + frame(0, b"b", False) + frame(0, b""),
        "base64": b"\3" + base64 + frame(1, b"0aGVsbG8=") + frame(1, b"4e30=", False) + frame(0, b""),
        "long": b"\xff" + binary + frame(2, b"\0" + b"x" * 300),
        "unmasked": b"\2" + binary + b"\x82\x01\x00",
        "huge": b"\2" + binary + b"\x82\xff" + b"\xff" * 8 + b"mask",
    }


if __name__ == "__main__":
    sys.exit(main(__file__, {"fuzz_cri": cri(), "fuzz_spdy": spdy(), "fuzz_websocket": websocket()}, __doc__))
