"""A guest in QEMU (TCG) and a client of its agent, for the tests."""

import os
import pathlib
import socket
import struct
import subprocess
import time

MARKER = b"\xff\xfe\xd7husk-sync\xd7\xc3\xfd\xff"
SERVICE = "husk.agent.v1.Agent"


class RpcError(Exception):
    def __init__(self, code, message):
        super().__init__(f"code {code}: {message}")
        self.code = code
        self.message = message


class Client:
    """One connection; calls one at a time, or several by start() and finish()."""

    def __init__(self, proto, path, deadline):
        self.proto = proto
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(deadline)
        self.socket.connect(str(path))
        self.nonce = os.urandom(16)
        self.position = 0
        self.stream = 1
        self.buffer = b""
        self.answers = {}
        self.socket.sendall(MARKER + self.nonce)

    def close(self):
        self.socket.close()

    def mask(self, data):
        start = self.position % 16
        self.position += len(data)
        key = (self.nonce * (len(data) // 16 + 2))[start : start + len(data)]
        return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")

    def receive(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("QEMU closed the socket")
        self.buffer += data

    def synchronise(self):
        while MARKER + self.nonce not in self.buffer:
            self.receive()
        self.buffer = self.buffer.split(MARKER + self.nonce, 1)[1]

    def frame(self, name, **fields):
        request = getattr(self.proto, name + "Request")(**fields)
        envelope = self.proto.RpcRequest(service=SERVICE, method=name, payload=request.SerializeToString())
        payload = envelope.SerializeToString()
        stream, self.stream = self.stream, self.stream + 2
        return stream, struct.pack(">IIBB", len(payload), stream, 1, 0) + payload

    def start(self, name, **fields):
        stream, frame = self.frame(name, **fields)
        self.socket.sendall(self.mask(frame))
        return name, stream

    def finish(self, call):
        name, stream = call
        while stream not in self.answers:
            while len(self.buffer) < 10 or len(self.buffer) < 10 + struct.unpack(">I", self.buffer[:4])[0]:
                self.receive()
            length, answered, kind, _ = struct.unpack(">IIBB", self.buffer[:10])
            assert kind == 2, kind
            self.answers[answered] = self.proto.RpcResponse.FromString(self.buffer[10 : 10 + length])
            self.buffer = self.buffer[10 + length :]
        response = self.answers.pop(stream)
        if response.status.code:
            raise RpcError(response.status.code, response.status.message)
        return getattr(self.proto, name + "Response").FromString(response.payload)

    def call(self, name, **fields):
        return self.finish(self.start(name, **fields))


class Guest:
    def __init__(self, image, directory, disks, memory=256, machine=("-accel", "tcg", "-cpu", "max,erms=off,fsrm=off"),
                 processors=1, devices=(), kernel_options=""):
        """disks: LUN → raw file. The others are QEMU's arguments."""
        self.directory = pathlib.Path(directory)
        self.port = self.directory / "agent.sock"
        self.console = self.directory / "console.log"
        image = pathlib.Path(image)
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-machine", "q35", *machine, "-smp", str(processors), "-m", str(memory), *devices,
            "-kernel", image / "kernel", "-initrd", image / "initrd",
            "-append", "console=ttyS0 quiet panic=-1 reboot=t no_timer_check " + (image / "cmdline").read_text().strip() + kernel_options,
            "-serial", f"file:{self.console}",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self.port},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.husk.agent",
            "-device", "virtio-rng-pci",
            "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-scsi-pci,id=scsi",
            "-qmp", f"unix:{self.directory / 'qmp.sock'},server=on,wait=off",
        ]  # fmt: skip
        for lun, path in disks.items():
            command += ["-drive", f"file={path},format=raw,if=none,id=disk{lun},discard=unmap"]
            command += ["-device", f"scsi-hd,drive=disk{lun},bus=scsi.0,scsi-id=0,lun={lun},id=lun{lun}"]
        self.started = time.monotonic()
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)

    def wait_for_port(self):
        """Until QEMU listens: the socket has a name a little before that."""
        while True:
            if self.process.poll() is not None:
                raise SystemExit("QEMU did not start")
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.port))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.01)

    def connect(self, proto, deadline=120):
        client = Client(proto, self.port, deadline)
        call = client.start("Hello")
        client.synchronise()
        client.hello = client.finish(call)
        return client

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
