"""Throughput of volumes in one pod: a directory of the host, and an emptyDir, which is on the pod's scratch disk."""

import pathlib
import statistics
import sys

from harness import guest_programs
from harness.kubelet_files import PodDirectory, mount

MEBIBYTES = 256


def measure(huskd, registry, directory, rounds):
    """{volume: {"write" or "read": MiB/s}}, medians of rounds in turns. `directory`: for what is made on the host."""
    image = registry.push("husk/throughput", layers=guest_programs.image_layers(["volume_throughput"], directory))
    huskd.pull(image)
    shared = pathlib.Path(directory, "shared")
    shared.mkdir()
    config = huskd.pod_config("volumes")
    empty = PodDirectory(directory, config.metadata.uid).volume("empty-dir", "scratch")
    pod = huskd.run_pod_with(config)
    container = pod.run("main", image, ["/bin/sleep", "1000000"], mounts=[
        mount("/virtiofs", shared), mount("/scratch", empty)])
    seconds = {name: {"write": [], "read": []} for name in ("virtiofs", "scratch")}
    for number in range(rounds):
        for name, operations in seconds.items():
            code, output, errors = container.execute("/volume_throughput", f"/{name}", str(MEBIBYTES))
            if code != 0:
                sys.exit(f"volume_throughput in {name}: {output}{errors}")
            for line in output.splitlines():
                operation, value = line.split()
                operations[operation].append(float(value))
            print(f"round {number + 1} of {rounds}: {name} {' '.join(output.split())}", file=sys.stderr)
    pod.remove()
    return {name: {operation: MEBIBYTES / statistics.median(values) for operation, values in operations.items()}
            for name, operations in seconds.items()}
