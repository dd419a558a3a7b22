#!/usr/bin/env python3
"""Writes the seed corpus of the fuzz targets: images/fuzz/corpus/TARGET/*. The same bytes each time.

Files that are there and not made here, such as inputs that once found a fault, are left alone.
images/fuzz/make_seeds.py --check fails if what is committed is something else."""

import gzip
import io
import json
import pathlib
import struct
import sys
import tarfile

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
DIGEST = "sha256:" + "0123456789abcdef" * 4
TIME = 1_700_000_000
PLAIN, GZIP, ZSTD, AS_IT_IS = range(4)  # the low bits of fuzz_layer's first byte


def tar(entries, tar_format=tarfile.PAX_FORMAT):
    """entries: (name, type, data, fields)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format, bufsize=512) as archive:
        for name, kind, data, fields in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mtime = TIME
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    # tarfile pads to 10 KiB; two blocks of zeros are what matters.
    data = out.getvalue()
    end = -(-len(data.rstrip(b"\0")) // 512) * 512
    return data[:end] + bytes(1024)


def entry(name, kind=tarfile.REGTYPE, data=b"", **fields):
    return (name, kind, data, fields)


def layers():
    tree = [
        entry("etc", tarfile.DIRTYPE),
        entry("etc/passwd", data=b"root:x:0:0\n"),
        entry("etc/hard", tarfile.LNKTYPE, linkname="etc/passwd"),
        entry("lib", tarfile.SYMTYPE, linkname="usr/lib"),
        entry("lib/libc.so", data=b"\x7fELF" * 300),
        entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("dev/sda", tarfile.BLKTYPE, devmajor=8, devminor=0),
        entry("pipe", tarfile.FIFOTYPE),
    ]
    capability = "\x01\x00\x00\x02\x00\x20\x00\x00" + "\x00" * 12
    attributes = {
        "SCHILY.xattr.security.capability": capability,
        "SCHILY.xattr.user.note": "text",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "mtime": "1700000000.123456789",
    }
    whiteouts = [entry("a/.wh.b"), entry("a/.wh..wh..opq"), entry(".wh.c"), entry("a/b", data=b"new")]
    long_name = "/".join(["directory"] * 15) + "/file"
    sparse = tar([entry("sparse", data=b"1\n512\n512\n".ljust(512, b"\0") + b"x" * 512, pax_headers={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "4096"})])
    sparse_01 = tar([entry("sparse", data=b"x" * 512, pax_headers={
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "1024,512", "GNU.sparse.size": "4096"})])
    plain = {
        "tree": tar(tree),
        "tree-ustar": tar(tree, tarfile.USTAR_FORMAT),
        "tree-gnu": tar(tree, tarfile.GNU_FORMAT),
        "attributes": tar([entry("bin/ping", data=b"#!", pax_headers=attributes)]),
        "whiteouts": tar(whiteouts),
        "long-name-pax": tar([entry(long_name, data=b"x")]),
        "long-name-gnu": tar([entry(long_name, tarfile.SYMTYPE, linkname=long_name)], tarfile.GNU_FORMAT),
        "large-numbers": tar([entry("f", uid=2**31, gid=2**24, mtime=2**33)], tarfile.GNU_FORMAT),
        "global-header": global_header() + tar([entry("f", data=b"x")]),
        "sparse-1.0": sparse,
        "sparse-0.1": sparse_01,
        "sparse-gnu": gnu_sparse(),
        "dots": tar([entry("./", tarfile.DIRTYPE), entry("./a/./b//c", data=b"x")]),
        "upwards": tar([entry("../../etc/passwd", data=b"x")]),
        "link-upwards": tar([entry("up", tarfile.SYMTYPE, linkname="../../.."), entry("up/f", data=b"x")]),
        "link-circle": tar([entry("a", tarfile.SYMTYPE, linkname="b"), entry("b", tarfile.SYMTYPE, linkname="a"),
                            entry("a/f")]),
        "empty": bytes(1024),
    }
    seeds = {name: bytes([PLAIN | index % 4 << 2]) + data for index, (name, data) in enumerate(plain.items())}
    seeds["tree-gzip"] = bytes([GZIP | 1 << 2]) + plain["tree"]
    seeds["tree-zstd"] = bytes([ZSTD | 1 << 2]) + plain["tree"]
    member = gzip.compress(plain["tree"], mtime=0)
    seeds["gzip-members"] = bytes([AS_IT_IS]) + member + gzip.compress(b"", mtime=0)
    seeds["gzip-cut"] = bytes([AS_IT_IS]) + member[:-9]
    frame = zstd_raw(plain["whiteouts"])
    seeds["zstd-frames"] = bytes([AS_IT_IS]) + struct.pack("<II", 0x184D2A50, 4) + b"skip" + frame
    seeds["zstd-cut"] = bytes([AS_IT_IS]) + frame[:-3]
    return seeds


def header(name, kind, size, change=None):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    if change:
        change(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def global_header():
    records = b"17 uid=123456789\n" + b"13 gid=12345\n"

    def set_magic(block):
        block[257:265] = b"ustar\x0000"
    return header("globals", tarfile.XGLTYPE, len(records), set_magic) + records.ljust(512, b"\0")


def gnu_sparse():
    def add_map(block):
        block[386:410] = b"%011o\0%011o\0" % (512, 512)
        block[482] = 1
        block[483:495] = b"%011o\0" % 8192
    extension = (b"%011o\0%011o\0" % (4096, 512)).ljust(512, b"\0")
    return header("sparse", b"S", 1024, add_map) + extension + b"x" * 1024 + bytes(1024)


def zstd_raw(data):
    """A frame of one raw block: no compressor is needed to write it."""
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


# fuzz_erofs: the bytes that its MakeEntry() reads.
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = range(7)
NEXT_LAYER, CROWD = b"\xff", b"\xfe"


def path(*names):
    return bytes([len(names), *names])


def file(kind, where, rest=b"", mode=0o644, attributes=b"\0"):
    # Any first byte but those of the next layer and of a crowd begins an entry.
    return bytes([0, kind]) + where + struct.pack("<HIIQI", mode, 1000, 100, TIME, 5) + attributes + rest


def erofs():
    size = struct.pack("<QB", 5000 << 40, 14)
    tree = file(DIRECTORY, path(3), mode=0o755) + file(REGULAR, path(3, 0), size) + \
        file(HARD_LINK, path(1), path(3, 0)) + file(SYMLINK, path(5), b"\1" + path(4, 5)) + \
        file(CHARACTER, path(6), struct.pack("<II", 1, 3)) + file(BLOCK, path(7), struct.pack("<II", 259, 70000)) + \
        file(FIFO, path(8))
    attributes = b"\3" + bytes([4, 5, 3, 20, 10, 250]) + struct.pack("<H", 5000)
    upper = file(REGULAR, path(3, 12)) + file(REGULAR, path(5, 14)) + file(REGULAR, path(5, 2), size)
    return {
        "tree": tree,
        "attributes": file(REGULAR, path(0), size, attributes=attributes) + file(SYMLINK, path(1), b"\0" + path(0),
                                                                                 attributes=attributes),
        "long-symlink": file(SYMLINK, path(0), b"\xf0" + struct.pack("<H", 4094)),
        "crowd": CROWD + path(3) + bytes([200, 30]) + CROWD + path() + bytes([255, 249]),
        "layers": tree + NEXT_LAYER + upper + NEXT_LAYER + tree,
        "replaced": tree + NEXT_LAYER + file(REGULAR, path(3), size) + NEXT_LAYER +
                    file(DIRECTORY, path(3), mode=0o700),
        "deep": b"".join(file(DIRECTORY, path(depth, 0, 1, 2)) for depth in range(12)),
        "large-file": file(REGULAR, path(0), struct.pack("<QB", 2**63, 0)),
    }


def index_entry(kind, name, target=b"", size=0, offset=0, attributes=()):
    data = struct.pack("<BIIIQIIIQQ", kind, 0o644, 0, 0, TIME, 0, 0, 0, size, offset)
    for text in (name, target):
        data += struct.pack("<I", len(text)) + text
    data += struct.pack("<I", len(attributes))
    for text in sum(attributes, ()):
        data += struct.pack("<I", len(text)) + text
    return data


def layer_indexes():
    def index(entries, blob_length, count=None):
        body = b"".join(entries)
        count = len(entries) if count is None else count
        return b"HUSKLAYR" + struct.pack("<IQQQ", 1, blob_length, count, len(body)) + body
    entries = [
        index_entry(6, b""),
        index_entry(1, b"a/b", size=5000),
        index_entry(2, b"c", b"a/b"),
        index_entry(3, b"d", b"../x"),
    ]
    return {
        "empty": index([], 0),
        "entries": index(entries, 8192),
        "attributes": index([index_entry(1, b"a", attributes=[(b"user.a", b"v"), (b"user.b", b"")])], 0),
        "too-few": index(entries, 8192, count=5),
        "too-many": index(entries, 8192, count=1),
        "upwards": index([index_entry(1, b"../a")], 0),
    }


def manifests():
    def descriptor(media_type, **more):
        return {"mediaType": media_type, "digest": DIGEST, "size": 1234, **more}
    oci = "application/vnd.oci.image."
    docker = "application/vnd.docker."
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": descriptor(oci + "config.v1+json"),
        "layers": [descriptor(oci + "layer.v1.tar+gzip"), descriptor(oci + "layer.v1.tar+zstd")],
        "annotations": {"org.opencontainers.image.title": "t\u00fc\n\"", "": ""},
    }
    index = {
        "schemaVersion": 2,
        "manifests": [
            descriptor(oci + "manifest.v1+json", platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
            descriptor(oci + "manifest.v1+json", platform={"os": "linux", "architecture": "amd64"}),
        ],
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "1000:100", "Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh"], "Cmd": None, "WorkingDir": "/",
                   "StopSignal": "SIGTERM", "Volumes": {"/data": {}}, "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    docker_manifest = {"schemaVersion": 2, "mediaType": docker + "distribution.manifest.v2+json",
                       "config": descriptor(docker + "container.image.v1+json"),
                       "layers": [descriptor(docker + "image.rootfs.diff.tar.gzip")]}
    foreign = dict(index, manifests=[dict(index["manifests"][0])])

    def seed(choice, value):
        text = value if isinstance(value, str) else json.dumps(value)
        return bytes([choice]) + text.encode()
    return {
        "kind-manifest": seed(0, oci + "manifest.v1+json; charset=utf-8\n" + json.dumps(manifest)),
        "kind-index": seed(0, oci + "index.v1+json\n" + json.dumps(index)),
        "kind-docker": seed(0, docker + "distribution.manifest.v2+json\n" + json.dumps(docker_manifest)),
        "index": seed(1, index),
        "index-foreign": seed(1, foreign),
        "index-single": seed(1, {"manifests": [descriptor(oci + "manifest.v1+json")]}),
        "manifest": seed(2, manifest),
        "config": seed(3, config),
        "config-twice": seed(3, '{"os":"linux","os":"windows"}'),
        "nested": seed(3, '{"config":' + "[" * 70 + "]" * 70 + "}"),
        "annotations": seed(4, manifest["annotations"]),
        "not-utf8": bytes([3]) + b'{"config":{"User":"\xff\xfe"}}',
    }


def references():
    texts = ["busybox", "busybox:1.36", "library/busybox@" + DIGEST, "localhost/a/b", "localhost:5000/a:tag@" + DIGEST,
             "127.0.0.1:5000/a", "[::1]:5000/a_b/c__d/e--f.g", "docker.io/x", "index.docker.io/x/y:z", "Upper/case",
             "a..b/c", "../x", DIGEST, DIGEST[7:], "registry.example.com:65535/" + "a" * 200, "x:" + "t" * 128, ""]
    return {f"{number:02}": text.encode() for number, text in enumerate(texts)}


def challenges():
    def texts(choice, lines):
        return [bytes([choice]) + line.encode() for line in lines]
    headers = [
        'Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull"',
        'Basic realm="Registry", Bearer realm="https://127.0.0.1:5000/t?x=1",error="invalid_token"',
        "NTLM, Negotiate, basic realm=plain",
        'Bearer realm="a\\"b\\\\c" , service = "x"',
        'Bearer realm="http://[::1]:5000/token"',
        'Bearer realm="https://user:password@host/"',
        'Bearer realm="unfinished',
    ]
    answers = ['{"token":"abc.def-ghi","expires_in":300}', '{"access_token":"xyz"}', '{"token":"a\\r\\nHost: b"}', "[]",
               '{"token":null,"access_token":"ok"}']
    urls = ["https://example.com:443/path?query#fragment", "//host/path", "/v2/../x", "http://127.1/",
            "http://[fe80::1]/",
            "https://169.254.169.254/latest", "ftp://h/", "https://a@b/", "HTTPS://EXAMPLE.com"]
    seeds = texts(0, headers) + texts(1, answers) + texts(2, urls)
    return {f"{number:02}": seed for number, seed in enumerate(seeds)}


def hosts_files():
    return {
        "mirrors": b'server = "https://registry.example.com"\n\n[host."https://mirror.example.com/v2/x"]\n'
                   b'  capabilities = ["pull", "resolve"]\n  override_path = true\n  skip_verify = true\n'
                   b'  dial_timeout = "500ms"\n[host."http://127.0.0.1:5000"]\n  capabilities = ["push"]\n'
                   b'[host."http://127.0.0.1:5000".header]\n  x-name = ["a", "b"]\n  Authorization = "Basic eDp5"\n',
        "certificates": b'ca = "ca.pem"\nclient = [["client.pem", "client.key"], ["both.pem", ""]]\n'
                        b'[host."mirror"]\nca = ["a.pem", "b.pem"]\nclient = ["c.pem"]\n',
        "empty-server": b'server = ""\nskip_verify = false\n[header]\na = "b"\n',
        "inline": b"host = { 'https://a' = { capabilities = [], header = { \"\" = 'x' } } }\n",
        "unknown": b"surprise = 2001-01-01T00:00:00Z\n",
        "twice": b'server = "a"\nserver = "b"\n',
        "numbers": b"dial_timeout = 0x10\nskip_verify = 1e3\noverride_path = [1, 2.5, inf, nan]\n",
        "strings": b'server = """\\\n  https://a\\u0041"""\n[host.\'x\'.header]\na = "\\t"\n',
    }


def made():
    targets = {
        "fuzz_challenge": challenges(),
        "fuzz_erofs": erofs(),
        "fuzz_hosts_file": hosts_files(),
        "fuzz_layer": layers(),
        "fuzz_layer_index": layer_indexes(),
        "fuzz_manifest": manifests(),
        "fuzz_reference": references(),
    }
    return {CORPUS / target / name: data for target, seeds in targets.items() for name, data in seeds.items()}


def main():
    files = made()
    if sys.argv[1:] == ["--check"]:
        wrong = [str(path) for path, data in files.items() if not path.exists() or path.read_bytes() != data]
        print("\n".join(f"{path}: not what make_seeds.py makes" for path in wrong) or f"{len(files)} seeds are as made")
        return 1 if wrong else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{len(files)} seeds, {sum(map(len, files.values()))} bytes, the largest {max(map(len, files.values()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
