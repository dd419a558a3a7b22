"""Reads container logs as the kubelet does: "RFC3339Nano stdout|stderr P|F content"."""

import pathlib
import re

RECORD = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([PF]) (.*)$",
                    re.DOTALL)


def records(path):
    """(stream, is_last_part, content) of each whole record. A line that is no record is an AssertionError."""
    path = pathlib.Path(path)
    data = path.read_bytes() if path.exists() else b""
    lines = data.split(b"\n")
    # What follows the last newline is a record that is being written.
    for line in lines[:-1]:
        match = RECORD.match(line)
        assert match, f"{path}: no CRI log record: {line!r}"
        yield match.group(2).decode(), match.group(3) == b"F", match.group(4)


def text(path, stream="stdout"):
    """A stream's content, lines put together again."""
    result = []
    for of, is_last, content in records(path):
        if of == stream:
            result.append(content.decode(errors="replace") + ("\n" if is_last else ""))
    return "".join(result)
