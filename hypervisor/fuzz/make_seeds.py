#!/usr/bin/env python3
"""Writes the seed corpus of this room's fuzz targets: corpus/TARGET/*. The same bytes each time.

Files that are there and not made here, such as inputs that once found a fault, are left alone.
make_seeds.py --check fails if what is committed is something else."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "agent" / "common"))
sys.dont_write_bytecode = True

from fuzz_seeds import main  # noqa: E402


def qmp():
    greeting = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}
    event = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "DEVICE_DELETED", "data": {"device": "disk3"}}
    error = {"id": 4, "error": {"class": "DeviceNotFound", "desc": "Device 'a\u007fb' not found"}}

    def lines(*messages):
        return b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
    return {
        "greeting": b"\7" + lines(greeting, {"return": {}, "id": 1}),
        "event": b"\x1f" + lines(event, {"event": "SHUTDOWN"}, {"event": 5, "data": []}),
        "error": b"\3" + lines(error, {"id": 5, "error": {"class": "GenericError"}}, {"id": 6, "error": []}),
        "values": b"\2" + lines({"return": [{"name": "x", "n": -1.5e300}], "id": 18446744073709551615}),
        "no-id": b"\2" + lines({"return": {}}),
        "negative-id": b"\2" + lines({"return": {}, "id": -1}),
        "nested": b"\xff" + b"[" * 70 + b"]" * 70 + b"\n",
        "no-json": b"\1" + b"\x1b[31mno json\x7f\xff\n",
    }


if __name__ == "__main__":
    sys.exit(main(__file__, {"fuzz_qmp": qmp()}, __doc__))
