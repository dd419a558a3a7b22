"""docs/kubernetes-in-ten-minutes.md as a reader would type it, and that nothing is left of it."""

import json
import os
import pathlib
import signal
import subprocess

import pytest

from harness import host
from harness.daemon import eventually

ROOT = pathlib.Path(__file__).resolve().parents[1]
NUMBER = "43"
LIMIT_SECONDS = 600


def blocks():
    """[(heading, commands)] of the tutorial's indented parts."""
    result, heading, lines = [], "", []
    for line in [*(ROOT / "docs" / "kubernetes-in-ten-minutes.md").read_text().splitlines(), "end"]:
        if line.startswith("    "):
            lines.append(line[4:])
            continue
        if lines:
            result.append((heading, "\n".join(lines)))
            lines = []
        if line.startswith("## "):
            heading = line[3:]
    return result


def cluster(*arguments, **options):
    # The tutorial's number is a user's.
    return subprocess.run([ROOT / "e2e" / "cluster", "--number", NUMBER, *arguments], capture_output=True, text=True,
                          timeout=LIMIT_SECONDS, check=False, cwd=ROOT, **options)


def left_of(description):
    """What a cluster that was taken down should not have left: its directories, mounts, processes, cgroups, namespace."""
    directories = [description["directory"], *description["huskd"], description["kubelet"][0],
                   f"/run/husk-cluster{NUMBER}", f"/run/netns/{description['namespace']}"]
    return {"directories": [path for path in directories if os.path.exists(path)],
            "mounts": [mount for mount in host.mounts() if mount.startswith(tuple(directories))],
            "cgroups": host.cgroups(f"husk-e2e{NUMBER}"),
            "interfaces": {name for name in host.links() if name.endswith(f"e2e{NUMBER}")},
            # Of one whose huskd was killed init has the last word.
            "processes": {pid: host.command_line(pid) for pid in host.process_ids() if host.state(pid) != "Z" and (
                (host.user(pid) or 0) // 1000 == 500 + int(NUMBER) or
                any(path in host.command_line(pid) for path in directories))}}


@pytest.fixture(scope="module")
def described():
    started = cluster("up")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        assert "the node is Ready" in started.stdout
        yield json.loads(pathlib.Path(f"/run/husk-cluster{NUMBER}/cluster.json").read_text())
    finally:
        ended = cluster("down")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_tutorial(described):
    typed = [(heading, commands) for heading, commands in blocks()
             if heading not in ("Up", "Down", "Images of your own")]
    assert len(typed) > 10
    # There may be other clusters on the machine: the commands that look for a process shall find this one's.
    users = ",".join(str(500000 + 1000 * int(NUMBER) + user) for user in range(100))
    for heading, commands in typed:
        script = commands.replace("pgrep --newest huskd", f"pgrep --newest --full '[h]uskd --config.*{described['socket']}'")
        script = script.replace("pgrep --newest qemu", f"pgrep --newest --uid {users} qemu")
        ended = cluster("shell", "-c", f"set -e -m -o pipefail\n{script}\n")
        assert ended.returncode == 0, f"{heading}:\n{commands}\n--- says\n{ended.stdout}\n{ended.stderr}"


def test_a_keeper_that_is_killed_leaves_what_down_removes(described):
    keeper = int(pathlib.Path(f"/run/husk-cluster{NUMBER}/keeper").read_text().split()[0])
    again = cluster("up")
    assert again.returncode != 0 and "it is up already" in again.stderr
    assert any(any(kind) for kind in left_of(described).values())
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: cluster("status").returncode != 0, "the end of the keeper")
    ended = cluster("down")
    assert ended.returncode == 0 and "the cluster's process was killed" in ended.stdout, ended.stdout + ended.stderr
    assert not any(left_of(described).values())


def test_down_leaves_nothing(described):
    """The tutorial's cluster is gone by now: this one's pod is running when it is taken down."""
    assert cluster("up").returncode == 0
    now = json.loads(pathlib.Path(f"/run/husk-cluster{NUMBER}/cluster.json").read_text())
    started = cluster("kubectl", "run", "last", f"--image={now['image']}", "--command", "--", "sleep", "infinity")
    assert started.returncode == 0, started.stderr
    waited = cluster("kubectl", "wait", "pod", "last", "--for=condition=Ready", "--timeout=300s")
    assert waited.returncode == 0, waited.stderr
    ended = cluster("down")
    assert ended.returncode == 0 and "left behind" not in ended.stdout, ended.stdout + ended.stderr
    assert not any(left_of(now).values())
