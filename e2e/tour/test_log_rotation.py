"""The kubelet rotates the log of a container that writes on: no line is lost, and whoever follows it goes on."""

import gzip

from harness import logs
from harness.daemon import eventually
from harness.manifests import pod, shell

ROTATIONS = 3
# A line is a hundred bytes, a second of them more than a third of what the kubelet rotates at.
WRITE = """
i=0
while [ ! -e /tmp/enough ]; do
    j=0
    while [ $j -lt 50 ]; do
        i=$((i+1)) j=$((j+1))
        echo "line $i ...................................................................................."
    done
    sleep 0.2
done
echo "last $i"
sleep 100000
"""
SETTINGS = {"containerLogMaxSize": "64Ki", "containerLogMaxFiles": 100, "containerLogMonitorInterval": "3s",
            "containerLogMaxWorkers": 1}


def numbers(lines):
    return [int(line.split()[1]) for line in lines if line.startswith("line ")]


def test_no_line_is_lost_when_the_kubelet_rotates(cluster, space, tmp_path):
    with cluster.node.configured(**SETTINGS):
        found = space.run(pod("writes", shell("main", WRITE, cluster.image)))
        directory = cluster.node.root / "pod-logs" / f"{space.name}_writes_{found['metadata']['uid']}" / "main"
        with space.following("logs", "--follow", "writes") as log:
            # The newest rotated file is not compressed yet.
            eventually(lambda: len(list(directory.glob("0.log.*"))) >= ROTATIONS and list(directory.glob("0.log.*.gz")),
                       lambda: f"{ROTATIONS} rotations: {sorted(directory.iterdir())}")
            space.execute("writes", "touch", "/tmp/enough")
            followed = log.wait_for(lambda lines: lines and lines[-1].startswith("last "), "the last line")
    last = int(followed[-1].split()[1])
    assert numbers(whole_log(directory, tmp_path)) == list(range(1, last + 1))
    assert numbers(followed) == list(range(1, last + 1))
    assert space.kubectl("logs", "writes", "--tail=1").stdout == f"last {last}\n"
    assert space.get("pod", "writes")["status"]["containerStatuses"][0]["restartCount"] == 0


def whole_log(directory, scratch):
    """The lines of all files, the oldest first; their names are times."""
    lines = []
    for path in [*sorted(directory.glob("0.log.*")), directory / "0.log"]:
        if path.suffix == ".gz":
            plain = scratch / path.stem
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            path = plain
        lines += logs.text(path).splitlines()
    return lines
