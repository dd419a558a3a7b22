"""The Kubernetes project's own client of streams, e2e/judge, built once for each state of its sources."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "judge"
FILES = ("go.mod", "go.sum", "main.go")


def _cache():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "husk" / "judge"


def build():
    """The program's path. Go gets copies of the sources: it may want to rewrite them."""
    key = hashlib.sha256(b"\0".join((SOURCES / name).read_bytes() for name in FILES)).hexdigest()[:32]
    program = _cache() / key / "judge"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as directory:
        for name in FILES:
            shutil.copy(SOURCES / name, directory)
        subprocess.run(["go", "build", "-trimpath", "-o", "judge", "."], cwd=directory, check=True, timeout=1800,
                       env={**os.environ, "GOFLAGS": "-mod=readonly"})
        os.replace(pathlib.Path(directory) / "judge", program)
    return program


def command(url, *options):
    return [str(build()), *options, url]


def run(url, *options, stdin=b"", timeout=600):
    """(exit code, stdout, stderr) of a command whose whole input is `stdin`."""
    done = subprocess.run(command(url, *options), input=stdin, capture_output=True, timeout=timeout, check=False)
    return done.returncode, done.stdout, done.stderr
