"""A part of the host's cgroup tree for a kubelet that puts its pods into cgroups."""

import contextlib

from harness import host
from harness.daemon import eventually


def hierarchies():
    """Where cgroups can be made: the unified tree, or each of the older kind."""
    if (host.CGROUPS / "cgroup.controllers").exists():
        return [host.CGROUPS]
    return [path for path in host.CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _remove(name):
    for directory in sorted(host.cgroups(name), reverse=True):
        with contextlib.suppress(OSError):
            (host.CGROUPS / directory).rmdir()
    return not host.cgroups(name)


@contextlib.contextmanager
def tree(name):
    """/NAME in all hierarchies, for the length of a `with`; whoever used it must have left it by then."""
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
    try:
        yield f"/{name}"
    finally:
        eventually(lambda: _remove(name), lambda: f"to remove {sorted(host.cgroups(name))}")
