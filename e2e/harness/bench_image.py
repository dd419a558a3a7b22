"""A large image of five layers, made of Debian's packages and kept in the cache: what `bench pull` pulls."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

# What a layer's name says, and its packages. Few large files, many small ones, and text.
LAYERS = {
    "base": ["base-files", "bash", "coreutils", "libc6", "libc-bin", "dpkg", "perl-base", "util-linux", "tar", "grep", "sed"],
    "compiler": ["gcc-12", "g++-12", "cpp-12", "libstdc++-12-dev", "binutils-x86-64-linux-gnu"],
    "scripts": ["perl-modules-5.36", "libperl5.36", "python3.11-minimal", "libpython3.11-stdlib", "git", "libicu72"],
    "llvm": ["libllvm15", "libclang-cpp15"],
    "go": ["golang-1.19-go", "golang-1.19-src"],
}


def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(os.environ.get("HUSK_CACHE") or f"{base}/husk") / "bench"


def _download(packages, directory):
    """Debian's package files of the sources that this machine has."""
    subprocess.run(["apt-get", "download", "-q", *packages], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return sorted(pathlib.Path(directory).glob("*.deb"))


def _merge(packages, output):
    """The packages' files in one tar; directories that several have, once."""
    seen = set()
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as merged:
        for package in packages:
            reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
            with tarfile.open(fileobj=reader.stdout, mode="r|") as tar:
                for entry in tar:
                    name = entry.name.removeprefix("./")
                    if name in ("", ".") or name in seen:
                        continue
                    seen.add(name)
                    entry.name = name
                    if entry.islnk():
                        entry.linkname = entry.linkname.removeprefix("./")
                    merged.addfile(entry, tar.extractfile(entry) if entry.isreg() else None)
            if reader.wait() != 0:
                raise RuntimeError(f"dpkg-deb cannot read {package}")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def make():
    """The layers, in order: {"name", "path" (gzip), "digest", "size", "diff_id", "uncompressed"}. Made once."""
    directory = cache_directory()
    done = directory / "layers.json"
    if done.exists():
        layers = json.loads(done.read_text())
        if [layer["name"] for layer in layers] == list(LAYERS) and all(os.path.exists(layer["path"]) for layer in layers):
            return layers
    directory.mkdir(parents=True, exist_ok=True)
    layers = []
    for name, packages in LAYERS.items():
        print(f"making layer {name} of {', '.join(packages)}", flush=True)
        with tempfile.TemporaryDirectory(dir=directory) as work:
            tar = pathlib.Path(work, "layer.tar")
            _merge(_download(packages, work), tar)
            with open(tar, "rb") as source, open(f"{tar}.gz", "wb") as sink:
                subprocess.run(["gzip", "-6", "-n"], stdin=source, stdout=sink, check=True)
            path = directory / f"{name}.tar.gz"
            layer = {"name": name, "path": str(path), "digest": _sha256(f"{tar}.gz"), "size": os.path.getsize(f"{tar}.gz"),
                     "diff_id": _sha256(tar), "uncompressed": os.path.getsize(tar)}
            shutil.move(f"{tar}.gz", path)
            layers.append(layer)
    done.write_text(json.dumps(layers, indent=1))
    return layers
