"""How long a VM takes to become a gibibyte or a vCPU larger or smaller: by UpdateContainerResources of a real huskd, against
the same guest in a QEMU without Husk, which is driven over QMP and whose agent is asked directly."""

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import signal
import socket
import sys
import time

from harness import bare_vm, cri, host
from harness.daemon import PATIENCE, eventually
from harness.storm import percentile
from harness.vm_size import KEPT, MEBIBYTE

GIBIBYTE = 1 << 30
# The container's limit when it is small; its VM is some MiB larger. For each 64 bytes it gets one more, for the kernel's
# map of them: with so much more for the container the VM grows by a gibibyte, as the bare one does.
SMALL_LIMIT = 256 * MEBIBYTE
MORE_FOR_CONTAINER = GIBIBYTE * 63 // 64
# Of a CPU's time the container has less than a VM with one vCPU, as a pod has whose RuntimeClass announces an overhead: a
# quota that the container uses up alone would hold up QEMU's own threads.
PERIOD = 100000
SMALL_QUOTA, OVERHEAD_QUOTA = 75000, 25000
LARGE_QUOTA = SMALL_QUOTA + PERIOD
LOOK_SECONDS = 0.005
# What a guest has not given back by then is not waited for.
SHRINK_SECONDS = 5.0
# A guest may be busy for longer than it is waited for, with the last of its memory; when its QEMU takes less than a tenth of
# a processor, it is not.
CALM_SECONDS, CALM_SHARE, MOST_CALM_SECONDS = 0.5, 0.1, 20.0
PLUGGABLE = 2 * GIBIBYTE
MOST_VCPUS = 2
# Takes 64 MiB, writes to all of them and lets them go, again and again.
LOAD = "while :; do head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; done"
MEMORY = ("grow_1g", "shrink_1g")
VCPU = {"vcpu_add": 2, "vcpu_del": 1}  # and how many there are then


def _module(path):
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.stem, loader))
    loader.exec_module(module)
    return module


def until(check, started):
    """Looks all the time, and ends when check() is true, or SHRINK_SECONDS after `started`."""
    while not check() and time.monotonic() - started < SHRINK_SECONDS:
        time.sleep(LOOK_SECONDS)


class Husk:
    def __init__(self, huskd, reference, load):
        self._pod = huskd.run_pod("resized", linux={
            "resources": {"memory_limit_in_bytes": SMALL_LIMIT, "cpu_quota": SMALL_QUOTA, "cpu_period": PERIOD},
            "overhead": {"cpu_quota": OVERHEAD_QUOTA, "cpu_period": PERIOD}})
        self._container = self._pod.run("main", reference, ["/bin/sh", "-c", LOAD if load else "exec sleep 1000000"], linux={
            "resources": {"memory_limit_in_bytes": SMALL_LIMIT, "cpu_quota": SMALL_QUOTA, "cpu_period": PERIOD}})
        self.small = self.memory()
        self.process = huskd.vm_process_of(self._pod)

    def _vm(self):
        return json.loads(self._pod.client.PodSandboxStatus(pod_sandbox_id=self._pod.id, verbose=True).info["vm"])

    def memory(self):
        return self._vm()["memoryBytes"]

    def vcpus(self):
        return self._vm()["onlineVcpus"]

    def _update(self, **resources):
        self._pod.client.UpdateContainerResources(container_id=self._container.id, linux=resources)

    def grow_1g(self):
        self._update(memory_limit_in_bytes=SMALL_LIMIT + MORE_FOR_CONTAINER)

    def shrink_1g(self):
        self._update(memory_limit_in_bytes=SMALL_LIMIT)

    def vcpu_add(self):
        self._update(cpu_quota=LARGE_QUOTA, cpu_period=PERIOD)

    def vcpu_del(self):
        self._update(cpu_quota=SMALL_QUOTA, cpu_period=PERIOD)

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


class Quota:
    """A cgroup on the host that has a process, and as much CPU time as a pod with such limits: what QEMU's threads take counts
    in it on both sides."""

    NAME = "/husk-bench-bare"

    def __init__(self, process):
        host.make_cgroup(self.NAME)
        self._directories = [pathlib.Path(found) for found in host.cgroups(self.NAME.strip("/"))]
        for directory in self._directories:
            (directory / "cgroup.procs").write_text(str(process))

    def set(self, quota):
        v1, v2 = ([directory / name for directory in self._directories if (directory / name).exists()]
                  for name in ("cpu.cfs_quota_us", "cpu.max"))
        for file in v1:
            file.write_text(str(quota))
        for file in v2:
            file.write_text(f"{quota} {PERIOD}")
        if not v1 and not v2:
            raise RuntimeError(f"no cgroup {self.NAME} can limit CPU time")

    def remove(self):
        for directory in self._directories:
            directory.rmdir()


class Bare:
    """As large as Husk's, with Husk's kernel, agent, accelerator and kinds of memory (shared with other processes, and what
    the guest has free goes back to the host), and with the CPU time of Husk's pod."""

    def __init__(self, directory, accelerator, memory, load):
        walk = _module(bare_vm.ROOT / "agent" / "guest" / "e2e" / "agent_guest_e2e.py")
        sys.path.insert(0, str(cri.BUILD / "agent" / "guest" / "python"))
        # Where it lies is known by now.
        from agent.proto import agent_pb2 as proto  # pylint: disable=import-outside-toplevel
        directory = pathlib.Path(directory, f"bare-{load}")
        directory.mkdir()
        self._guest = walk.guests.Guest(
            bare_vm.GUEST, directory, walk.make_disks(directory), f"{memory >> 10}K,maxmem={(memory + PLUGGABLE) >> 10}K",
            machine=[*(bare_vm.KVM if accelerator == "kvm" else bare_vm.TCG), "-machine", "memory-backend=boot"],
            # docs/adr/0118
            processors=f"cpus={1 if accelerator == 'kvm' else MOST_VCPUS},maxcpus={MOST_VCPUS},sockets={MOST_VCPUS},"
                       "cores=1,threads=1",
            kernel_options=" maxcpus=1",
            devices=["-object", f"memory-backend-memfd,id=boot,size={memory},share=on,reserve=off",
                     "-object", f"memory-backend-memfd,id=pluggable,size={PLUGGABLE},share=on,reserve=off",
                     "-device", "virtio-mem-pci,id=memory,memdev=pluggable,requested-size=0",
                     "-device", "virtio-balloon-pci,free-page-reporting=on"])
        self.process = self._guest.process.pid
        self._stays = accelerator != "kvm"
        self._load = load
        self.small = memory
        self._quota = Quota(self.process)
        try:
            self._begin(walk, proto, directory)
        except BaseException:
            self._end()
            raise

    def _end(self):
        self._guest.stop()
        self._quota.remove()

    def _begin(self, walk, proto, directory):
        self._guest.wait_for_port()
        self._agent = walk.Pod(proto, self._guest)
        walk.configure(self._agent)
        self._qmp = Qmp(directory / "qmp.sock")
        # As huskd does: the guest's choice of zones for memory that comes.
        self._online(1)
        if self._load:
            self._agent.run("load", ["sh", "-c", LOAD])
        self._limit(SMALL_QUOTA)
        self._quota.set(SMALL_QUOTA + OVERHEAD_QUOTA)

    def _online(self, count):
        self._vcpus = self._agent.client.call("ResizeGuest", cpus=count).online_cpus

    def vcpus(self):
        return self._vcpus

    def _limit(self, quota):
        if self._load:
            limits = {"cpu": {"quota": quota, "period": PERIOD}}
            self._agent.client.call("UpdateResources", container_id="load", resources_json=json.dumps(limits).encode())

    def _plugged(self):
        return self._qmp("query-memory-devices")[0]["data"]["size"]

    def memory(self):
        return self.small + self._plugged()

    def _request(self, size):
        self._qmp("qom-set", path="/machine/peripheral/memory", property="requested-size", value=size)

    def grow_1g(self):
        self._request(GIBIBYTE)
        eventually(lambda: self._plugged() >= GIBIBYTE, "a gibibyte in the bare guest", interval=LOOK_SECONDS)
        # QEMU counts memory that the guest is still about to bring online; when it answers it has.
        self._online(1)

    def shrink_1g(self):
        self._request(0)

    def vcpu_add(self):
        self._quota.set(LARGE_QUOTA + OVERHEAD_QUOTA)
        free = [slot for slot in self._qmp("query-hotpluggable-cpus") if "qom-path" not in slot]
        if free:
            slot = min(free, key=lambda slot: slot["props"]["socket-id"])
            self._qmp("device_add", driver=slot["type"], id="vcpu1", **slot["props"])
        self._online(2)
        self._limit(LARGE_QUOTA)

    def vcpu_del(self):
        self._limit(SMALL_QUOTA)
        self._online(1)
        if not self._stays:
            self._qmp("device_del", id="vcpu1")
            eventually(lambda: any("qom-path" not in slot for slot in self._qmp("query-hotpluggable-cpus")),
                       "the vCPU to leave the bare guest", interval=LOOK_SECONDS)
        self._quota.set(SMALL_QUOTA + OVERHEAD_QUOTA)

    def stop(self):
        self._agent.client.close()
        self._qmp.close()
        self._end()


def _time(call):
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _calm(side):
    for _ in range(int(MOST_CALM_SECONDS / CALM_SECONDS)):
        before = host.processor_seconds(side.process)
        time.sleep(CALM_SECONDS)
        if host.processor_seconds(side.process) - before < CALM_SHARE * CALM_SECONDS:
            return


@contextlib.contextmanager
def _alone(side, other, load):
    """What is measured has the machine for itself. A guest under load is never calm: it stands still."""
    if load:
        os.kill(other.process, signal.SIGSTOP)
        time.sleep(CALM_SECONDS)
        yield
        os.kill(other.process, signal.SIGCONT)
    else:
        _calm(other)
        _calm(side)
        yield


def _round(side, seconds, given_back):
    """Up and down once. What is not given back in time is counted."""
    for name, vcpus in VCPU.items():
        seconds[name].append(_time(getattr(side, name)))
        if side.vcpus() != vcpus:
            raise RuntimeError(f"after {name} the guest uses {side.vcpus()} vCPUs")
    seconds["grow_1g"].append(_time(side.grow_1g))
    large = side.memory()
    if large - side.small != GIBIBYTE:
        raise RuntimeError(f"the VM grew from {side.small} to {large} bytes, not by a gibibyte")
    started = time.monotonic()
    side.shrink_1g()
    until(lambda: side.memory() <= side.small + KEPT, started)
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
    """`report(metric, value, unit, baseline)`: for each the first, and p50 and p99 of those after it; `..._vs_bare` is p99.
    Idle, then under load: `runs` tells by the load how often each."""
    for load, count in runs.items():
        if count == 0:
            continue
        suffix = "_loaded" if load else ""
        sides = _sides(huskd, reference, directory, load)
        seconds = {side: {name: [] for name in (*MEMORY, *VCPU)} for side in sides}
        given_back = {side: [] for side in sides}
        try:
            # The first is told by itself: an emulator translates what the guest runs for the first time.
            for number in range(count + 1):
                # In turns, so that a slow minute of the machine hits both.
                for name, other in (("husk", "bare"), ("bare", "husk")):
                    with _alone(sides[name], sides[other], load):
                        _round(sides[name], seconds[name], given_back[name])
                if number > 0 and number % 10 == 0:
                    print(f"run {number} of {count}{' under load' if load else ''}", file=sys.stderr, flush=True)
        finally:
            for side in sides.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(side.process, signal.SIGCONT)
                side.stop()
        for metric in (*MEMORY, *VCPU):
            (first, *mine), (bare_first, *bare) = seconds["husk"][metric], seconds["bare"][metric]
            report(f"{metric}{suffix}_first", 1000 * first, "ms", 1000 * bare_first)
            report(f"{metric}{suffix}_p50", 1000 * percentile(mine, 0.5), "ms", 1000 * percentile(bare, 0.5))
            report(f"{metric}_vs_bare{suffix}", 1000 * percentile(mine, 0.99), "ms", 1000 * percentile(bare, 0.99))
        report(f"shrink_1g_given_back{suffix}", min(given_back["husk"]), "%", min(given_back["bare"]))
