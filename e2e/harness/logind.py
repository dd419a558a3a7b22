"""A stand-in of systemd's logind on a message bus of its own: it lends inhibitor locks, and says that the node is shutting
down when it is told to. Run as a program it is the service itself, with the bus's address as its argument."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SERVICE, OBJECT, MANAGER = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
# More than any kubelet here asks for: it would have to rewrite the host's configuration of logind.
LONGEST_DELAY_MICROSECONDS = 3600 * 1000 * 1000

BUS_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_type="signal"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
  </policy>
</busconfig>
"""


class Logind:
    """For the length of a `with`. `address` is the bus's, for DBUS_SYSTEM_BUS_ADDRESS."""

    def __init__(self):
        # A socket's path is short.
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="hkbus", dir="/run"))
        self.address = f"unix:path={self._directory / 'bus'}"
        self._bus = self._service = None

    def __enter__(self):
        from harness.following import Following  # pylint: disable=import-outside-toplevel  (the service needs none of it)
        configuration = self._directory / "bus.conf"
        configuration.write_text(BUS_CONFIGURATION.format(socket=self._directory / "bus"))
        try:
            self._bus = subprocess.Popen(["dbus-daemon", "--config-file", configuration, "--nofork", "--nopidfile",
                                          "--print-address"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         start_new_session=True)
            assert self._bus.stdout.readline(), "dbus-daemon says no address"
            self._service = Following(["/usr/bin/python3", __file__, self.address])
            self._service.wait_for_line("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _said(self, what):
        return self._service.lines.count(what)

    def wait_for_lock(self, count=1):
        """Until that many were asked for. A kubelet 1.36 that asks again after a shutdown was called off closes the descriptor
        of its first lock a second time, and so may let the new one go at once, should it have got the same number."""
        self._service.wait_for(lambda _: self._said("locked") >= count, f"lock {count} of the kubelet's")

    def wait_for_release(self):
        self._service.wait_for(lambda _: self._said("locked") == self._said("released"), "the lock to be released")

    def shut_down(self):
        self._service.type("shut down\n")

    def cancel(self):
        self._service.type("cancel\n")

    def __exit__(self, *_):
        if self._service is not None:
            self._service.close()
        if self._bus is not None:
            self._bus.kill()
            self._bus.wait()
            self._bus.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def serve(address):
    import dbus  # pylint: disable=import-outside-toplevel  (Debian's, and not needed by who only imports Logind)
    import dbus.bus
    import dbus.mainloop.glib
    import dbus.service
    from gi.repository import GLib

    def say(line):
        print(line, flush=True)

    class Manager(dbus.service.Object):
        @dbus.service.method(dbus.PROPERTIES_IFACE, in_signature="ss", out_signature="v")
        def Get(self, interface, name):
            if (interface, name) != (MANAGER, "InhibitDelayMaxUSec"):
                raise dbus.exceptions.DBusException(f"there is no {interface}.{name}")
            return dbus.UInt64(LONGEST_DELAY_MICROSECONDS)

        @dbus.service.method(MANAGER, in_signature="ssss", out_signature="h")
        def Inhibit(self, what, who, why, mode):  # pylint: disable=unused-argument
            if (what, mode) != ("shutdown", "delay"):
                raise dbus.exceptions.DBusException(f"no such lock here: {what}, {mode}")
            mine, theirs = os.pipe2(os.O_CLOEXEC)
            GLib.io_add_watch(mine, GLib.IO_HUP, released)
            say("locked")
            try:
                return dbus.types.UnixFd(theirs)  # a duplicate
            finally:
                os.close(theirs)

        @dbus.service.signal(MANAGER, signature="b")
        def PrepareForShutdown(self, active):
            pass

    def released(descriptor, _):
        os.close(descriptor)
        say("released")
        return False

    def told(stream, _):
        line = stream.readline()
        if not line:
            loop.quit()
            return False
        manager.PrepareForShutdown(line.strip() == "shut down")
        return True

    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    loop = GLib.MainLoop()
    bus = dbus.bus.BusConnection(address)
    name = dbus.service.BusName(SERVICE, bus)
    manager = Manager(name, OBJECT)
    GLib.io_add_watch(sys.stdin, GLib.IO_IN | GLib.IO_HUP, told)
    say("ready")
    loop.run()


if __name__ == "__main__":
    serve(sys.argv[1])
