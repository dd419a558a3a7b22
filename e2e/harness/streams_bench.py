"""What streams cost: an exec of /bin/true by each way into a container, beside `crun exec` in a guest without Husk; a tar in
and out as kubectl cp does it, beside the same tar through a virtio-serial port of that guest."""

import hashlib
import io
import os
import random
import statistics
import sys
import tarfile
import time

from harness import cri, forward_bench, guest_programs, spdy, websocket
from harness.bare_streams import BareStreams
from harness.kubelet_files import PodDirectory, mount, tmpfs
from harness.storm import percentile

EXECS_PER_ROUND = 20
ARCHIVE_BYTES = 200 * 10**6
# Twice the archive and more: in the guest without Husk a tmpfs gets half of it.
POD_MEMORY = 1 << 30


def archive():
    """A tar of one file of random bytes: (the tar, the hash of the file)."""
    content = os.urandom(ARCHIVE_BYTES)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getbuffer(), hashlib.sha256(content).hexdigest()


def content_hash(pieces):
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return hashlib.sha256(tar.extractfile("./file").read()).hexdigest()


def exec_url(container, command, stdin=False):
    return container.pod.client.Exec(container_id=container.id, cmd=command, stdin=stdin, stdout=True, stderr=True).url


def spdy_exec(container, command, stdin=False, sinks=None):
    types = ["error", *(["stdin"] if stdin else []), "stdout", "stderr"]
    return spdy.Session(exec_url(container, command, stdin), types, sinks=sinks)


def succeed(status, session):
    if status["status"] != "Success":
        sys.exit(f"exec: {status} {session.output}")


class Husk:
    def __init__(self, container):
        self._container = container

    def exec_sync(self):
        if self._container.execute("/bin/true")[0] != 0:
            sys.exit("/bin/true failed")

    def exec_spdy(self):
        session = spdy_exec(self._container, ["/bin/true"])
        succeed(session.finish(), session)

    def exec_websocket(self):
        session = websocket.Session(exec_url(self._container, ["/bin/true"]))
        succeed(session.finish(), session)

    def take(self, data):
        session = spdy_exec(self._container, ["tar", "xf", "-", "-C", "/data"], stdin=True)
        session.write(data)
        session.end()
        succeed(session.finish(), session)

    def give(self):
        pieces = []
        session = spdy_exec(self._container, ["tar", "cf", "-", "-C", "/data", "."], sinks={"stdout": pieces.append})
        succeed(session.finish(), session)
        return pieces


def timed(call, *arguments):
    begin = time.monotonic()
    result = call(*arguments)
    return time.monotonic() - begin, result


def measure_execs(husk, bare, rounds):
    """{way: [seconds]}, in turns; "crun" among them."""
    ways = {"exec_sync": lambda: timed(husk.exec_sync)[0], "exec_spdy": lambda: timed(husk.exec_spdy)[0],
            "exec_websocket": lambda: timed(husk.exec_websocket)[0], "crun": bare.execute}
    seconds = {name: [] for name in ways}
    for number in range(rounds * EXECS_PER_ROUND):
        # In any order: who comes after the other guest finds the caches cold.
        for name in random.sample(list(ways), len(ways)):
            seconds[name].append(ways[name]())
        if number % EXECS_PER_ROUND == EXECS_PER_ROUND - 1:
            print(f"{number + 1} execs: " + ", ".join(
                f"{name} {1000 * statistics.median(values):.0f} ms" for name, values in seconds.items()), file=sys.stderr)
    return seconds


def measure_copies(husk, bare, rounds):
    """{"in" or "out": (MB/s with Husk, MB/s without)}: medians of rounds in turns."""
    data, expected = archive()
    rates = {"in": ([], []), "out": ([], [])}
    for turn in range(rounds):
        for index, side in enumerate((husk, bare)):
            rates["in"][index].append(len(data) / 1e6 / timed(side.take, data)[0])
            seconds, pieces = timed(side.give)
            rates["out"][index].append(sum(map(len, pieces)) / 1e6 / seconds)
            if content_hash(pieces) != expected:
                sys.exit("the file came back as another one")
        print(f"round {turn + 1} of {rounds}: " + ", ".join(
            f"{way} {values[0][-1]:.1f} and {values[1][-1]:.1f} MB/s" for way, values in rates.items()), file=sys.stderr)
    return {way: tuple(map(statistics.median, values)) for way, values in rates.items()}


def measure(huskd, registry, directory, rounds, report):
    """Tells `report(metric, value, unit, baseline)` what it measured."""
    image = guest_programs.pulled_image(huskd, registry, "husk/streams", ["serve_bytes"])
    config = huskd.pod_config("streams", linux={"resources": {"memory_limit_in_bytes": POD_MEMORY}})
    memory = PodDirectory(directory, config.metadata.uid).volume("empty-dir", "data")
    with tmpfs(memory, f"size={POD_MEMORY // 2}"):
        pod = huskd.run_pod_with(config)
        container = pod.run("main", image, ["/serve_bytes", str(forward_bench.PORT)], mounts=[mount("/data", memory)],
                            linux={"security_context": {"namespace_options": {"pid": cri.api.CONTAINER}}})
        container.wait_for_log("listening\n")
        bare = BareStreams(directory, huskd)
        try:
            husk = Husk(container)
            measure_execs(husk, bare, 1)  # Warm: both read what they run.
            execs = measure_execs(husk, bare, rounds)
            copies = measure_copies(husk, bare, rounds)
        finally:
            bare.stop()
        forwards = forward_bench.measure(pod, rounds)
        pod.remove()
    for title, fraction in (("p50", 0.5), ("p99", 0.99)):
        for way, seconds in execs.items():
            if way != "crun":
                report(f"{way}_{title}", 1000 * percentile(seconds, fraction), "ms",
                       1000 * percentile(execs["crun"], fraction))
    for name, rates in (("copy", copies), ("forward", forwards)):
        for way, (rate, other) in rates.items():
            report(f"{name}_{way}", rate, "MB/s", other)
