"""A network namespace for a test's own programs: nothing they listen on is seen outside, no address of theirs clashes."""

import ctypes
import os
import pathlib
import subprocess

NAMED = pathlib.Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _join(descriptor):
    # os.setns came with Python 3.12.
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


class NetworkNamespace:
    """Named, as `ip netns` does it, and left by whoever entered it when it ends."""

    def __init__(self, name):
        self.name = name

    def exists(self):
        return (NAMED / self.name).exists()

    def make(self):
        """With a loopback that is up."""
        _ip("netns", "add", self.name)
        _ip("-netns", self.name, "link", "set", "lo", "up")

    def add_interface(self, name, address):
        """A bridge without ports: an interface with an address of its own that every kernel has."""
        _ip("-netns", self.name, "link", "add", name, "type", "bridge")
        _ip("-netns", self.name, "address", "add", address, "dev", name)
        _ip("-netns", self.name, "link", "set", name, "up")

    def add_route(self, network, interface):
        _ip("-netns", self.name, "route", "add", network, "dev", interface)

    def enter(self):
        """The calling thread, and with it whatever it starts from now on. Its mounts stay the host's."""
        descriptor = os.open(NAMED / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _join(descriptor)
        finally:
            os.close(descriptor)

    def remove(self):
        _ip("netns", "delete", self.name)


class Visit:
    """Inside a namespace for the length of a `with`."""

    def __init__(self, namespace):
        self._namespace, self._before = namespace, None

    def __enter__(self):
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._namespace.enter()

    def __exit__(self, *_):
        _join(self._before)
        os.close(self._before)
