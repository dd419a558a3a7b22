"""A guest without Husk in which crun runs a container: e2e/bare_streams.c behind two virtio-serial ports."""

import contextlib
import json
import pathlib
import select
import socket
import sys

from harness import bare_vm, host
from harness.daemon import PATIENCE, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy"))

import sample_image  # noqa: E402  (deploy/ is no package)

MODULES = ["virtio_pci", "virtio_console"]
PORTS = ("control", "data")
CAPABILITIES = ["CAP_" + name for name in (
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID "
    "SYS_CHROOT").split()]


def _mount(destination, kind, *options, flags=("nosuid", "noexec", "nodev")):
    return {"destination": destination, "type": kind, "source": kind, "options": [*flags, *options]}


def _container():
    """As Husk makes it for a container of which the kubelet says nothing: what an exec joins and gives up is the same."""
    return {
        "ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": False},
        "process": {"args": ["/bin/sleep", "1000000"], "env": ["PATH=/usr/bin:/bin", "HOME=/root"], "cwd": "/",
                    "terminal": False, "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 0, "noNewPrivileges": False,
                    "capabilities": {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")},
                    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}]},
        "mounts": [_mount("/proc", "proc"), _mount("/dev", "tmpfs", "mode=755", flags=["nosuid"]), _mount("/sys", "sysfs", "ro"),
                   _mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", flags=["nosuid", "noexec"]),
                   _mount("/dev/shm", "tmpfs", "mode=1777"), _mount("/sys/fs/cgroup", "cgroup", "relatime", "ro")],
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "cgroup", "pid")],
                  "cgroupsPath": "/husk/streams", "resources": {"devices": [{"allow": False, "access": "rwm"}]}}}


def _files():
    busybox = pathlib.Path(sample_image.BUSYBOX).read_bytes()
    files = {f"bundle/rootfs/bin/{name}": (busybox, 0o755) for name in ("busybox", "sleep", "true")}
    return {**files, **{f"bundle/rootfs/{name}/.keep": (b"", 0o644) for name in ("dev", "proc", "sys")},
            "bundle/config.json": (json.dumps(_container()).encode(), 0o644), **bare_vm.crun_files()}


class BareStreams:
    """As large as the VMs of `huskd`. Measures nothing: an answer that is not «ok» ends the program."""

    def __init__(self, directory, huskd):
        self._console = pathlib.Path(directory, "streams-console")
        initrd = pathlib.Path(directory, "streams-initrd")
        bare_vm.write_initrd(initrd, bare_vm.GUEST / "kernel.parts" / "modules", MODULES, ["bare_streams"], directory,
                             _files())
        sockets = {name: pathlib.Path(directory, f"{name}.sock") for name in PORTS}
        devices = ["-device", "virtio-serial-pci,id=serial,disable-legacy=on"]
        for name, path in sockets.items():
            devices += ["-chardev", f"socket,id={name},path={path},server=on,wait=off", "-device",
                        f"virtserialport,bus=serial.0,chardev={name},name={name}"]
        accelerator, memory = bare_vm.machine_of(huskd)
        self._qemu = bare_vm.start(bare_vm.GUEST / "kernel", initrd, ["run", "/bare_streams"], devices, accelerator,
                                   self._console, memory)
        self._connections = {name: self._connect(path) for name, path in sockets.items()}
        self._answers = self._connections["control"].makefile("r")

    @staticmethod
    def _connect(path):
        connection = socket.socket(socket.AF_UNIX)

        def connected():
            with contextlib.suppress(OSError):
                connection.connect(str(path))
                return True
            return False
        # At once: the guest takes a port whose other end is closed for one that has ended.
        eventually(connected, f"QEMU's socket {path}", interval=0.005)
        connection.settimeout(PATIENCE)
        return connection

    def _tell(self, line):
        self._connections["control"].sendall(line.encode() + b"\n")

    def _result(self):
        try:
            answer = self._answers.readline().split()
        except OSError as error:
            answer = [str(error)]
        if answer[:1] != ["ok"]:
            sys.exit(f"the bare QEMU: {' '.join(answer)}\n{host.read_text(self._console)[-2000:]}")
        return int(answer[1])

    def execute(self):
        """Seconds of one `crun exec streams /bin/true`, by the guest's clock."""
        self._tell("exec")
        return self._result() / 1e9

    def take(self, archive):
        """`archive`, a tar, through the port into the guest's tar."""
        self._tell(f"take {len(archive)}")
        for begin in range(0, len(archive), 65536):
            self._connections["data"].sendall(archive[begin:begin + 65536])
        self._result()

    def give(self):
        """The tar of what take() brought, in pieces."""
        pieces, count, wanted = [], 0, None
        control, data = (self._connections[name] for name in PORTS)
        self._tell("give")
        while wanted is None or count < wanted:
            ready, _, _ = select.select([data] if wanted is not None else [data, control], [], [], PATIENCE)
            if not ready:
                sys.exit(f"the bare QEMU: {count} bytes of {wanted} came")
            if data in ready:
                pieces.append(data.recv(1 << 18))
                count += len(pieces[-1])
            if control in ready:
                wanted = self._result()
        return pieces

    def stop(self):
        self._qemu.kill()
        self._qemu.wait()
        for connection in self._connections.values():
            connection.close()
