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
# A kubelet takes ten minutes of two cores; elsewhere more.
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


def program(name):
    """The path of cmd/`name`. Go gets copies of the module's files: it may want to rewrite them."""
    key = hashlib.sha256(b"\0".join((MODULE / file).read_bytes() for file in FILES)).hexdigest()[:32]
    path = _cache() / key / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    version = _version()
    # What a release's linker is told, as far as the programs look at it: a kubelet without a version is refused by others.
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        for file in FILES:
            shutil.copy(MODULE / file, directory)
        subprocess.run(["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", name, f"k8s.io/kubernetes/cmd/{name}"],
                       cwd=directory, check=True, timeout=BUILD_LIMIT_SECONDS,
                       env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"})
        os.replace(pathlib.Path(directory) / name, path)
    return path


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(program(wanted))
