"""How long a VM takes to become a gibibyte or a vCPU larger or smaller: by UpdateContainerResources of a real huskd, against
the same guest in a QEMU without Husk, which is driven over QMP and whose agent is asked directly."""

import importlib.machinery
import importlib.util
import json
import pathlib
import socket
import sys
import time

from harness import bare_vm, cri
from harness.daemon import PATIENCE, eventually
from harness.storm import percentile
from harness.vm_size import KEPT, MEBIBYTE

GIBIBYTE = 1 << 30
# The container's limit when it is small; its VM is some MiB larger.
SMALL_LIMIT = 256 * MEBIBYTE
PERIOD = 100000
LOOK_SECONDS = 0.005
# What a guest has not given back by then is not waited for.
SHRINK_SECONDS = 5.0
PLUGGABLE = 2 * GIBIBYTE
MOST_VCPUS = 2
# Takes 64 MiB, writes to all of them and lets them go, again and again.
LOAD = "while :; do head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; done"
MEMORY, VCPU = ("grow_1g", "shrink_1g"), ("vcpu_add", "vcpu_del")


def _module(path):
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.stem, loader))
    loader.exec_module(module)
    return module


def until(check):
    """Looks all the time. Seconds until check() was true; None if that took too long."""
    started = time.monotonic()
    while not check():
        if time.monotonic() - started > SHRINK_SECONDS:
            return None
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - started


class Husk:
    def __init__(self, huskd, reference, load):
        self._pod = huskd.run_pod("resized", linux={
            "resources": {"memory_limit_in_bytes": SMALL_LIMIT, "cpu_quota": PERIOD, "cpu_period": PERIOD}})
        self._container = self._pod.run("main", reference, ["/bin/sh", "-c", LOAD if load else "exec sleep 1000000"], linux={
            "resources": {"memory_limit_in_bytes": SMALL_LIMIT, "cpu_quota": PERIOD, "cpu_period": PERIOD}})
        self.small = self.memory()

    def memory(self):
        status = self._pod.client.PodSandboxStatus(pod_sandbox_id=self._pod.id, verbose=True)
        return json.loads(status.info["vm"])["memoryBytes"]

    def _update(self, **resources):
        self._pod.client.UpdateContainerResources(container_id=self._container.id, linux=resources)

    def grow_1g(self):
        self._update(memory_limit_in_bytes=SMALL_LIMIT + GIBIBYTE)

    def shrink_1g(self):
        self._update(memory_limit_in_bytes=SMALL_LIMIT)

    def vcpu_add(self):
        self._update(cpu_quota=2 * PERIOD, cpu_period=PERIOD)

    def vcpu_del(self):
        self._update(cpu_quota=PERIOD, cpu_period=PERIOD)

    def stop(self):
        self._pod.remove()


class Qmp:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self._lines.close()
        self._socket.close()


class Bare:
    """As large as Husk's, with Husk's kernel, agent and accelerator."""

    def __init__(self, directory, accelerator, memory, load):
        walk = _module(bare_vm.ROOT / "agent" / "guest" / "e2e" / "agent_guest_e2e.py")
        sys.path.insert(0, str(cri.BUILD / "agent" / "guest" / "python"))
        # Where it lies is known by now.
        from agent.proto import agent_pb2 as proto  # pylint: disable=import-outside-toplevel
        directory = pathlib.Path(directory, f"bare-{load}")
        directory.mkdir()
        self._guest = walk.guests.Guest(
            bare_vm.GUEST, directory, walk.make_disks(directory), f"{memory >> 10}K,maxmem={(memory + PLUGGABLE) >> 10}K",
            machine=bare_vm.KVM if accelerator == "kvm" else bare_vm.TCG,
            # docs/adr/0118
            processors=f"cpus={1 if accelerator == 'kvm' else MOST_VCPUS},maxcpus={MOST_VCPUS},sockets={MOST_VCPUS},"
                       "cores=1,threads=1",
            kernel_options=" maxcpus=1",
            devices=["-object", f"memory-backend-memfd,id=pluggable,size={PLUGGABLE},share=on,reserve=off", "-device",
                     "virtio-mem-pci,id=memory,memdev=pluggable,requested-size=0"])
        self._guest.wait_for_port()
        self._agent = walk.Pod(proto, self._guest)
        walk.configure(self._agent)
        self._qmp = Qmp(directory / "qmp.sock")
        # As huskd does: the guest's choice of zones for memory that comes.
        self._online(1)
        if load:
            self._agent.run("load", ["sh", "-c", LOAD])
        self._stays = accelerator != "kvm"
        self.small = memory

    def _online(self, count):
        self._agent.client.call("ResizeGuest", cpus=count)

    def _plugged(self):
        return self._qmp("query-memory-devices")[0]["data"]["size"]

    def memory(self):
        return self.small + self._plugged()

    def _request(self, size):
        self._qmp("qom-set", path="/machine/peripheral/memory", property="requested-size", value=size)

    def grow_1g(self):
        self._request(GIBIBYTE)
        eventually(lambda: self._plugged() >= GIBIBYTE, "a gibibyte in the bare guest", interval=LOOK_SECONDS)

    def shrink_1g(self):
        self._request(0)

    def vcpu_add(self):
        free = [slot for slot in self._qmp("query-hotpluggable-cpus") if "qom-path" not in slot]
        if free:
            slot = min(free, key=lambda slot: slot["props"]["socket-id"])
            self._qmp("device_add", driver=slot["type"], id="vcpu1", **slot["props"])
        self._online(2)

    def vcpu_del(self):
        self._online(1)
        if self._stays:
            return
        self._qmp("device_del", id="vcpu1")
        eventually(lambda: any("qom-path" not in slot for slot in self._qmp("query-hotpluggable-cpus")),
                   "the vCPU to leave the bare guest", interval=LOOK_SECONDS)

    def stop(self):
        self._agent.client.close()
        self._qmp.close()
        self._guest.process.kill()
        self._guest.process.wait()


def _time(call):
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _round(side, seconds, given_back):
    """Up and down once. What is not given back in time is counted, and waited for."""
    for name in VCPU:
        seconds[name].append(_time(getattr(side, name)))
    seconds["grow_1g"].append(_time(side.grow_1g))
    large = side.memory()
    started = time.monotonic()
    side.shrink_1g()
    until(lambda: side.memory() <= side.small + KEPT)
    seconds["shrink_1g"].append(time.monotonic() - started)
    given_back.append(100.0 * (large - side.memory()) / (large - side.small))


def _sides(huskd, reference, directory, load):
    husk = Husk(huskd, reference, load)
    try:
        accelerator, _ = bare_vm.machine_of(huskd)
        return {"husk": husk, "bare": Bare(directory, accelerator, husk.small, load)}
    except BaseException:
        husk.stop()
        raise


def measure(huskd, reference, directory, runs, report):
    """`report(metric, value, unit, baseline)`: for each p50 and p99; `..._vs_bare` is p99. Idle, then under load: `runs`
    tells by the load how often each."""
    for load, count in runs.items():
        if count == 0:
            continue
        suffix = "_loaded" if load else ""
        sides = _sides(huskd, reference, directory, load)
        seconds = {side: {name: [] for name in (*MEMORY, *VCPU)} for side in sides}
        given_back = {side: [] for side in sides}
        try:
            for number in range(count):
                # In turns, so that a slow minute of the machine hits both.
                for name, side in sides.items():
                    _round(side, seconds[name], given_back[name])
                if number % 10 == 9:
                    print(f"run {number + 1} of {count}{' under load' if load else ''}", file=sys.stderr, flush=True)
        finally:
            for side in sides.values():
                side.stop()
        for metric in (*MEMORY, *VCPU):
            mine, bare = seconds["husk"][metric], seconds["bare"][metric]
            report(f"{metric}{suffix}_p50", 1000 * percentile(mine, 0.5), "ms", 1000 * percentile(bare, 0.5))
            report(f"{metric}_vs_bare{suffix}", 1000 * percentile(mine, 0.99), "ms", 1000 * percentile(bare, 0.99))
        report(f"shrink_1g_given_back{suffix}", min(given_back["husk"]), "%", min(given_back["bare"]))
