#!/usr/bin/env python3
"""Makes a three-layer image of busybox, pushes it to a registry by plain HTTP, and prints what its tree must be.

Usage: push_image.py http://127.0.0.1:PORT REPOSITORY TAG

The expectation is written by hand here, beside the layers, and not computed by any code of Husk's. It is printed as
one line per file: path, then type, mode, uid, gid, mtime, links, and size with SHA-256, target, or device number.
The last lines are "digest <manifest digest>" and "index <index digest>".
"""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import urllib.request

BUSYBOX = "/bin/busybox"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, mode=0o644, data=b"", uid=0, gid=0, mtime=1700000000, **rest):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.mtime, info.size = kind, mode, uid, gid, mtime, len(data)
        for key, value in rest.items():
            setattr(info, key, value)
        self.tar.addfile(info, io.BytesIO(data))

    def directory(self, name, mode=0o755, **rest):
        self.add(name, tarfile.DIRTYPE, mode, **rest)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def make_layers(busybox, big):
    base = Layer()
    base.directory("./", mtime=1600000000)
    base.directory("./bin")
    base.add("./bin/busybox", mode=0o755, data=busybox)
    base.add("./bin/sh", tarfile.LNKTYPE, linkname="./bin/busybox")
    base.add("./bin/ls", tarfile.SYMTYPE, 0o777, linkname="busybox")
    base.directory("./etc")
    base.add("./etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\n")
    base.add("./etc/gone", data=b"hidden by the second layer\n")
    base.directory("./opaque")
    base.add("./opaque/old", data=b"old\n")
    base.directory("./opaque/olddir")
    base.directory("./swap")
    base.add("./swap/dir-to-file", tarfile.DIRTYPE, 0o755)
    base.add("./swap/dir-to-file/child", data=b"x")
    base.add("./swap/file-to-dir", data=b"file")
    base.add("./usr", tarfile.DIRTYPE, 0o755)
    base.directory("./usr/lib")
    base.add("./lib", tarfile.SYMTYPE, 0o777, linkname="usr/lib")
    base.directory("./many")
    for i in range(1000):
        base.add(f"./many/a-rather-long-name-of-file-number-{i:04}")

    second = Layer()
    second.directory("etc", 0o700, uid=1000, gid=100000)
    second.add("etc/.wh.gone")
    second.add("opaque/.wh..wh..opq")
    second.add("opaque/new", data=b"new\n", mode=0o4755, uid=70000, gid=4000000000)
    second.add("swap/dir-to-file", data=b"now a file")
    second.directory("swap/file-to-dir", 0o1777)
    second.add("lib/through-link", data=b"lands in usr/lib")
    second.add("big", data=big, mtime=1.5, mode=0o600)

    third = Layer()
    third.directory("dev")
    third.add("dev/null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3)
    third.add("dev/disk", tarfile.BLKTYPE, 0o660, devmajor=259, devminor=70000)
    third.add("dev/pipe", tarfile.FIFOTYPE, 0o600)
    third.add("empty")
    third.add("n\u00e4me", data=b"utf-8 name", pax_headers={"SCHILY.xattr.user.note": "kept"})
    third.add("etc/passwd2", tarfile.LNKTYPE, linkname="etc/passwd")
    return [base.bytes(), second.bytes(), third.bytes()]


def expectation(busybox, big):
    t = 1700000000

    def regular(path, data, mode=0o644, uid=0, gid=0, mtime=t, links=1):
        return f"{path} - {mode:o} {uid} {gid} {mtime} {links} {len(data)} {hashlib.sha256(data).hexdigest()}"

    def directory(path, links, mode=0o755, uid=0, gid=0, mtime=t):
        return f"{path} d {mode:o} {uid} {gid} {mtime} {links}"

    def other(path, kind, mode, detail):
        return f"{path} {kind} {mode:o} 0 0 {t} 1 {detail}"

    lines = [
        directory("/", 9, mtime=1600000000),
        directory("/bin", 2),
        regular("/bin/busybox", busybox, 0o755, links=2),
        regular("/bin/sh", busybox, 0o755, links=2),
        other("/bin/ls", "l", 0o777, "busybox"),
        directory("/etc", 2, 0o700, 1000, 100000),
        regular("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", links=2),
        regular("/etc/passwd2", b"root:x:0:0:root:/root:/bin/sh\n", links=2),
        directory("/opaque", 2),
        regular("/opaque/new", b"new\n", 0o4755, 70000, 4000000000),
        directory("/swap", 3),
        regular("/swap/dir-to-file", b"now a file"),
        directory("/swap/file-to-dir", 2, 0o1777),
        directory("/usr", 3),
        directory("/usr/lib", 2),
        regular("/usr/lib/through-link", b"lands in usr/lib"),
        other("/lib", "l", 0o777, "usr/lib"),
        directory("/many", 2),
        regular("/big", big, 0o600, mtime=1),
        directory("/dev", 2),
        other("/dev/null", "c", 0o666, "1:3"),
        other("/dev/disk", "b", 0o660, "259:70000"),
        other("/dev/pipe", "p", 0o600, "0:0"),
        regular("/empty", b""),
        regular("/n\u00e4me", b"utf-8 name"),
    ]
    lines += [regular(f"/many/a-rather-long-name-of-file-number-{i:04}", b"") for i in range(1000)]
    return lines


class Registry:
    def __init__(self, base, repository):
        self.base, self.prefix = base, f"{base}/v2/{repository}"

    def send(self, method, url, data=b"", content_type="application/octet-stream"):
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": content_type})
        with urllib.request.urlopen(request) as response:
            return response.headers

    def blob(self, data):
        location = self.send("POST", f"{self.prefix}/blobs/uploads/")["Location"]
        separator = "&" if "?" in location else "?"
        self.send("PUT", f"{location}{separator}digest={digest(data)}", data)
        return {"digest": digest(data), "size": len(data)}

    def manifest(self, name, document):
        data = json.dumps(document).encode()
        self.send("PUT", f"{self.prefix}/manifests/{name}", data, document["mediaType"])
        return {"mediaType": document["mediaType"], "digest": digest(data), "size": len(data)}


def main():
    base, repository, tag = sys.argv[1:]
    with open(BUSYBOX, "rb") as file:
        busybox = file.read()
    big = bytes(i * 7 & 0xFF for i in range(5_000_000)) + b"tail"
    layers = make_layers(busybox, big)
    half = len(layers[0]) // 2
    compressed = [
        # Two gzip members, as parallel compressors write them.
        (gzip.compress(layers[0][:half]) + gzip.compress(layers[0][half:]), LAYER + "+gzip"),
        (subprocess.run(["/usr/bin/zstd", "-q", "-c"], input=layers[1], stdout=subprocess.PIPE, check=True).stdout,
         LAYER + "+zstd"),
        (layers[2], LAYER),
    ]
    registry = Registry(base, repository)
    config = json.dumps({
        "os": "linux",
        "architecture": "amd64",
        "config": {"User": "1000:1000", "Env": ["PATH=/bin", "A=b c"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["ls"],
                   "WorkingDir": "/etc", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}, "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }).encode()
    manifest = registry.manifest(tag, {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **registry.blob(config)},
        "layers": [{"mediaType": kind, **registry.blob(data)} for data, kind in compressed],
    })
    index = registry.manifest(tag + "-index", {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**manifest, "platform": {"os": "linux", "architecture": "amd64"}}],
    })
    print("\n".join(sorted(expectation(busybox, big))))
    print("digest", manifest["digest"])
    print("index", index["digest"])


if __name__ == "__main__":
    main()
