"""Networks of the tests: CNI configurations, plugins written here, and frames made by hand."""

import ipaddress
import json
import pathlib
import socket
import struct
import subprocess

PLUGINS = pathlib.Path("/usr/lib/cni")

# A plugin that makes one more interface in the pod's namespace by calling `bridge`. With "tell" its result has it; without
# it passes the first plugin's result on, as a meta-plugin does that makes networks for itself.
FURTHER = r'''#!/usr/bin/python3
import json, os, subprocess, sys
config = json.load(sys.stdin)
bridge = dict(config["bridge"], name=config["name"] + "-" + config["interface"], cniVersion=config["cniVersion"])
environment = dict(os.environ, CNI_IFNAME=config["interface"])
call = subprocess.run(["/usr/lib/cni/bridge"], input=json.dumps(bridge), env=environment, text=True, capture_output=True)
if call.returncode != 0:
    sys.stdout.write(call.stdout)
    sys.exit(call.returncode)
if os.environ["CNI_COMMAND"] == "ADD":
    result, more = config["prevResult"], json.loads(call.stdout)
    if config.get("tell"):
        first = len(result["interfaces"])
        result["interfaces"] += more["interfaces"]
        result["ips"] += [dict(ip, interface=ip["interface"] + first) for ip in more["ips"]]
        result["routes"] = result.get("routes", []) + more.get("routes", [])
    json.dump(result, sys.stdout)
'''

# What a hostile plugin does with its input in $INPUT; ADD by default passes the previous result on.
SCRIPT = """#!/bin/bash
INPUT=$(cat)
case $CNI_COMMAND in
ADD) %(add)s ;;
DEL) %(delete)s ;;
esac
"""
PASS_ON = """printf '%s' "$INPUT" | python3 -c 'import json, sys; json.dump(json.load(sys.stdin)["prevResult"], sys.stdout)'"""


def write_plugin(path, text):
    path.write_text(text)
    path.chmod(0o755)


def script(add=PASS_ON, delete=":"):
    return SCRIPT % {"add": add, "delete": delete}


def bridge(name, leases, *subnets, routes=(), **more):
    return {"type": "bridge", "bridge": name, "isGateway": True,
            "ipam": {"type": "host-local", "dataDir": str(leases), "ranges": [[{"subnet": subnet}] for subnet in subnets],
                     "routes": [{"dst": route} for route in routes]}, **more}


def write_conflist(directory, name, *plugins, file="10-e2e.conflist"):
    path = pathlib.Path(directory) / file
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": list(plugins)}))
    unfinished.rename(path)
    return path


def leases(directory):
    """The addresses that host-local has given away below that directory."""
    found = set()
    for path in pathlib.Path(directory).rglob("*"):
        try:
            found.add(str(ipaddress.ip_address(path.name)))
        except ValueError:
            pass
    return found


def link(name):
    """`ip -json -details address` of one interface of the host."""
    output = subprocess.run(["ip", "-json", "-details", "address", "show", "dev", name], check=True, capture_output=True,
                            text=True).stdout
    return json.loads(output)[0]


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination, source, ether_type, payload):
    return mac_bytes(destination) + mac_bytes(source) + struct.pack("!H", ether_type) + payload


def udp4(source, destination, port, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0, socket.inet_aton(source),
                         socket.inet_aton(destination))
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload


def arp_reply(sender_mac, sender, target_mac, target):
    return (struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac_bytes(sender_mac) + socket.inet_aton(sender) +
            mac_bytes(target_mac) + socket.inet_aton(target))


def ipv6(source, destination, next_header, payload):
    return (struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255) + socket.inet_pton(socket.AF_INET6, source) +
            socket.inet_pton(socket.AF_INET6, destination) + payload)


def icmp6(source, destination, kind, body):
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = (socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) +
              struct.pack("!II", len(message), 58))
    return ipv6(source, destination, 58, message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:])


def udp6(source, destination, port, payload):
    segment = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    pseudo = (socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) +
              struct.pack("!II", len(segment), 17))
    return ipv6(source, destination, 17, segment[:6] + struct.pack("!H", checksum(pseudo + segment) or 0xFFFF) + payload)


class Sniffer:
    """All frames that arrive at an interface of the host."""

    def __init__(self, interface):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 0))

    def until(self, mark, seconds):
        """The frames so far, up to the first with that text in it."""
        self._socket.settimeout(seconds)
        frames = []
        while True:
            frames.append(self._socket.recv(65536))
            if mark in frames[-1]:
                return frames

    def close(self):
        self._socket.close()
