"""A gibibyte through a container's standard output, while huskd is killed and its log rotated. One pod is booted."""

import pytest

from harness import guest_programs
from harness.daemon import PATIENCE, eventually
from harness.output_bench import Memory, lines_of, size

MEBIBYTES = 1024
LINE = 1000
KILLS = 6
# Buffers of one stream, copies of what is on its way, and what the allocator keeps; not the log.
MOST_GROWTH = 64 << 20


@pytest.fixture(scope="module")
def writer(huskd, registry):
    image = guest_programs.pulled_image(huskd, registry, "husk/lines", ["write_lines"])
    pod = huskd.run_pod("output")
    yield lambda name, *arguments: pod.run(name, image, ["/write_lines", *map(str, arguments)])
    pod.remove()


class Rotation:
    """Renames a log as the kubelet does; where all its bytes are."""

    def __init__(self, container):
        self.container, self.old = container, []

    def rotate(self):
        self.old.append(self.container.log_path.with_suffix(f".log.{len(self.old)}"))
        self.container.log_path.rename(self.old[-1])

    def paths(self):
        return [*self.old, self.container.log_path]

    def bytes(self):
        return sum(size(path) for path in self.paths())


def check_lines(paths, count):
    """All lines of write_lines, each once and in order, as whole records of stdout."""
    number = 0
    for path in paths:
        with open(path, "rb") as log:
            for record in log:
                _, stream, tag, content = record.split(b" ", 3)
                assert (stream, tag) == (b"stdout", b"F"), f"record {number}: {record[:80]!r} in {path}"
                assert int(content[:20]) == number and len(content) == LINE, f"after {number}: {record[:80]!r} in {path}"
                number += 1
    assert number == count


def test_every_line_arrives_once_and_in_order(huskd, writer):
    container = writer("lines", MEBIBYTES, LINE)
    rotation = Rotation(container)
    memory = Memory(huskd.pid)
    growths = []
    total = lines_of(MEBIBYTES, LINE) * LINE
    for kill in range(1, KILLS + 1):
        part = total * kill // (KILLS + 1)
        eventually(lambda: rotation.bytes() >= part, lambda: f"{part} bytes of {rotation.paths()}: {rotation.bytes()}",
                   PATIENCE + MEBIBYTES, interval=0.02)
        # What the previous huskd wrote may be enough already, before the next one has made its log.
        eventually(container.log_path.exists, f"{container.log_path}", interval=0.02)
        if kill % 3 == 1:
            # Killed between the kubelet's two steps: the next one finds no log of that name.
            rotation.rotate()
        elif kill % 3 == 2:
            rotation.rotate()
            huskd.client.ReopenContainerLog(container_id=container.id)
        memory.stop()
        growths.append(memory.growth())
        huskd.kill()
        huskd.start()
        memory = Memory(huskd.pid)
    assert container.wait(PATIENCE + MEBIBYTES).exit_code == 0
    memory.stop()
    growths.append(memory.growth())
    assert len(rotation.old) == 4
    check_lines(rotation.paths(), lines_of(MEBIBYTES, LINE))
    assert max(growths) < MOST_GROWTH, growths
