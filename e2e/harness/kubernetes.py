"""Kubernetes' own programs, built from the Go module that e2e/kubernetes/go.mod pins, once for each state of it.

As a command: kubernetes.py [PROGRAM...] builds them, all by default, and prints where they are."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MODULE = pathlib.Path(__file__).resolve().parents[1] / "kubernetes"
FILES = ("go.mod", "go.sum")
ALL = ("kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl")
# All of them take a quarter of an hour of two cores; elsewhere more.
BUILD_LIMIT_SECONDS = 3600


def _cache():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "husk" / "kubernetes"


def _version():
    for line in (MODULE / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1]
    raise RuntimeError(f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes")


def _place():
    key = hashlib.sha256(b"\0".join((MODULE / file).read_bytes() for file in FILES)).hexdigest()[:32]
    return _cache() / key


def missing(names=ALL):
    """Those that programs() would have to build."""
    return [name for name in names if not (_place() / name).exists()]


def programs(names=ALL, say=None):
    """Paths of cmd/NAME, by name; those that are missing are built together, because they share most of what they are
    made of. Go gets copies of the module's files: it may want to rewrite them. `say` gets a line now and then."""
    absent = missing(names)
    if absent:
        _place().mkdir(parents=True, exist_ok=True)
        _build(absent, _place(), say)
    return {name: _place() / name for name in names}


def program(name):
    return programs([name])[name]


def _run(command, directory, say):
    # A compiler that collects its garbage less often takes a fifth less time; none shall take the machine's memory for it.
    sooner = {"GOGC": "400", "GOMEMLIMIT": "3GiB"}
    environment = {**sooner, **os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    if say is None:
        subprocess.run(command, cwd=directory, check=True, timeout=BUILD_LIMIT_SECONDS, env=environment)
        return
    with subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        last = []
        for count, line in enumerate(process.stdout, 1):
            last = [*last[-20:], line]
            if count % 100 == 0:
                say(f"{count} packages")
    if process.returncode != 0:
        raise RuntimeError(f"Go could not build Kubernetes' programs:\n{''.join(last)}")


def _build(names, place, say):
    version = _version()
    # What a release's linker is told, as far as the programs look at it: a kubelet without a version is refused by others.
    variables = {"gitVersion": version, "gitMajor": version.lstrip("v").split(".")[0], "gitMinor": version.split(".")[1]}
    flags = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for file in FILES:
            shutil.copy(MODULE / file, directory)
        output = pathlib.Path(directory) / "bin"
        output.mkdir()
        command = ["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(output),
                   *(f"k8s.io/kubernetes/cmd/{name}" for name in names)]
        _run(command, directory, say)
        for name in names:
            os.replace(output / name, place / name)


if __name__ == "__main__":
    for path in programs(sys.argv[1:] or ALL).values():
        print(path)
