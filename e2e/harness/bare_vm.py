"""A QEMU without Husk, for comparisons: a kernel, an initrd of e2e/bare_init.c and a few programs, and nothing else."""

import importlib.machinery
import importlib.util
import pathlib
import re
import shutil
import subprocess

from harness import cri, guest_programs, host

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUEST = cri.BUILD / "guest"
# As Husk starts QEMU where there is no KVM; with it both sides get it.
TCG = ["-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max,erms=off,fsrm=off"]
KVM = ["-accel", "kvm", "-cpu", "host"]


def _script(path):
    """A Python program of the tree as a module."""
    loader = importlib.machinery.SourceFileLoader(path.name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.name, loader))
    loader.exec_module(module)
    return module


def generic_kernel():
    """Debian's kernel for all machines, of the version of the guest's, which has more drivers: (its bzImage, the tree of
    its modules). Kept where agent/kernel/fetch keeps the guest's."""
    fetch = _script(ROOT / "agent" / "kernel" / "fetch")
    name, version = fetch.resolve_package("linux-image-amd64")
    cached = fetch.cache_of(name, version)
    if not cached.exists():
        fetch.fill_cache(name, version, cached, with_elf=False)
    return cached / "vmlinuz", cached / "modules"


def crun_files():
    """crun and its libraries, as the guest's initrd has them: for write_initrd."""
    build = _script(ROOT / "agent" / "rootfs" / "build")
    crun = shutil.which("crun")
    return {"usr/bin/crun": (pathlib.Path(crun).read_bytes(), 0o755),
            **{build.guest_path(library): (pathlib.Path(library).read_bytes(), 0o755) for library in build.libraries(crun)}}


def write_initrd(path, modules, names, programs, directory, more=()):
    """`modules`: the tree of /lib/modules/RELEASE, of which `names` are loaded. `programs`: names of C files of e2e/,
    which come to lie in /. `more`: a dictionary of other files, name to (contents, permissions)."""
    build = _script(ROOT / "agent" / "rootfs" / "build")
    init = guest_programs.compile_program("bare_init", directory)
    files = {"init": (init.read_bytes(), 0o755), **build.module_files(modules, names), **dict(more)}
    for name in programs:
        files[name] = (guest_programs.compile_program(name, directory).read_bytes(), 0o755)
    pathlib.Path(path).write_bytes(build.archive(files, {}))


def machine_of(huskd):
    """(accelerator, memory) of a VM that runs under huskd, as start() takes them."""
    line = next(text for text in map(host.command_line, huskd.vm_processes()) if " -m size=" in text)
    return "kvm" if "-accel kvm" in line else "tcg", re.search(r" -m size=(\d+K)", line).group(1)


def start(kernel, initrd, arguments, devices, accelerator, console, memory="512M"):
    """`arguments`: bare_init's. `console`: a file. The process, which ends with the guest."""
    command_line = "console=ttyS0 quiet panic=-1 -- " + " ".join(arguments)
    return subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine",
         "q35,usb=off,vmport=off,smbus=off,sata=off,graphics=off,i8042=off", *(KVM if accelerator == "kvm" else TCG),
         "-smp", "1", "-m", memory, "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line,
         "-serial", f"file:{console}", *devices],
        stdin=subprocess.DEVNULL, start_new_session=True)
