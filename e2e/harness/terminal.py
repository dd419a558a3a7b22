"""A program that has a terminal of its own: a pty, or a window of tmux, whose screen can be looked at."""

import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading

from harness.daemon import PATIENCE, eventually


# The leader of the terminal's session. It stays until it is told to go: with the leader's end the kernel would set the
# terminal back to what it was, and nobody could see in which mode the program left it.
LEADER = """
import fcntl, os, signal, subprocess, sys, termios
signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the child, which does not inherit this
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
report, stay = int(sys.argv[1]), int(sys.argv[2])
child = subprocess.Popen(sys.argv[3:])
os.write(report, b"%d\\n" % child.pid)
os.write(report, b"%d\\n" % child.wait())
os.read(stay, 1)
"""


class PtyProgram:
    """`command` with a new pty as its controlling terminal. What it writes is collected."""

    def __init__(self, command, width=80, height=24):
        self._master, slave = pty.openpty()
        self.resize(width, height)
        self.mode_before = self.mode()
        self.output = b""
        self._changed = threading.Condition()
        report, report_end = os.pipe()
        stay_end, self._stay = os.pipe()
        self._leader = subprocess.Popen([sys.executable, "-c", LEADER, str(report_end), str(stay_end), *command],
                                        stdin=slave, stdout=slave, stderr=slave, pass_fds=(report_end, stay_end),
                                        start_new_session=True)
        for descriptor in (slave, report_end, stay_end):
            os.close(descriptor)
        self._report = os.fdopen(report, "rb", buffering=0)  # no line may wait where select does not see it
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = int(self._report.readline())

    def _read(self):
        with contextlib.suppress(OSError):
            while piece := os.read(self._master, 65536):
                with self._changed:
                    self.output += piece
                    self._changed.notify_all()

    def resize(self, width, height):
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def mode(self):
        return termios.tcgetattr(self._master)  # is the other side's

    def is_raw(self):
        return not self.mode()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, keys):
        os.write(self._master, keys)

    def wait_for(self, needle, seconds=PATIENCE):
        with self._changed:
            assert self._changed.wait_for(lambda: needle in self.output, seconds), (needle, self.output)

    def wait(self, seconds=PATIENCE):
        """Its exit code, a signal's number as a negative one; it must have left the terminal as it was."""
        ready, _, _ = select.select([self._report], [], [], seconds)
        assert ready, f"it does not end; its output: {self.output}"
        code = int(self._report.readline())
        assert self.mode() == self.mode_before
        return code

    def close(self):
        os.close(self._stay)
        if self._leader.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._leader.wait(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        self._leader.wait()
        self._report.close()
        self._reader.join(10)
        os.close(self._master)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Tmux:
    """A tmux server of its own with one window, in which a shell runs. Its socket is the caller's to remove."""

    def __init__(self, socket_path, width=100, height=30):
        self._base = ["tmux", "-S", str(socket_path), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "/bin/sh")

    def _run(self, *arguments):
        return subprocess.run([*self._base, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

    def resize(self, width, height):
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def type(self, text):
        self._run("send-keys", "-l", text)

    def press(self, key):
        self._run("send-keys", key)

    def command(self, words):
        self.type(shlex.join(words) + "; echo ended with $?")
        self.press("Enter")

    def screen(self):
        return self._run("capture-pane", "-p").split("\n")[:-1]

    def wait_for(self, check, what):
        """Until check(lines of the screen) is true; the lines."""
        seen = []

        def look():
            seen[:] = self.screen()
            return check(seen)
        eventually(look, lambda: f"{what}; the screen: {seen}")
        return seen

    def close(self):
        subprocess.run([*self._base, "kill-server"], check=False, capture_output=True, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
