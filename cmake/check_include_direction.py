#!/usr/bin/env python3
"""Reads every #include "..." of the rooms and fails on one that points the wrong way (docs/architecture.md).

A room may include itself and what ALLOWED names, nothing else. Library headers that must stop at one place are
checked too: CRI protobuf types in cri/, QMP's JSON in hypervisor/qemu, SQLite in the two stores.
"""

import pathlib
import re
import sys

# The longest prefix that matches a file is its room.
ALLOWED = {
    "agent/common/": [],
    "agent/proto/": [],
    "agent/guest/": ["agent/common/", "agent/proto/"],
    "agent/client/": ["agent/common/", "agent/proto/"],
    "hypervisor/": ["agent/common/"],
    "images/": ["agent/common/"],
    "sandbox/": ["agent/common/", "agent/client/", "hypervisor/", "images/"],
    "cri/": ["agent/common/", "sandbox/", "images/"],
    # Where the parts are put together, and where the host is probed without a daemon: docs/adr/0050.
    "cri/huskd/": ["agent/common/", "agent/client/", "hypervisor/", "sandbox/", "images/", "cri/"],
    "cri/huskctl/": ["agent/common/", "hypervisor/", "cri/"],
    "e2e/": ["agent/common/"],
}

# (pattern of an include, the prefixes below which it may stand)
CONFINED = [
    (re.compile(r"^sqlite3\.h$"), ["images/", "sandbox/store/"]),
    (re.compile(r"^(grpc|grpcpp)/"), ["cri/", "e2e/"]),
    (re.compile(r"api(\.grpc)?\.pb\.h$"), ["cri/", "e2e/"]),
    (re.compile(r"^netlink/"), ["sandbox/network/"]),
    (re.compile(r"^curl/"), ["images/"]),
    (re.compile(r"^toml\+\+/"), ["images/"]),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)


def room_of(path):
    matches = [room for room in ALLOWED if path.startswith(room)]
    return max(matches, key=len) if matches else None


def violations(path, text):
    room = room_of(path)
    if room is None:
        return
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        target = match.group(2)
        for pattern, prefixes in CONFINED:
            if pattern.search(target) and not any(path.startswith(p) for p in prefixes):
                yield f"{path}:{line}: {target} may be included only below {' or '.join(prefixes)}"
        target_room = room_of(target)
        if target_room is None or target_room == room:
            continue
        if target_room not in ALLOWED[room]:
            allowed = ", ".join(ALLOWED[room]) or "nothing of Husk's"
            yield f"{path}:{line}: {room} may not include {target} (it may use: {allowed})"


def self_test():
    bad = {
        "images/store.cc": '#include "hypervisor/vm.h"\n',
        "hypervisor/qemu/qmp.cc": '#include "sandbox/pod.h"\n',
        "agent/common/status.h": '#include "agent/client/client.h"\n',
        "sandbox/pod.cc": '#include "cri/lanes.h"\n',
        "sandbox/manager.cc": "#include <sqlite3.h>\n",
        "images/client.cc": "#include <grpcpp/grpcpp.h>\n",
        "cri/service/handlers.cc": '#include "hypervisor/hypervisor.h"\n',
        "cri/lanes.cc": '#include "cri/huskd/daemon.h"\n',
    }
    good = {
        "sandbox/pod.cc": '#include "hypervisor/vm.h"\n#include "agent/client/agent_client.h"\n',
        "sandbox/store/database.cc": "#include <sqlite3.h>\n",
        "cri/service.cc": '#include "sandbox/runtime.h"\n#include "cri/proto/api.pb.h"\n',
        "cri/huskd/daemon.cc": '#include "hypervisor/qemu/qemu_hypervisor.h"\n#include "cri/lanes.h"\n',
    }
    missed = [path for path, text in bad.items() if not list(violations(path, text))]
    wrong = [line for path, text in good.items() for line in violations(path, text)]
    for path in missed:
        print(f"self-test: the bad include of {path} was not found")
    for line in wrong:
        print(f"self-test: a good include was refused: {line}")
    return 1 if missed or wrong else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    root = pathlib.Path(sys.argv[1])
    count = 0
    found = []
    for top in ("agent", "hypervisor", "images", "sandbox", "cri", "e2e"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".cc", ".h"):
                count += 1
                found += violations(str(path.relative_to(root)), path.read_text())
    print("\n".join(found) if found else f"{count} files: every include points the right way")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
