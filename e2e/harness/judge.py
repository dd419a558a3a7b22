"""The Kubernetes project's own client of streams, e2e/judge."""

import subprocess

from harness import go_programs


def build():
    return go_programs.build("judge")


def command(url, *options):
    return [str(build()), *options, url]


def run(url, *options, stdin=b"", timeout=600):
    """(exit code, stdout, stderr) of a command whose whole input is `stdin`."""
    done = subprocess.run(command(url, *options), input=stdin, capture_output=True, timeout=timeout, check=False)
    return done.returncode, done.stdout, done.stderr
