"""Pods whose guest is an attacker's: hostile_agent.c is the /init of a second guest image, and a pod's hostname says what
it does. Which image the next pod boots is decided by the file at `CONFIGURATION`'s path, so the importing module's huskd
must have that configuration."""

import atexit
import contextlib
import functools
import pathlib
import shutil
import subprocess
import tempfile

from harness import cri, guest_programs

_IMAGES = pathlib.Path(tempfile.mkdtemp(prefix="husk-hostile-", dir="/var/tmp"))
atexit.register(shutil.rmtree, _IMAGES, ignore_errors=True)
# Each VM's own user reads it.
_IMAGES.chmod(0o755)
_HONEST = cri.BUILD / "guest" / "initrd"
CONFIGURATION = {"initrd": str(_IMAGES / "initrd")}  # of huskd, below `vm`


def _boot_from(initrd):
    """What the next pod's VM boots."""
    new = _IMAGES / "initrd.new"
    shutil.copyfile(initrd, new)
    new.rename(_IMAGES / "initrd")


@functools.cache
def _hostile_initrd():
    """Built as the real one is."""
    program = guest_programs.compile_program("hostile_agent", _IMAGES)
    script = guest_programs.DIRECTORY.parent / "agent" / "rootfs" / "build"
    subprocess.run([script, "--agent", program, "--output", _IMAGES / "guest"], check=True, stdout=subprocess.DEVNULL)
    return _IMAGES / "guest" / "initrd"


@contextlib.contextmanager
def hostile_pod(huskd, name):
    """A pod of an attacker's; `name` becomes its hostname."""
    _boot_from(_hostile_initrd())
    try:
        pod = huskd.run_pod(name)
    finally:
        _boot_from(_HONEST)
    try:
        yield pod
    finally:
        pod.remove()


_boot_from(_HONEST)
