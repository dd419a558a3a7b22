"""Directories of the host in a pod: one virtiofs per directory, with a file server that is a prisoner on the host."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import grpc
import pytest

from harness import cri, guest_programs, host
from harness.daemon import eventually

# A process of the guest that writes while huskd is away.
WRITER = "n=0; while [ ! -e /data/stop ]; do n=$((n+1)); echo $n >> /data/written; sleep 0.05; done; exit 7"


def mount(container_path, host_path, **fields):
    return {"container_path": container_path, "host_path": str(host_path), **fields}


def servers(huskd):
    return [pid for pid in huskd.vm_processes() if "virtiofsd" in host.command_line(pid)]


def status_fields(pid):
    return dict(line.split(":\t", 1) for line in host.read_text(f"/proc/{pid}/status").splitlines() if ":\t" in line)


def namespace(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.fixture(scope="module")
def checks_image(registry, huskd):
    return guest_programs.pulled_image(huskd, registry, "husk/posix-checks", ["posix_checks"])


class Shared:
    """One pod that all tests but the last share, and the host's directories that it has."""

    def __init__(self, huskd, image):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="husk-shared-", dir="/var/tmp"))
        self.data, self.submount, self.link = self.root / "data", self.root / "data" / "mounted", self.root / "link"
        self.submount.mkdir(parents=True)
        self.data.chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "husk-test", self.submount], check=True)
        (self.submount / "below").write_text("of another file system\n")
        (self.root / "linked").mkdir()
        (self.root / "linked" / "name").write_text("the first\n")
        self.link.symlink_to("linked")
        self.before = huskd.snapshot()
        self.image = image
        self.pod = huskd.run_pod("shared")
        self.container = self.pod.run("main", image, ["/bin/sleep", "1000000"], mounts=[
            mount("/data", self.data), mount("/readonly", self.data, readonly=True), mount("/link", self.link)])

    def shell(self, script):
        code, output, errors = self.container.execute("/bin/sh", "-c", script)
        return code, output + errors

    def close(self):
        subprocess.run(["umount", "--lazy", self.submount], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def shared(huskd, checks_image):
    made = None
    try:
        made = Shared(huskd, checks_image)
        yield made
    finally:
        if made is not None:
            with contextlib.suppress(grpc.RpcError):
                made.pod.remove()
            made.close()


def test_posix_checks(shared):
    """cri-semantics: what fio or pjdfstest would say of a PVC's file system."""
    assert shared.shell("mkdir /data/checks && chmod 755 /data/checks")[0] == 0
    code, output = shared.shell("/posix_checks /data/checks 1000 no-devices")
    assert code == 0, output
    assert int(output.split()[0]) > 150
    # The same files, seen by the host.
    names = {path.name for path in (shared.data / "checks").iterdir()}
    assert {"d", "link", "sparse", "facts", "setgid", "private"} <= names
    facts = (shared.data / "checks" / "sticky" / "roots").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (0, 0, 0o644)
    assert os.readlink(shared.data / "checks" / "link") == "somewhere/else"


def test_changes_go_both_ways(shared):
    data = shared.data
    (data / "from-host").write_text("one\n")
    assert shared.shell("cat /data/from-host") == (0, "one\n")
    (data / "new").write_text("two\n")
    os.rename(data / "new", data / "from-host")
    eventually(lambda: shared.shell("cat /data/from-host") == (0, "two\n"), "the guest to see the host's rename")
    os.unlink(data / "from-host")
    eventually(lambda: shared.shell("cat /data/from-host")[0] != 0, "the guest to see the host's unlink")

    assert shared.shell("echo guest > /data/from-guest; chown 1000:1001 /data/from-guest; chmod 640 /data/from-guest;"
                        "mkdir -p /data/a/b; mv /data/a /data/z")[0] == 0
    facts = (data / "from-guest").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (1000, 1001, 0o640)
    assert (data / "from-guest").read_text() == "guest\n"
    assert (data / "z" / "b").is_dir() and not (data / "a").exists()


def test_files_are_read_far_ahead(shared):
    code, output = shared.shell("device=$(stat -c %d /data); cat /sys/class/bdi/0:$device/read_ahead_kb")
    assert (code, output) == (0, "1024\n")


def test_what_is_mounted_below_is_there(shared):
    assert shared.shell("cat /data/mounted/below") == (0, "of another file system\n")
    assert shared.shell("echo guest > /data/mounted/new")[0] == 0
    assert (shared.submount / "new").read_text() == "guest\n"
    # Two devices, as on the host.
    output = shared.shell("stat -c %d /data /data/mounted")[1].split()
    assert output[0] != output[1]


def test_read_only_is_kept_by_the_host(shared):
    assert shared.shell("cat /readonly/mounted/below") == (0, "of another file system\n")
    for script in ("echo x > /readonly/x", "echo x > /readonly/mounted/x", "rm /readonly/mounted/below",
                   "touch /readonly/mounted/below"):
        code, output = shared.shell(script)
        assert code != 0 and "Read-only file system" in output, script
    assert not (shared.data / "x").exists()


def test_recursive_read_only(shared):
    """cri-semantics: recursive read-only mounts; without read-only they are refused, as the CRI says."""
    config = [mount("/data", shared.data, readonly=True, recursive_read_only=True)]
    container = shared.pod.run("recursive", shared.image, ["/bin/sh", "-c", "echo x > /data/mounted/x || exit 3"],
                               mounts=config)
    assert container.wait().exit_code == 3
    assert container.status().mounts[0].recursive_read_only
    with pytest.raises(grpc.RpcError) as refused:
        shared.pod.create("refused", shared.image, ["/bin/true"],
                          mounts=[mount("/data", shared.data, recursive_read_only=True)])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_servers_are_prisoners(huskd, shared):
    pids = servers(huskd)
    workers = [pid for pid in pids if status_fields(pid)["NoNewPrivs"] == "1" and status_fields(pid)["Seccomp"] == "2"]
    # One for the data, one for the data read-only, one for the link: each waits for a worker that serves.
    assert len(pids) == 6 and len(workers) == 3
    for pid in pids:
        for kind in ("user", "net", "mnt", "ipc", "uts"):
            assert namespace(pid, kind) != namespace("self", kind), kind
        assert huskd.cgroup_root in host.read_text(f"/proc/{pid}/cgroup")
    for pid in workers:
        assert namespace(pid, "pid") != namespace("self", "pid")
        assert status_fields(pid)["CapBnd"] == "0000000000000000"
        # Nothing of the host but the directory and what is mounted in it.
        places = {line.split()[4] for line in host.read_text(f"/proc/{pid}/mountinfo").splitlines()}
        assert places <= {"/", "/mounted"}
    read_only = [pid for pid in workers if " ro," in host.read_text(f"/proc/{pid}/mountinfo")]
    assert len(read_only) == 1
    assert all(" ro," in line for line in host.read_text(f"/proc/{read_only[0]}/mountinfo").splitlines())


def test_a_path_is_resolved_once(huskd, shared):
    assert shared.shell("cat /link/name") == (0, "the first\n")
    (shared.root / "other").mkdir()
    (shared.root / "other" / "name").write_text("the second\n")
    shared.link.unlink()
    shared.link.symlink_to("other")
    again = shared.pod.run("again", shared.image, ["/bin/cat", "/link/name"], mounts=[mount("/link", shared.link)])
    assert again.wait().exit_code == 0
    assert again.log() == "the first\n"
    assert len(servers(huskd)) == 6


def test_what_cannot_be_mounted_is_refused_by_name(shared):
    for config, code, words in [
            (mount("/data", shared.root / "none"), grpc.StatusCode.INVALID_ARGUMENT, f"{shared.root}/none: does not exist"),
            (mount("/data", shared.root / "linked" / "name", readonly=True,
                   propagation=cri.api.PROPAGATION_HOST_TO_CONTAINER),
             grpc.StatusCode.UNIMPLEMENTED, "linked/name: propagation HOST_TO_CONTAINER"),
            (mount("/data", shared.data, propagation=cri.api.PROPAGATION_BIDIRECTIONAL),
             grpc.StatusCode.UNIMPLEMENTED, "config.mounts[0].propagation")]:
        with pytest.raises(grpc.RpcError) as refused:
            shared.pod.create("refused", shared.image, ["/bin/true"], mounts=[config])
        assert refused.value.code() == code
        assert words in refused.value.details()


def test_mounts_of_the_host_come_and_go(huskd, shared):
    """Mount propagation HostToContainer. The test's own mounts are shared ones, as on a host with systemd."""
    followed = shared.root / "followed"
    for name in ("first", "later", "held"):
        (followed / name).mkdir(parents=True)
    subprocess.run(["mount", "--bind", followed, followed], check=True)
    subprocess.run(["mount", "--make-shared", followed], check=True)

    def tmpfs(name, content):
        subprocess.run(["mount", "-t", "tmpfs", "husk-test", followed / name], check=True)
        (followed / name / "content").write_text(content)

    def unmount(name):
        # Not lazily: no pod may keep the host from it.
        subprocess.run(["umount", followed / name], check=True)

    try:
        tmpfs("first", "there before\n")
        slave = {"propagation": cri.api.PROPAGATION_HOST_TO_CONTAINER}
        container = shared.pod.run("follower", shared.image, ["/bin/sleep", "1000000"], mounts=[
            mount("/followed", followed, **slave), mount("/readonly", followed, readonly=True, **slave),
            mount("/private", followed)])
        assert [entry.propagation for entry in container.status().mounts] == [1, 1, 0]

        def shell(script):
            code, output, errors = container.execute("/bin/sh", "-c", script)
            return code, output + errors

        def shows(name, content, place="/followed"):
            code = f"cat {place}/{name}/content 2>/dev/null || echo none"
            eventually(lambda: shell(code) == (0, content or "none\n"), f"{place}/{name} to be {content!r}")

        shows("first", "there before\n")
        assert shell("cat /private/first/content") == (0, "there before\n")
        tmpfs("later", "mounted later\n")
        shows("later", "mounted later\n")
        shows("later", "mounted later\n", "/readonly")
        assert shell("echo guest > /followed/later/new") == (0, "")
        assert (followed / "later" / "new").read_text() == "guest\n"
        code, output = shell("echo guest > /readonly/later/new")
        assert code != 0 and "Read-only file system" in output
        assert shell("ls /private/later") == (0, "")
        # A file system of its own, as on the host.
        assert len(set(shell("stat -c %d /followed /followed/later")[1].split())) == 2

        # One in use, while huskd is away; another one comes meanwhile.
        tmpfs("held", "held\n")
        shows("held", "held\n")
        assert shell("(sleep 100000 < /followed/held/content) > /dev/null 2>&1 &")[0] == 0
        huskd.kill()
        unmount("held")
        unmount("later")
        tmpfs("later", "another\n")
        huskd.start()
        shows("later", "another\n")
        shows("held", None)
        for name in ("first", "later"):
            unmount(name)
            shows(name, None)
            shows(name, None, "/readonly")
        assert shell("ls /followed") == (0, "first\nheld\nlater\n")

        # A disk that is unmounted can be taken away: no part of the pod holds on to it.
        image = shared.root / "image"
        with open(image, "wb") as empty:
            empty.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, followed / "first"], check=True)
        (followed / "first" / "content").write_text("of a disk\n")
        shows("first", "of a disk\n")
        shows("first", "of a disk\n", "/readonly")
        unmount("first")
        eventually(lambda: not subprocess.run(["losetup", "-j", image], capture_output=True, check=True).stdout,
                   "the disk to be free")
        container.pod.client.StopContainer(container_id=container.id, timeout=0)
        container.pod.client.RemoveContainer(container_id=container.id)
    finally:
        for name in ("first", "later", "held", ""):
            subprocess.run(["umount", "--lazy", "--quiet", followed / name], check=False)


def test_huskd_may_be_killed(huskd, shared):
    writer = shared.pod.run("writer", shared.image, ["/bin/sh", "-c", WRITER], mounts=[mount("/data", shared.data)])
    before = sorted(servers(huskd))
    written = shared.data / "written"
    eventually(lambda: written.exists() and len(written.read_text().splitlines()) > 3, "the container to write")
    huskd.kill()
    lines = len(written.read_text().splitlines())
    eventually(lambda: len(written.read_text().splitlines()) > lines + 5, "the container to write on")
    huskd.start()
    assert sorted(servers(huskd)) == before
    assert shared.pod.state() == "SANDBOX_READY"
    # The directory that is shared already, and one that is new to this huskd.
    extra = shared.root / "extra"
    extra.mkdir()
    again = shared.pod.run("second", shared.image, ["/bin/sh", "-c", "touch /data/stop /extra/file"],
                           mounts=[mount("/data", shared.data), mount("/extra", extra)])
    assert again.wait().exit_code == 0
    assert writer.wait().exit_code == 7
    numbers = written.read_text().split()
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    assert (extra / "file").exists()
    assert len(servers(huskd)) == len(before) + 2


def test_nothing_is_left(huskd, shared):
    assert servers(huskd)
    shared.pod.remove()
    assert servers(huskd) == []

    def difference():
        now = huskd.snapshot()
        return {kind: now[kind] - shared.before[kind] for kind in ("processes", "mounts", "cgroups")
                if now[kind] - shared.before[kind]}
    eventually(lambda: not difference(), lambda: f"the host to be as before: {difference()}", seconds=30)
    assert (shared.data / "from-guest").read_text() == "guest\n"


def test_the_death_of_a_server_ends_its_pod(huskd, checks_image, tmp_path):
    """The guest would wait for it for ever: the pod's VM is ended, and says why."""
    pod = huskd.run_pod("victim")
    container = pod.run("main", checks_image, ["/bin/sh", "-c", "while :; do date > /data/now; done"],
                        mounts=[mount("/data", tmp_path)])
    eventually(lambda: (tmp_path / "now").exists(), "the container to write")
    worker = [pid for pid in servers(huskd) if status_fields(pid)["Seccomp"] == "2"]
    assert len(worker) == 1
    os.kill(worker[0], signal.SIGKILL)
    eventually(lambda: pod.state() == "SANDBOX_NOTREADY", "the pod to be NOTREADY", interval=0.05)
    status = container.wait()
    assert status.exit_code != 0
    assert f"the file server of {tmp_path} ended" in status.message
    assert servers(huskd) == []
    huskd.client.Status(deadline=10)
    pod.remove()
    assert huskd.vm_processes() == []
