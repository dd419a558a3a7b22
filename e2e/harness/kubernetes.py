"""Kubernetes' own programs, built from the Go module that e2e/kubernetes/go.mod pins, once for each state of it.

As a command: kubernetes.py PROGRAM... builds them and prints where they are."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

MODULE = pathlib.Path(__file__).resolve().parents[1] / "kubernetes"
FILES = ("go.mod", "go.sum")
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


def programs(names):
    """Paths of cmd/NAME, by name; those that are missing are built together, because they share most of what they are
    made of. Go gets copies of the module's files: it may want to rewrite them."""
    key = hashlib.sha256(b"\0".join((MODULE / file).read_bytes() for file in FILES)).hexdigest()[:32]
    place = _cache() / key
    missing = [name for name in names if not (place / name).exists()]
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        _build(missing, place)
    return {name: place / name for name in names}


def program(name):
    return programs([name])[name]


def _build(names, place):
    version = _version()
    # What a release's linker is told, as far as the programs look at it: a kubelet without a version is refused by others.
    variables = {"gitVersion": version, "gitMajor": version.lstrip("v").split(".")[0], "gitMinor": version.split(".")[1]}
    flags = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items())
    with tempfile.TemporaryDirectory(dir=place) as directory:
        for file in FILES:
            shutil.copy(MODULE / file, directory)
        output = pathlib.Path(directory) / "bin"
        output.mkdir()
        subprocess.run(["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(output),
                        *(f"k8s.io/kubernetes/cmd/{name}" for name in names)],
                       cwd=directory, check=True, timeout=BUILD_LIMIT_SECONDS,
                       env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"})
        for name in names:
            os.replace(output / name, place / name)


if __name__ == "__main__":
    for path in programs(sys.argv[1:]).values():
        print(path)
