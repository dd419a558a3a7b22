"""deploy/quickstart as a user runs it, twice, then --clean; and once interrupted. An instance of a name of its own."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from harness import cri, host

SOURCE = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = SOURCE / "deploy" / "quickstart"
NAME = "husk-qs-test"

pytestmark = pytest.mark.skipif(cri.BUILD != SOURCE / "build" / "release",
                                reason="quickstart builds and runs build/release, which is not what is tested here")


def quickstart(*arguments):
    result = subprocess.run([str(SCRIPT), "--name", NAME, *arguments], stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
    print(result.stdout)
    return result


def traces():
    """What an instance of this name has on the host. A QEMU shows by its cgroup: its command line names no path."""
    mine = (f"/var/lib/{NAME}", f"/run/{NAME}")
    found = {path for path in mine if os.path.lexists(path)}
    found |= {f"mount {mount}" for mount in host.mounts() if mount.startswith(mine)}
    found |= {f"interface {name}" for name in host.links() if name == NAME}
    found |= {f"cgroup {path}" for path in host.cgroups(NAME)}
    found |= {f"rule {rule}" for rule in host.firewall_rules() if NAME in rule}
    found |= {f"process {host.command_line(pid)}" for pid in host.process_ids()
              if any(directory in host.command_line(pid) for directory in mine)}
    return found


@pytest.fixture(autouse=True)
def clean_afterwards():
    assert not traces(), "left over from before: run deploy/quickstart --clean --name " + NAME
    firewall, links = host.firewall_rules(), host.links()
    yield
    with contextlib.suppress(subprocess.TimeoutExpired):
        quickstart("--clean")
    assert traces() == set()
    assert host.firewall_rules() == firewall
    assert host.links() == links


def facts(output):
    inside = output.split("== From inside the pod", 1)[1].split("== Where the time went", 1)[0]
    return dict(re.findall(r"^  (kernel|CPUs|memory|address|greeting) +(.*)$", inside, re.MULTILINE))


def test_quickstart_twice_then_clean():
    first = quickstart()
    assert first.returncode == 0
    told = facts(first.stdout)
    assert told["kernel"] and os.uname().release not in told["kernel"]
    assert int(told["CPUs"]) >= 1
    assert re.fullmatch(r"\d+ MiB", told["memory"])
    assert re.fullmatch(r"10\.\d+\.0\.\d+", told["address"])
    assert told["greeting"] == "from inside a virtual machine of this pod's own"

    # What it says to type next works as it stands.
    alias = re.search(r"alias hk='(.*)'", first.stdout).group(1)
    command = re.search(r"^  hk (exec \S+ -- ip addr)", first.stdout, re.MULTILINE).group(1)
    inside = subprocess.run(f"{alias} {command}", shell=True, check=True, capture_output=True, text=True)
    assert told["address"] in inside.stdout

    started = time.monotonic()
    second = quickstart()
    print(f"the second run took {time.monotonic() - started:.1f} s")
    assert second.returncode == 0
    assert facts(second.stdout)["kernel"] == told["kernel"]
    assert quickstart("--clean").returncode == 0
    assert traces() == set()


def test_interrupted_quickstart_leaves_nothing():
    with subprocess.Popen([str(SCRIPT), "--name", NAME], stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as process:
        for line in process.stdout:
            if line.startswith("== Pod"):
                break
        time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
        rest = process.stdout.read()
        print(rest)
    assert process.returncode == 130
    assert "interrupted: cleaning up" in rest
    assert traces() == set()
