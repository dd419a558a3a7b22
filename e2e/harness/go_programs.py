"""The tests' own Go programs, each a module below e2e/, built once for each state of its sources into ~/.cache/husk."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

MODULES = pathlib.Path(__file__).resolve().parents[1]
FILES = ("go.mod", "go.sum", "main.go")


def _cache():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "husk"


def build(name):
    """The path of e2e/NAME's program, which needs no libraries. Go gets copies of the sources: it may want to rewrite them."""
    sources = [MODULES / name / file for file in FILES if (MODULES / name / file).exists()]
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:32]
    program = _cache() / name / key / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        for path in sources:
            shutil.copy(path, directory)
        subprocess.run(["go", "build", "-trimpath", "-o", name, "."], cwd=directory, check=True, timeout=1800,
                       env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"})
        os.replace(pathlib.Path(directory) / name, program)
    return program
