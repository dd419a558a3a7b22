"""A program that runs beside a test, such as `kubectl logs --follow`: its lines are collected as they come."""

import os
import subprocess
import threading
import time

from harness.daemon import PATIENCE


class Following:
    """The lines of both its outputs, without what ends them; errors are told apart."""

    def __init__(self, command, environment=None):
        self.command = [str(word) for word in command]
        self.lines, self.errors = [], []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**os.environ, **(environment or {})}, start_new_session=True)
        self._readers = [threading.Thread(target=self._read, args=arguments, daemon=True)
                         for arguments in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            with self._changed:
                lines.append(line.decode(errors="replace").rstrip("\r\n"))
                self._changed.notify_all()

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_for(self, check, what, seconds=PATIENCE):
        """Until check(lines) is true; the lines so far. It may not end before."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not check(self.lines):
                assert self.process.poll() is None or any(one.is_alive() for one in self._readers), (
                    f"{self.command} ended with {self.process.returncode} before {what}: {self.errors} {self.lines[-5:]}")
                assert time.monotonic() < deadline, f"waited in vain for {what}: {self.errors} {self.lines[-5:]}"
                self._changed.wait(0.2)
            return list(self.lines)

    def wait_for_line(self, line):
        return self.wait_for(lambda lines: line in lines, f"the line {line!r}")

    def wait(self, seconds=PATIENCE):
        """Its exit code, when all its lines are there."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
