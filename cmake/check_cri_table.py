#!/usr/bin/python3
"""Fails if docs/cri.md names a test that does not exist, or leaves a call of the CRI out.

check_cri_table.py SOURCE_DIRECTORY API_PROTO"""

import pathlib
import re
import sys


def unit_tests(source):
    pattern = re.compile(r"^TEST(?:_F|_P)?\((\w+),\s*(\w+)\)", re.MULTILINE)
    return {f"{suite}.{name}" for room in ("agent", "cri", "hypervisor", "images", "sandbox")
            for path in (source / room).rglob("*_test.cc") for suite, name in pattern.findall(path.read_text())}


def main():
    source = pathlib.Path(sys.argv[1])
    table = (source / "docs/cri.md").read_text()
    calls = set(re.findall(r"^\s*rpc (\w+)\(", pathlib.Path(sys.argv[2]).read_text(), re.MULTILINE))
    known = unit_tests(source)
    errors = [f"the call {call} is missing" for call in sorted(calls) if not re.search(rf"\b{call}\b", table)]
    for name in re.findall(r"`([^`\s]+)`", table):
        file, separator, function = name.partition("::")
        if separator:
            path = source / file
            if not path.is_file() or not re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE):
                errors.append(f"there is no test {name}")
        elif re.fullmatch(r"[A-Z]\w*\.[A-Z]\w*", name) and name not in known:
            errors.append(f"there is no test {name}")
    for error in errors:
        print(f"docs/cri.md: {error}")
    if not errors:
        print(f"{len(calls)} calls, and every test that docs/cri.md names exists")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
