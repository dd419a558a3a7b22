"""A pod's directory as the kubelet keeps it: volumes it writes and swaps, empty directories, termination logs."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import pytest

# Reads both files by the directory that ..data names at the moment; says each new pair, and every half one.
WATCH = """
last=
while [ ! -e /config/stop ]; do
  d=$(readlink /config/..data)
  a=$(cat /config/$d/a 2>/dev/null); one=$?
  b=$(cat /config/$d/b 2>/dev/null); two=$?
  if [ "$one$two" != 00 ]; then
    [ "$d" = "$(readlink /config/..data)" ] && echo "HALF: $d has no a or no b"
    continue
  fi
  [ "$a" = "$b" ] || echo "HALF: $a and $b"
  [ "$a" = "$last" ] || echo "saw $a"
  last=$a
done
"""


# The same for a volume of 200 files, of which each begins with a line that names its generation.
WATCH_LARGE = """
last=
while [ ! -e /large/stop ]; do
  d=$(readlink /large/..data)
  seen= count=0 trouble=
  for f in /large/$d/f*; do
    g=
    read -r g 2>/dev/null < $f || { trouble="$f cannot be read"; break; }
    [ "${seen:-$g}" = "$g" ] || { trouble="$f is of $g, others of $seen"; break; }
    seen=$g count=$((count + 1))
  done
  [ "$trouble$count" = 200 ] || {
    # The old directory may be taken away under a reader's eyes, on any host; not the present one.
    [ "$d" = "$(readlink /large/..data)" ] && echo "HALF: $d has $count files; $trouble"
    continue
  }
  [ "$seen" = "$last" ] || echo "saw $seen"
  last=$seen
done
"""


def large_generation(number):
    """200 files of 1 MiB, for WATCH_LARGE."""
    content = (b"%d\n" % number).ljust(2**20, b"x")
    return {f"f{index:03}": content for index in range(200)}


class PodDirectory:
    """Below `parent`/pods/<uid>; the uid is the one of the pod's metadata."""

    def __init__(self, parent, uid):
        self.path = pathlib.Path(parent, "pods", uid)
        self._generations = 0

    def volume(self, plugin, name):
        path = self.path / "volumes" / f"kubernetes.io~{plugin}" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, volume, files):
        """Gives the volume these files, as the kubelet does it: a new directory, then one rename of ..data. The time of
        that rename (time.monotonic)."""
        self._generations += 1
        new = volume / f"..generation_{self._generations}"
        new.mkdir()
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        data = volume / "..data"
        old = volume / os.readlink(data) if data.is_symlink() else None
        os.symlink(new.name, volume / "..data_tmp")
        swapped = time.monotonic()
        os.rename(volume / "..data_tmp", data)
        for name in {pathlib.PurePath(name).parts[0] for name in files}:
            if not (volume / name).is_symlink():
                os.symlink(f"..data/{name}", volume / name)
        if old is not None:
            shutil.rmtree(old)
        return swapped

    def termination_log(self, container, attempt=0):
        path = self.path / "containers" / container / f"{attempt:08x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.chmod(0o666)
        return path

    @contextlib.contextmanager
    def sub_path(self, volume, sub_path, container, index=0):
        """A sub-path of a volume, bound to where the kubelet binds it."""
        (volume / sub_path).mkdir(parents=True, exist_ok=True)
        target = self.path / "volume-subpaths" / volume.name / container / str(index)
        target.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(volume / sub_path), str(target)], check=True)
        try:
            yield target
        finally:
            subprocess.run(["umount", str(target)], check=True)


@contextlib.contextmanager
def mounted(kind, path, options):
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def tmpfs(path, options):
    return mounted("tmpfs", path, options)


def hugetlbfs(path, options):
    """As for an emptyDir of medium HugePages. It needs no huge pages of the host's."""
    if not pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        pytest.skip("the host's kernel has no hugetlbfs, or no huge pages of 2 MiB")
    return mounted("hugetlbfs", path, options)


def mount(container_path, host_path, readonly=False):
    return {"container_path": container_path, "host_path": str(host_path), "readonly": readonly}


def run_to_its_end(pod, files, image, attempt):
    """Runs a container that leaves a message of 4096 bytes; what the host's file held when its exit showed."""
    log = files.termination_log("ends", attempt)
    script = f"printf %04096d {attempt} > /dev/termination-log; exit 3"
    container = pod.run("ends", image, ["/bin/sh", "-c", script], attempt=attempt,
                        mounts=[mount("/dev/termination-log", log)])
    while container.state() != "CONTAINER_EXITED":
        pass
    return log.read_bytes(), container
