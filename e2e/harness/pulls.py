"""One image through Husk, containerd, skopeo with umoci, and a pipe of curl: what `bench pull` compares."""

import contextlib
import dataclasses
import os
import pathlib
import resource
import shutil
import subprocess
import time

from harness.registry import sample_image

TOOLS = {"curl": "curl", "igzip": "isal", "sha256sum": "coreutils", "openssl": "openssl", "containerd": "containerd",
         "ctr": "containerd", "skopeo": "skopeo", "umoci": "umoci"}

# What Husk fetches at once by default, and the bound with it.
PARALLEL_LAYERS = 3


@dataclasses.dataclass
class Usage:
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None = None  # resident, of the daemon or of the largest process


def missing_tools():
    """Packages to install before this can run."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def push(registry, repository, layers):
    """Pushes layers of bench_image as they are; the reference."""
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/bash"], "Env": ["PATH=/usr/bin:/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]}}
    blobs = []
    for layer in layers:
        content = pathlib.Path(layer["path"]).read_bytes()
        blobs.append({"mediaType": sample_image.LAYER_TYPE, **registry.client.push_blob(repository, content)})
    registry.client.push_manifest(repository, "latest", config, blobs)
    return f"{registry.address}/{repository}:latest"


def forget_caches():
    """So that nobody profits from who came before. Where the host does not allow it all run warm alike."""
    os.sync()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def _cpu_of(pid):
    """Seconds of a process, its ended children included."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _reset_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_of(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no VmHWM")


def measure(work, daemon=None):
    """Runs work(). The figures are those of the commands that it runs and, if one is named, of the daemon."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if daemon:
        _reset_peak(daemon)
        daemon_before = _cpu_of(daemon)
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not daemon:
        return Usage(seconds, cpu)
    return Usage(seconds, cpu + _cpu_of(daemon) - daemon_before, _peak_of(daemon))


def _run(*command, **options):
    options.setdefault("input", "")
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


class Bound:
    """curl | decompress | hash, as many layers at once as Husk fetches. Nothing is kept, so nobody can beat it by much."""

    def __init__(self, registry, repository, layers, hasher):
        self._layers, self._hasher = layers, hasher
        self._urls = [f"http://{registry.address}/v2/{repository}/blobs/{layer['digest']}" for layer in layers]

    def pull(self):
        script = f'set -o pipefail; curl -fsS "$0" | igzip -dc | {self._hasher}'
        output = _run("xargs", "-P", PARALLEL_LAYERS, "-n", "1", "bash", "-c", script, input="\n".join(self._urls))
        for layer in self._layers:
            if layer["diff_id"].removeprefix("sha256:") not in output:
                raise RuntimeError(f"layer {layer['name']} came out with another digest:\n{output}")

    def forget(self):
        pass

    def measure(self):
        return measure(self.pull)

    def stop(self):
        pass


class Husk:
    def __init__(self, huskd, reference):
        self._huskd, self._reference = huskd, reference

    def measure(self):
        return measure(lambda: self._huskd.pull(self._reference), self._huskd.pid)

    def forget(self):
        self._huskd.client.RemoveImage(image={"image": self._reference})

    def stop(self):
        pass


class Containerd:
    """A containerd of our own: pull and unpack with overlayfs."""

    def __init__(self, directory, reference):
        self._reference = reference
        self._directory = pathlib.Path(directory, "containerd")
        self._directory.mkdir()
        self._socket = self._directory / "c.sock"
        config = self._directory / "config.toml"
        config.write_text(f'version = 2\nroot = "{self._directory}/root"\nstate = "{self._directory}/state"\n'
                          f'[grpc]\naddress = "{self._socket}"\n')
        self._log = open(self._directory / "log", "wb")
        self._process = subprocess.Popen(["containerd", "--config", config], stdin=subprocess.DEVNULL, stdout=self._log,
                                         stderr=self._log, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._ctr("version")
                return
            except RuntimeError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.2)

    def _ctr(self, *arguments):
        return _run("ctr", "--address", self._socket, *arguments)

    def measure(self):
        return measure(lambda: self._ctr("images", "pull", "--plain-http", self._reference), self._process.pid)

    def forget(self):
        self._ctr("images", "remove", "--sync", self._reference)
        # What a snapshot was unpacked from is collected with it.
        self._ctr("content", "prune", "references")

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class SkopeoUmoci:
    def __init__(self, directory, reference):
        self._reference = reference
        self._directory = pathlib.Path(directory, "umoci")

    def _pull(self):
        layout = self._directory / "layout"
        _run("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{self._reference}",
             f"oci:{layout}:latest")
        _run("umoci", "unpack", "--image", f"{layout}:latest", self._directory / "bundle")

    def measure(self):
        self._directory.mkdir()
        return measure(self._pull)

    def forget(self):
        shutil.rmtree(self._directory)

    def stop(self):
        pass
