"""What a huskd instance has on the host, counted from outside: from /proc, /sys and the file system alone."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess

CGROUPS = pathlib.Path("/sys/fs/cgroup")


def read_text(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:  # a process or a cgroup that has just gone
        return ""


def process_ids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid):
    return read_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def user(pid):
    """The real uid, or None for a process that has gone."""
    found = re.search(r"^Uid:\t(\d+)", read_text(f"/proc/{pid}/status"), re.MULTILINE)
    return int(found.group(1)) if found else None


def start_time(pid):
    """Clock ticks since boot, or None: with the pid it names a process for good."""
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def state(pid):
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[0] if fields else None


def end(pid, started):
    """kill -9 of the process that started at that time (see start_time()), and its end: its locks and ports are free then.
    One that has gone is none of our business."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time(pid) == started:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
    finally:
        os.close(process)


def resident_bytes(pid):
    """0 for a process that has gone."""
    found = re.search(r"^VmRSS:\s*(\d+) kB", read_text(f"/proc/{pid}/status"), re.MULTILINE)
    return 1024 * int(found.group(1)) if found else 0


def processor_seconds(pid):
    """What a process, without its children, has had of the processors, in the kernel too."""
    fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid):
    """What the descriptors of a process are, without the numbers that tell one socket from another; sorted."""
    result = []
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue
        result.append(re.sub(r"\[\d+\]", "", target))
    return sorted(result)


def links():
    """Names of network interfaces of this namespace."""
    output = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, text=True).stdout
    return {link["ifname"] for link in json.loads(output)}


def mounts():
    return {line.split()[4] for line in read_text("/proc/self/mountinfo").splitlines()}


def firewall_rules(command="iptables"):
    """iptables (or ip6tables) rules and chains, without their counters."""
    result = subprocess.run([command + "-save"], check=False, capture_output=True, text=True)
    return {re.sub(r" \[\d+:\d+\]$", "", line) for line in result.stdout.splitlines() if line.startswith("-A") or
            (line.startswith(":") and " - " in line)} if result.returncode == 0 else set()


def make_cgroup(name):
    """In every hierarchy, as a kubelet wants its root to be."""
    # Of version 1 each mount is a hierarchy, of version 2 the one is all.
    hierarchies = [mount for mount in mounts() if mount == str(CGROUPS) or mount.startswith(f"{CGROUPS}/")]
    for hierarchy in hierarchies:
        if not os.path.exists(f"{hierarchy}/cgroup.procs"):
            continue
        directory = pathlib.Path(hierarchy + name)
        directory.mkdir(exist_ok=True)
        # A new cpuset has no CPUs and no memory, and takes no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (directory / file).exists() and not read_text(directory / file).strip():
                (directory / file).write_text(read_text(f"{hierarchy}/{file}"))


def cgroups(name):
    """Directories of all hierarchies that are a cgroup of this name, or lie in one. husk-e2e3 is not husk-e2e38."""
    found = set()
    for directory, _, _ in os.walk(CGROUPS):
        if name in pathlib.PurePath(directory).parts:
            found.add(directory)
    return found


def tree(directory):
    directory = pathlib.Path(directory)
    return {str(path) for path in directory.rglob("*")} if directory.exists() else set()
