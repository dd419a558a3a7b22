"""The pod's network by Debian's CNI plugins: both families, several interfaces, host ports, names, what a guest forges
(NET-01) and plugins that misbehave (NET-02). Two pods are booted."""

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import urllib.request

import grpc
import pytest

from harness import cni, cri, guest_programs, host
from harness.daemon import PATIENCE, Pod, eventually
from harness.kubelet_files import PodDirectory
from harness.registry import free_port

NETWORK = "husk-e2e24"
SUBNET4, SUBNET6 = "10.214.24.0/24", "fd00:214:24::/64"
SUBNET_TOLD, SUBNET_SILENT = "10.215.24.0/24", "10.216.24.0/24"
BRIDGES = ("husk-e2e24t", "husk-e2e24s")
MTU = 1400
MARK = b"husk-mark-"


def sysctl(name, value=None):
    path = pathlib.Path("/proc/sys") / name.replace(".", "/")
    before = path.read_text().strip()
    if value is not None and value != before:
        path.write_text(value)
    return before


@pytest.fixture(scope="module", autouse=True)
def plugins(request):
    """The directory of the plugins that the tests write. What CNI plugins change on the host for good is put back."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="husk-cni-", dir="/var/tmp"))
    request.module.HUSKD_CONFIGURATION = {
        "network": {"cni_plugin_directories": [str(directory), str(cni.PLUGINS)], "default_bridge": ""}}
    forwarding = {name: sysctl(name) for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")}
    rules = {command: host.firewall_rules(command) for command in ("iptables", "ip6tables")}
    cni.write_plugin(directory / "further", cni.FURTHER)
    try:
        yield directory
    finally:
        for name in BRIDGES:
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        remove_chains(rules)
        for name, value in forwarding.items():
            sysctl(name, value)
        shutil.rmtree(directory, ignore_errors=True)


def remove_chains(before):
    """portmap leaves its own chains, and the jumps to them: they go if they were not there before, and nobody has a port
    mapped through them."""
    for command in ("iptables", "ip6tables"):
        rules = host.firewall_rules(command)
        if any(rule.startswith("-A CNI-HOSTPORT-DNAT") for rule in rules):
            continue
        added = {rule for rule in rules - before[command] if "CNI-HOSTPORT-" in rule}
        for rule in (rule for rule in added if rule.startswith("-A")):
            subprocess.run(f"{command} -t nat -D {rule.removeprefix('-A ')}", shell=True, check=False, capture_output=True)
        for rule in (rule for rule in added if rule.startswith(":")):
            subprocess.run([command, "-t", "nat", "-X", rule.split()[0].removeprefix(":")], check=False,
                           capture_output=True)


@pytest.fixture(scope="module")
def configure(huskd):
    """configure(plugin, ...) writes the network's configuration; the primary one is the dual stack's bridge."""
    directory = huskd.root / "net.d"
    leases = huskd.root / "leases"

    def write(*plugins):
        return cni.write_conflist(directory, NETWORK, *plugins)
    write.leases = leases
    write.directory = directory
    write.primary = cni.bridge(huskd.bridge, leases, SUBNET4, SUBNET6, routes=("0.0.0.0/0", "::/0"), mtu=MTU,
                               hairpinMode=True)
    write.full = (write.primary,
                  {"type": "further", "interface": "net1", "tell": True,
                   "bridge": cni.bridge(BRIDGES[0], leases, SUBNET_TOLD, routes=("192.0.2.128/25",), mtu=1300)},
                  {"type": "further", "interface": "net2",
                   "bridge": cni.bridge(BRIDGES[1], leases, SUBNET_SILENT)},
                  {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
                  {"type": "bandwidth", "capabilities": {"bandwidth": True}})
    write(*write.full)
    return write


@pytest.fixture(scope="module")
def program_image(huskd, registry):
    return guest_programs.pulled_image(huskd, registry, "husk/network", ["network_probe"])


def traces(huskd, configure):
    """What a pod has on the host, without what is other pods' or stays for all of them (bridges, portmap's own chains)."""
    found = huskd.snapshot()
    links = json.loads(subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, text=True).stdout)
    mine = {huskd.bridge, *BRIDGES}
    rules = host.firewall_rules() | host.firewall_rules("ip6tables")
    return {kind: found[kind] for kind in ("processes", "mounts", "cgroups", "named network namespaces")} | {
        # Ports of the bridges; the bandwidth plugin's ifb devices.
        "links": {link["ifname"] for link in links if link.get("master") in mine or link["ifname"].startswith("bwp")},
        "rules": {rule for rule in rules if f'\\"{NETWORK}' in rule},
        "files": {path for path in found["files"] if "attachments/" in path or "netns/" in path},
        "leases": cni.leases(configure.leases)}


class Served:
    """A pod with everything: what it was asked for, and its containers."""


@pytest.fixture(scope="module")
def served(huskd, configure, program_image):
    result = Served()
    result.before = traces(huskd, configure)
    result.tcp, result.udp, result.local, result.sctp = (free_port() for _ in range(4))
    mappings = [{"protocol": cri.api.TCP, "container_port": 8080, "host_port": result.tcp},
                {"protocol": cri.api.UDP, "container_port": 9000, "host_port": result.udp},
                {"protocol": cri.api.TCP, "container_port": 8080, "host_port": result.local, "host_ip": "127.0.0.1"},
                {"protocol": cri.api.SCTP, "container_port": 8080, "host_port": result.sctp},
                {"protocol": cri.api.TCP, "container_port": 8080}]
    result.pod = huskd.run_pod(
        "served", port_mappings=mappings,
        annotations={"kubernetes.io/ingress-bandwidth": "200M", "kubernetes.io/egress-bandwidth": "100M"},
        dns_config={"servers": ["10.0.0.53", "fd00::53"], "searches": ["a.example", "b.example"],
                    "options": ["ndots:5", "timeout:1"]})
    result.web = result.pod.run("web", program_image, command=["/bin/sh", "-c"],
                                args=["mkdir /srv; echo of the pod > /srv/index.html; echo ready;"
                                      " exec httpd -f -p 8080 -h /srv"])
    result.echo = result.pod.run("echo", program_image, command=["/network_probe", "echo", "9000"])
    result.web.wait_for_log("ready")
    result.echo.wait_for_log("listening")
    network = result.pod.status().network
    result.ip4, result.ip6 = network.ip, [entry.ip for entry in network.additional_ips]
    return result


def fetch(host_name, port):
    with urllib.request.urlopen(f"http://{host_name}:{port}/", timeout=60) as response:
        return response.read().decode()


def shell(container, command):
    code, out, err = container.execute("/bin/sh", "-c", command)
    assert code == 0, err
    return out


def echoed(address, port, family=socket.AF_INET):
    """Whether a datagram comes back; some are lost while neighbours are looked for."""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(2)

        def once():
            client.sendto(b"datagram", (address, port))
            with contextlib.suppress(OSError):
                return client.recvfrom(100)[0] == b"datagram"
            return False
        return eventually(once, f"an echo from {address}")


def test_both_families_are_the_pods(served):
    assert served.ip4.startswith("10.214.24.")
    assert len(served.ip6) == 1 and served.ip6[0].startswith("fd00:214:24::"), "the first interface's alone"
    addresses = shell(served.web, "ip -o addr show dev eth0")
    assert f"inet {served.ip4}/24" in addresses
    assert f"inet6 {served.ip6[0]}/64" in addresses
    assert "tentative" not in addresses
    assert "default via 10.214.24.1 dev eth0" in shell(served.web, "ip -4 route")
    assert "default via fd00:214:24::1 dev eth0" in shell(served.web, "ip -6 route")


def test_the_pod_answers_over_both_families(served):
    assert fetch(served.ip4, 8080) == "of the pod\n"
    assert fetch(f"[{served.ip6[0]}]", 8080) == "of the pod\n"
    assert echoed(served.ip4, 9000)
    assert echoed(served.ip6[0], 9000, socket.AF_INET6)


@pytest.mark.parametrize("family, gateway", [(socket.AF_INET, "10.214.24.1"), (socket.AF_INET6, "fd00:214:24::1")])
def test_the_pod_reaches_the_bridge_over(served, huskd, family, gateway):
    with socket.create_server((gateway, 0), family=family) as listener:
        listener.settimeout(PATIENCE)
        call = huskd.client.future(
            "ExecSync", container_id=served.web.id, timeout=90,
            cmd=["/bin/sh", "-c", f"echo hello | nc {gateway} {listener.getsockname()[1]}"])
        connection, peer = listener.accept()
        with connection:
            assert connection.makefile("rb").readline() == b"hello\n"
        assert peer[0] in (served.ip4, served.ip6[0])
        assert call.result().exit_code == 0


def test_the_mtu_is_that_of_cni(served):
    assert shell(served.web, "cat /sys/class/net/eth0/mtu") == f"{MTU}\n"
    assert shell(served.web, "cat /sys/class/net/net1/mtu") == "1300\n"


def test_every_interface_of_the_namespace_is_in_the_guest(served):
    told = shell(served.web, "ip -o addr show dev net1")
    silent = shell(served.web, "ip -o addr show dev net2")
    address_told = next(word for word in told.split() if word.startswith("10.215.24.")).partition("/")[0]
    address_silent = next(word for word in silent.split() if word.startswith("10.216.24.")).partition("/")[0]
    assert "192.0.2.128/25 via 10.215.24.1 dev net1" in shell(served.web, "ip -4 route"), "the result's route"
    for address in (address_told, address_silent):
        assert fetch(address, 8080) == "of the pod\n"
    shell(served.web, "ping -c 1 -W 60 10.215.24.1 && ping -c 1 -W 60 10.216.24.1")
    macs = shell(served.web, "cat /sys/class/net/eth0/address /sys/class/net/net1/address /sys/class/net/net2/address")
    assert len(set(macs.split())) == 3


def test_cni_names_and_dns_reach_the_containers(served):
    assert shell(served.web, "cat /etc/resolv.conf") == ("search a.example b.example\nnameserver 10.0.0.53\n"
                                                         "nameserver fd00::53\noptions ndots:5 timeout:1\n")
    assert shell(served.web, "hostname; cat /etc/hostname") == "served\nserved\n"
    hosts = [line.split() for line in shell(served.web, "cat /etc/hosts").splitlines()]
    assert [served.ip4, "served"] in hosts and [served.ip6[0], "served"] in hosts
    assert ["127.0.0.1", "localhost"] in hosts
    assert not [line for line in hosts if line[0].startswith(("10.215.", "10.216."))]


def test_the_kubelets_hosts_file_wins(served, huskd, program_image):
    own = PodDirectory(huskd.root, served.pod.config.metadata.uid).path / "etc-hosts"
    own.parent.mkdir(parents=True)
    own.write_text("127.0.0.1 localhost\n192.0.2.7 managed-by-the-kubelet\n")
    container = served.pod.run("hosts", program_image, command=["/bin/cat", "/etc/hosts"],
                               mounts=[{"container_path": "/etc/hosts", "host_path": str(own)}])
    assert container.wait().exit_code == 0
    assert container.log() == own.read_text()


def node_address():
    """One that is not the loopback's."""
    output = subprocess.run(["ip", "-json", "-4", "address"], check=True, capture_output=True, text=True).stdout
    return next(info["local"] for link in json.loads(output) for info in link["addr_info"]
                if not info["local"].startswith(("127.", "10.214.", "10.215.", "10.216.")))


def test_host_ports_lead_to_the_pod(served):
    assert fetch("127.0.0.1", served.tcp) == "of the pod\n"
    assert fetch(node_address(), served.tcp) == "of the pod\n"
    assert fetch("[fd00:214:24::1]", served.tcp) == "of the pod\n", "an address of the node of the other family"
    assert echoed(node_address(), served.udp)
    assert fetch("127.0.0.1", served.local) == "of the pod\n"
    with pytest.raises(OSError):
        fetch(node_address(), served.local)
    everything = host.firewall_rules()
    chains = {rule.rpartition("-j ")[2] for rule in everything if f'\\"{NETWORK}' in rule and "-j CNI-DN-" in rule}
    rules = [rule for rule in everything if rule.split()[1] in chains]
    assert [rule for rule in rules if f"--dport {served.sctp}" in rule and "-p sctp" in rule]
    ports = {rule.partition("--dport ")[2].split()[0] for rule in rules if "-j DNAT" in rule}
    assert ports == {str(port) for port in (served.tcp, served.udp, served.local, served.sctp)}, "none for host_port 0"


def test_bandwidth_is_limited_as_the_annotations_ask(served):
    disciplines = subprocess.run(["tc", "qdisc", "show"], check=True, capture_output=True, text=True).stdout
    limits = {line.partition(" rate ")[2].split()[0] for line in disciplines.splitlines() if "tbf" in line}
    assert limits >= {"200Mbit", "100Mbit"}


def test_a_bandwidth_that_is_none_is_refused_by_name(huskd, configure):
    with pytest.raises(grpc.RpcError) as refused:
        huskd.run_pod("quick", annotations={"kubernetes.io/egress-bandwidth": "quick\x7f"})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert 'annotations[kubernetes.io/egress-bandwidth]: "quick\\x7f"' in refused.value.details()


class Wire:
    """Frames that a container of the pod puts on its wire, and those that arrive at the bridge."""

    def __init__(self, huskd, served):
        self.container = served.echo
        self.pod4, self.pod6 = served.ip4, served.ip6[0]
        self.bridge = huskd.bridge
        self.bridge_mac = cni.link(self.bridge)["address"]
        self.mac = shell(served.web, "cat /sys/class/net/eth0/address").strip()
        self._sniffer = cni.Sniffer(self.bridge)
        self._sent = 0

    def close(self):
        self._sniffer.close()

    def ip4(self, source, destination, payload, mac=None, port=9):
        return cni.ethernet(self.bridge_mac, mac or self.mac, 0x0800, cni.udp4(source, destination, port, payload))

    def ip6(self, source, destination, payload, mac=None, port=9):
        return cni.ethernet(self.bridge_mac, mac or self.mac, 0x86DD, cni.udp6(source, destination, port, payload))

    def arriving(self, frames):
        """Sends them, in order, and one that is honest. All that has arrived when that one has, as one text."""
        self._sent += 1
        end = MARK + b"end-%d" % self._sent
        frames = [*frames, self.ip4(self.pod4, "10.214.24.1", end)]
        code, out, err = self.container.execute("/network_probe", "send", "eth0", *(frame.hex() for frame in frames))
        assert (code, out) == (0, f"sent {len(frames)}\n"), err
        return b"".join(self._sniffer.until(end, PATIENCE))


@pytest.fixture(scope="module")
def wire(huskd, served):
    result = Wire(huskd, served)
    yield result
    result.close()


FORGED_MAC = "02:00:00:00:66:66"


def test_net_01_what_is_honest_arrives(wire):
    solicitation = cni.icmp6(wire.pod6, "ff02::1:ff00:1", 135,
                             bytes(4) + socket.inet_pton(socket.AF_INET6, "fd00:214:24::1") + MARK + b"solicit-ok-")
    arrived = wire.arriving([
        wire.ip4(wire.pod4, "10.214.24.1", MARK + b"ip4"),
        wire.ip6(wire.pod6, "fd00:214:24::1", MARK + b"ip6"),
        cni.ethernet(wire.bridge_mac, wire.mac, 0x0806,
                     cni.arp_reply(wire.mac, wire.pod4, wire.bridge_mac, "10.214.24.1") + MARK + b"arp"),
        cni.ethernet("33:33:ff:00:00:01", wire.mac, 0x86DD, solicitation)])
    for mark in (b"ip4", b"ip6", b"arp", b"solicit-ok-"):
        assert MARK + mark in arrived, mark


def test_net_01_forged_sources_are_dropped_on_the_host(wire):
    gateway6 = "fd00:214:24::1"
    advertisement = cni.icmp6(wire.pod6, "ff02::1", 136, b"\x20\0\0\0" + socket.inet_pton(socket.AF_INET6, gateway6) +
                              b"\x02\x01" + cni.mac_bytes(wire.mac) + MARK + b"advertises")
    router = cni.icmp6(wire.pod6, "ff02::1", 134, bytes(12) + MARK + b"routes")
    arrived = wire.arriving([
        wire.ip4(wire.pod4, "10.214.24.1", MARK + b"other-mac-4", mac=FORGED_MAC),
        wire.ip6(wire.pod6, gateway6, MARK + b"other-mac-6", mac=FORGED_MAC),
        wire.ip4("10.214.24.77", "10.214.24.1", MARK + b"other-ip4"),
        wire.ip4("8.8.8.8", "10.214.24.1", MARK + b"foreign-ip4"),
        wire.ip6("fd00:214:24::77", gateway6, MARK + b"other-ip6"),
        wire.ip6("fe80::1", gateway6, MARK + b"other-link-local"),
        cni.ethernet("ff:ff:ff:ff:ff:ff", wire.mac, 0x0806,
                     cni.arp_reply(wire.mac, "10.214.24.1", wire.bridge_mac, "10.214.24.1") + MARK + b"arp-gateway"),
        cni.ethernet("ff:ff:ff:ff:ff:ff", wire.mac, 0x0806,
                     cni.arp_reply(FORGED_MAC, wire.pod4, wire.bridge_mac, "10.214.24.1") + MARK + b"arp-mac"),
        cni.ethernet("33:33:00:00:00:01", wire.mac, 0x86DD, advertisement),
        cni.ethernet("33:33:00:00:00:01", wire.mac, 0x86DD, router),
        cni.ethernet(wire.bridge_mac, wire.mac, 0x8100,
                     b"\0\x05\x08\0" + cni.udp4(wire.pod4, "10.214.24.1", 9, MARK + b"vlan")),
        cni.ethernet("01:80:c2:00:00:0e", wire.mac, 0x88CC, bytes(30) + MARK + b"lldp")])
    marks = {part[:16].partition(b"end-")[0] for part in arrived.split(MARK)[1:]}
    assert marks <= {b""}, f"arrived: {marks}"


def test_net_01_each_interface_has_a_filter_of_its_own(wire, served):
    mac = shell(served.web, "cat /sys/class/net/net1/address").strip()
    own = next(word.partition("/")[0] for word in shell(served.web, "ip -o addr show dev net1").split()
               if word.startswith("10.215.24."))
    bridge_mac = cni.link(BRIDGES[0])["address"]
    frames = [cni.ethernet(bridge_mac, source_mac, 0x0800, cni.udp4(source, "10.215.24.1", 9, MARK + payload))
              for source_mac, source, payload in ((mac, wire.pod4, b"eth0s-address"), (wire.mac, own, b"eth0s-mac"),
                                                  (mac, own, b"own"))]
    sniffer = cni.Sniffer(BRIDGES[0])
    try:
        code, _, err = wire.container.execute("/network_probe", "send", "net1", *(frame.hex() for frame in frames))
        assert code == 0, err
        arrived = b"".join(sniffer.until(MARK + b"own", PATIENCE))
    finally:
        sniffer.close()
    assert b"eth0s-" not in arrived


def test_net_01_the_nodes_loopback_is_out_of_reach(wire, served):
    # As portmap does it for host ports: without it the node's stack would not take such a packet from anybody.
    sysctl(f"net.ipv4.conf.{wire.bridge}.route_localnet", "1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as secret, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as open_service:
        secret.bind(("127.0.0.1", 0))
        open_service.bind(("10.214.24.1", 0))
        open_service.settimeout(PATIENCE)
        secret.setblocking(False)
        arrived = wire.arriving([
            wire.ip4(wire.pod4, "127.0.0.1", MARK + b"to-loopback", port=secret.getsockname()[1]),
            wire.ip4("127.0.0.1", "127.0.0.1", MARK + b"to-loopback", port=secret.getsockname()[1]),
            wire.ip6(wire.pod6, "::1", MARK + b"to-loopback"),
            wire.ip4(wire.pod4, "10.214.24.1", b"to the bridge", port=open_service.getsockname()[1])])
        assert open_service.recv(100) == b"to the bridge"
        assert b"to-loopback" not in arrived
        with pytest.raises(BlockingIOError):
            secret.recv(100)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code, _, _ = served.web.execute("/bin/sh", "-c", f"nc -w 20 10.214.24.1 {listener.getsockname()[1]} < /dev/null")
        assert code != 0


def test_a_removed_pod_leaves_nothing_of_its_network(served, huskd, configure):
    served.pod.remove()
    after = traces(huskd, configure)
    assert after == served.before
    assert not after["leases"] and not after["links"] and not after["rules"]


# ---- the configuration, and plugins that misbehave ------------------------------------------------------------------


def network_condition(huskd):
    conditions = {condition.type: condition for condition in huskd.client.Status().status.conditions}
    return conditions["NetworkReady"]


def test_network_ready_follows_the_configuration(huskd, configure):
    path = configure(configure.primary)
    assert network_condition(huskd).status
    path.unlink()
    condition = network_condition(huskd)
    assert not condition.status
    assert condition.reason and str(configure.directory) in condition.message
    (configure.directory / "20-broken\x7f.conflist").write_text('{"name": "a\x01b"')
    condition = network_condition(huskd)
    assert not condition.status
    assert "20-broken\\x7f.conflist" in condition.message and condition.message.isprintable()
    (configure.directory / "20-broken\x7f.conflist").unlink()
    configure({"type": "not-installed"})
    assert "CNI plugin not-installed is not in" in network_condition(huskd).message
    configure(configure.primary)
    assert network_condition(huskd).status


def run_refused(huskd, name, deadline=240):
    """RunPodSandbox that must fail: its error."""
    with pytest.raises(grpc.RpcError) as refused:
        huskd.client.RunPodSandbox(config=huskd.pod_config(name), deadline=deadline)
    assert all(character.isprintable() for character in refused.value.details()), refused.value.details()
    return refused.value


def assert_nothing_left(huskd, configure, before):
    eventually(lambda: traces(huskd, configure) == before,
               lambda: f"nothing to be left of {traces(huskd, configure)}, beyond {before}")


@pytest.fixture
def clean(huskd, configure):
    return traces(huskd, configure)


def test_net_02_garbage_and_failure_name_the_plugin(huskd, configure, plugins, clean):
    cni.write_plugin(plugins / "garbage", cni.script(add=r"printf 'no \001\177\377 JSON'"))
    configure(configure.primary, {"type": "garbage"})
    error = run_refused(huskd, "garbage")
    assert "CNI ADD by plugin garbage" in error.details() and "no \\x01\\x7f\\xff JSON" in error.details()
    cni.write_plugin(plugins / "failing", cni.script(
        add="""echo '{"code": 11, "msg": "no\\u007f\\u0007 luck", "details": "today"}'; exit 1"""))
    configure(configure.primary, {"type": "failing"})
    error = run_refused(huskd, "failing")
    assert "CNI ADD by plugin failing" in error.details() and "no\\x7f\\x07 luck: today" in error.details()
    assert_nothing_left(huskd, configure, clean)


def test_net_02_a_result_that_lies_is_refused(huskd, configure, plugins, clean):
    for name, result, words in (
            ("nowhere", '{"ips": [{"address": "10.1.2.3/24", "interface": 7}]}', "an interface that is not listed"),
            ("address", '{"ips": [{"address": "10.1.2.300/24"}]}', "10.1.2.300/24"),
            ("route", '{"ips": [{"address": "10.1.2.3/24"}], "routes": [{"dst": "::/0", "gw": "10.1.2.1"}]}', "10.1.2.1"),
            ("invented", """{"interfaces": [{"name": "eth9", "sandbox": "'"$CNI_NETNS"'"}],
                "ips": [{"address": "10.1.2.3/24", "interface": 0}]}""", "interface eth9 of the pod")):
        cni.write_plugin(plugins / "lies", cni.script(add=f"echo '{result}'"))
        configure(configure.primary, {"type": "lies"})
        assert words in run_refused(huskd, name).details()
    assert_nothing_left(huskd, configure, clean)


def test_net_02_a_gibibyte_of_json_is_not_kept(huskd, configure, plugins, clean):
    cni.write_plugin(plugins / "huge", cni.script(add="""printf '{"a": "'; head -c 1G /dev/zero | tr '\\0' x; printf '"}'"""))
    configure(configure.primary, {"type": "huge"})
    error = run_refused(huskd, "huge")
    assert "CNI ADD by plugin huge" in error.details() and "4 MiB" in error.details()
    peak = int(host.read_text(f"/proc/{huskd.pid}/status").partition("VmHWM:")[2].split()[0])
    assert peak < 700 << 10, f"huskd took {peak} KiB"
    assert_nothing_left(huskd, configure, clean)


def test_net_02_a_hanging_plugin_ends_with_the_call(huskd, configure, plugins, clean):
    cni.write_plugin(plugins / "hanging", cni.script(add="sleep 100000"))
    configure(configure.primary, {"type": "hanging"})
    assert run_refused(huskd, "hanging", deadline=6).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: "CNI ADD by plugin hanging" in host.read_text(huskd.log_path), "the plugin's name in the log")
    assert_nothing_left(huskd, configure, clean)


def test_net_02_an_add_that_works_and_crashes_is_undone(huskd, configure, plugins, clean):
    cni.write_plugin(plugins / "crashing", cni.script(
        add="""printf '%s' "${INPUT/\\"crashing\\"/\\"bridge\\"}" | /usr/lib/cni/bridge > /dev/null; kill -SEGV $$""",
        delete="""printf '%s' "${INPUT/\\"crashing\\"/\\"bridge\\"}" | /usr/lib/cni/bridge"""))
    configure(dict(configure.primary, type="crashing"))
    error = run_refused(huskd, "crashing")
    assert "CNI ADD by plugin crashing" in error.details() and "exit code 139" in error.details()
    assert_nothing_left(huskd, configure, clean)


def test_net_02_a_del_that_fails_is_owed(huskd, configure, plugins, clean, program_image):
    broken = plugins / "broken"
    broken.touch()
    hanging = plugins / "hanging-del"
    cni.write_plugin(plugins / "clinging", cni.script(
        delete=f"""[[ ! -e {hanging} ]] || sleep 100000; [[ ! -e {broken} ]] || {{ printf '{{"code": 7, "msg": "not\\\\u007f now"}}'; exit 1; }}"""))
    configure(configure.primary, {"type": "clinging"})
    pod = huskd.run_pod("owing")
    container = pod.run("one", program_image, command=["/bin/sleep", "100000"])

    def stop_fails():
        with pytest.raises(grpc.RpcError) as failed:
            pod.stop()
        assert "CNI DEL by plugin clinging" in failed.value.details() and "not\\x7f now" in failed.value.details()
        assert failed.value.details().isprintable()
    stop_fails()
    assert pod.state() == "SANDBOX_NOTREADY" and container.state() == "CONTAINER_EXITED"
    assert not [pid for pid in huskd.vm_processes()], "the VM is gone, whatever CNI says"
    assert not cni.leases(configure.leases), "the other plugins have had their DEL"
    stop_fails()
    with pytest.raises(grpc.RpcError) as failed:
        huskd.client.RemovePodSandbox(pod_sandbox_id=pod.id)
    assert "CNI DEL by plugin clinging" in failed.value.details()
    # Another configuration by now, and another huskd: what is owed is owed to the plugins of the pod's own day.
    configure(configure.primary)
    huskd.restart()
    pod = Pod(huskd.client, pod.id, pod.config)
    assert pod.state() == "SANDBOX_NOTREADY"
    stop_fails()
    hanging.touch()
    with pytest.raises(grpc.RpcError) as failed:
        huskd.client.StopPodSandbox(pod_sandbox_id=pod.id, deadline=5)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: not [pid for pid in host.process_ids() if str(plugins) in host.command_line(pid)],
               "the plugin that hangs to be ended")
    hanging.unlink()
    # NOT_FOUND would tell the kubelet that there is no such pod any more.
    taken_away = (plugins / "clinging").rename(plugins / "away")
    with pytest.raises(grpc.RpcError) as failed:
        pod.stop()
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "CNI plugin clinging is not in" in failed.value.details()
    taken_away.rename(plugins / "clinging")
    broken.unlink()
    pod.stop()
    pod.stop()
    pod.remove()
    assert_nothing_left(huskd, configure, clean)


def test_net_02_an_add_and_its_del_that_fail_are_undone_later(huskd, configure, plugins, clean):
    broken = plugins / "broken"
    broken.touch()
    cni.write_plugin(plugins / "both", cni.script(add="exit 3", delete=f"[[ ! -e {broken} ]] || exit 4"))
    configure(configure.primary, {"type": "both"})
    error = run_refused(huskd, "both")
    assert "CNI ADD by plugin both" in error.details() and "CNI DEL by plugin both" in error.details()
    owing = huskd.pods()
    assert [item.state for item in owing] == [cri.api.SANDBOX_NOTREADY], "the kubelet sees what it must remove"
    broken.unlink()
    huskd.restart()
    assert not huskd.pods(), "the next start pays"
    # So does the huskd that owes it.
    broken.touch()
    run_refused(huskd, "again")
    assert len(huskd.pods()) == 1
    broken.unlink()
    eventually(lambda: not huskd.pods(), "what is owed to be paid without being asked for", seconds=120)
    assert_nothing_left(huskd, configure, clean)
