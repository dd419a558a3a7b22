#!/usr/bin/env python3
"""Writes the seed corpus of this room's fuzz targets: corpus/TARGET/*. The same bytes each time.

Files that are there and not made here, such as inputs that once found a fault, are left alone.
make_seeds.py --check fails if what is committed is something else."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "agent" / "common"))
sys.dont_write_bytecode = True

from fuzz_seeds import main, text  # noqa: E402

LIST, SINGLE = b"\0", b"\1"
NAMESPACE = "/run/husk/netns/p"
# fuzz_container_log's kinds of step, added up.
STDERR, FILLED, AGAIN, GAP, END = 1, 2, 4, 8, 0x30


def cni_configs():
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True,
              "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}
    network = {"cniVersion": "1.0.0", "name": "pods",
               "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}

    def dump(value):
        return json.dumps(value).encode()
    return {
        "list": LIST + dump(network),
        "versions": LIST + dump(network | {"cniVersion": "9.9.9", "cniVersions": ["0.4.0", "1.1.0", 7]}),
        "single": SINGLE + dump(bridge | {"cniVersion": "0.3.1", "name": "pods"}),
        "no-plugins": LIST + dump(network | {"plugins": []}),
        "type-is-path": LIST + dump(network | {"plugins": [{"type": "../sh"}]}),
        "found-name-with-del": LIST + b'{"cniVersion":"1.0.0","name":"a\x7f\x7fb","plugins":[{"type":"bridge"}]}',
        "version-not-printable": LIST + dump(network | {"cniVersion": "\u001b[31m\u007f"}),
        "type-not-printable": SINGLE + dump({"cniVersion": "1.0.0", "name": "n", "type": "\u0007\u00fc"}),
        "nested": LIST + b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    }


def cni_results():
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0", "mac": "aa:bb:cc:dd:ee:ff"}, {"name": "veth1"},
                       {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": NAMESPACE}],
        "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 2},
                {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}, {"dst": "169.254.1.1/32", "gw": "10.1.0.9"}],
        "dns": {"nameservers": ["10.1.0.53", "fe80::1%eth0"]},
    }
    seeds = {
        "full": result,
        "no-interfaces": {"ips": [{"address": "10.1.0.5/32"}]},
        "two-inside": result | {"interfaces": [{"name": "net1", "sandbox": NAMESPACE}, {"name": "x"},
                                               {"name": "eth0", "sandbox": NAMESPACE}]},
        "no-address": {"interfaces": result["interfaces"]},
        "prefix-too-long": {"ips": [{"address": "10.1.0.5/33"}]},
        "interface-unknown": {"ips": [{"address": "10.1.0.5/24", "interface": 9}]},
        "interface-negative": {"ips": [{"address": "10.1.0.5/24", "interface": -1}]},
        "gateway-of-other-family": {"ips": [{"address": "10.1.0.5/24", "gateway": "fd00::1"}]},
        "name-too-long": {"interfaces": [{"name": "n" * 16, "sandbox": NAMESPACE}]},
        "name-not-printable": {"interfaces": [{"name": "e\u007f\n", "sandbox": NAMESPACE}]},
        "server-is-no-address": {"ips": [{"address": "10.1.0.5/24"}], "dns": {"nameservers": ["x\noptions y"]}},
    }
    return {name: json.dumps(value).encode() for name, value in seeds.items()}


def step(kind, value="", more=b""):
    return bytes([kind]) + (more if kind & FILLED else text(value) + more)


def container_logs():
    return {
        "lines": step(0, "one\ntwo\nthr") + step(STDERR, "error\n") + step(0, "ee\n") + step(END, ""),
        "forged": step(0, "2023-11-14T22:13:20.1Z stderr F forged\n\x1b[31mred\r\n\0\n") + step(END, "no newline"),
        "again": step(0, "abc\n") + step(AGAIN, "bc\nd", b"\3") + step(GAP, "lost", b"\5") + step(0, "e\n"),
        "long": step(FILLED, more=b"\xff") + step(0, "\n") + step(FILLED, more=b"\xa4") + step(0, "\nend"),
        "exact": step(FILLED, more=b"\xa3") + step(0, "y" * 84 + "\n") + step(0, "z"),
        "end-in-gap": step(GAP | END, "x", b"\1") + step(END, "y"),
    }


if __name__ == "__main__":
    sys.exit(main(__file__, {"fuzz_cni_config": cni_configs(), "fuzz_cni_result": cni_results(),
                             "fuzz_container_log": container_logs()}, __doc__))
