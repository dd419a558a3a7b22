#!/usr/bin/python3
"""Makes a small multi-layer image from Debian's busybox-static and pushes it to a registry.

As a command: sample_image.py HOST:PORT/REPOSITORY:TAG. The end-to-end tests use its parts for images of their own.
"""

import dataclasses
import gzip
import hashlib
import http.client
import io
import json
import subprocess
import sys
import tarfile
import time

BUSYBOX = "/bin/busybox"

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclasses.dataclass
class Entry:
    """One entry of a layer. content: a file's bytes; None: a directory, or a link if a target is given."""

    name: str
    content: bytes | None = None
    mode: int = 0o755
    symlink: str | None = None
    hardlink: str | None = None
    uid: int = 0
    gid: int = 0


def layer_tar(entries):
    """An uncompressed layer: the same bytes for the same entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            if entry.symlink is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.symlink
                tar.addfile(info)
            elif entry.hardlink is not None:
                info.type, info.linkname = tarfile.LNKTYPE, entry.hardlink
                tar.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def base_layer():
    """busybox with its applets as hard links, and the directories that programs expect."""
    with open(BUSYBOX, "rb") as file:
        busybox = file.read()
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    entries = [Entry(name) for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var")]
    entries += [Entry("tmp", mode=0o1777), Entry("bin/busybox", busybox)]
    entries += [Entry(f"bin/{name}", hardlink="bin/busybox") for name in applets if name != "busybox"]
    return entries


def accounts_layer():
    """The users, and a file that a later layer takes away."""
    return [
        Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n", 0o644),
        Entry("etc/group", b"root:x:0:\napp:x:1000:\n", 0o644),
        Entry("home/app", uid=1000, gid=1000),
        Entry("etc/removed-by-a-later-layer", b"this is never seen\n", 0o644),
    ]


def application_layer():
    """What the image is for, and a whiteout."""
    return [
        Entry("etc/.wh.removed-by-a-later-layer", b"", 0o644),
        Entry("etc/motd", b"Hello from an image of three layers.\n", 0o644),
        Entry("usr/bin/motd", symlink="../../bin/cat"),
    ]


def sample_layers():
    return [layer_tar(base_layer()), layer_tar(accounts_layer()), layer_tar(application_layer())]


class Registry:
    """A registry that speaks plain HTTP, as those on loopback addresses may."""

    def __init__(self, address):
        self.address = address

    def request(self, method, path, body=b"", headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{method} http://{self.address}{path}: {response.status} {content[:500]!r}")
        return response.headers, content

    def wait_until_ready(self, seconds=30.0):
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.request("GET", "/v2/")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def push_blob(self, repository, content):
        """Returns the blob's descriptor, without a media type."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        location = headers["Location"]
        path = location.split(self.address, 1)[-1]
        separator = "&" if "?" in path else "?"
        self.request("PUT", f"{path}{separator}digest={digest}", content,
                     {"Content-Type": "application/octet-stream"})
        return {"digest": digest, "size": len(content)}

    def push_image(self, repository, tag, layers, run_config):
        """Pushes uncompressed layers as gzip; the digest of the manifest. run_config: "Env", "Cmd", "User" and so on."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": run_config,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in layers]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        }
        blobs = [{"mediaType": LAYER_TYPE, **self.push_blob(repository, gzip.compress(tar, 6, mtime=0))} for tar in layers]
        return self.push_manifest(repository, tag, config, blobs)

    def push_manifest(self, repository, tag, config, layers):
        """Pushes the config and a manifest of it and of blobs that are there; the digest of the manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **self.push_blob(repository, json.dumps(config).encode())},
            "layers": layers,
        }
        body = json.dumps(manifest).encode()
        self.request("PUT", f"/v2/{repository}/manifests/{tag}", body, {"Content-Type": MANIFEST_TYPE})
        return "sha256:" + hashlib.sha256(body).hexdigest()


def main():
    if len(sys.argv) != 2 or "/" not in sys.argv[1]:
        sys.exit("usage: sample_image.py HOST:PORT/REPOSITORY:TAG")
    address, rest = sys.argv[1].split("/", 1)
    repository, _, tag = rest.partition(":")
    registry = Registry(address)
    registry.wait_until_ready()
    layers = sample_layers()
    digest = registry.push_image(repository, tag or "latest", layers,
                                 {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/"})
    print(f"pushed {sys.argv[1]} ({len(layers)} layers, {sum(map(len, layers)) / 1e6:.1f} MB, {digest})")


if __name__ == "__main__":
    main()
