"""What a container may do, who it is and what it sees, and configurations made to get around it. Two pods are booted, and
one more that does not come to be."""

import contextlib
import errno
import json
import os
import threading

import grpc
import pytest

from harness import guest_programs
from harness.cri import api
from harness.daemon import eventually
from harness.registry import sample_image

SLEEP = ["/bin/sleep", "100000"]
# What the kubelet sends for a container whose procMount is the default.
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
          "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "77", "net/ipv4/conf/all/log_martians": "1",
           "kernel.shm_rmid_forced": "1", "kernel.msgmax": "4096", "fs.mqueue.msg_max": "33"}
REFUSED_CALLS = {"unshare": errno.EPERM, "mount": errno.EPERM, "keyctl": errno.EPERM, "bpf": errno.EPERM,
                 "perf_event_open": errno.EPERM, "io_uring_setup": errno.EPERM, "userfaultfd": errno.EPERM,
                 "kexec_load": errno.EPERM, "setns": errno.EPERM, "swapon": errno.EPERM, "clone_user": errno.EPERM,
                 "clone3": errno.ENOSYS, "vsock": errno.ENOSYS, "personality": errno.ENOSYS, "unknown": errno.ENOSYS}
ALLOWED_CALLS = {"clone": 0, "unix": 0, "mkdir": errno.ENOENT}


@pytest.fixture(scope="module")
def image(registry, huskd):
    """The sample image with a program that makes system calls, and a user of two groups."""
    accounts = [sample_image.Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:3000::/home/app:/bin/sh\n",
                                   0o644),
                sample_image.Entry("etc/group", b"root:x:0:\napp:x:3000:\nextra:x:50000:app\n", 0o644)]
    return guest_programs.pulled_image(huskd, registry, "security/calls", ["system_calls"],
                                       [sample_image.layer_tar(accounts)])


@pytest.fixture(scope="module")
def pod(huskd, image):
    pod = huskd.run_pod("secure", linux={"sysctls": SYSCTLS}, annotations={"run.oci.handler": "krun"})
    yield pod
    pod.remove()


def security(**context):
    context.setdefault("masked_paths", MASKED)
    context.setdefault("readonly_paths", READ_ONLY)
    return {"security_context": context}


def shell(container, script):
    code, out, err = container.execute("/bin/sh", "-c", script)
    assert code == 0, err
    return out.strip()


def status_of(container, pid="self"):
    lines = shell(container, f"cat /proc/{pid}/status").splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def outcomes(container, *names):
    code, out, err = container.execute("/system_calls", *names)
    assert code == 0, err
    return {name: int(number) for name, number in (line.split() for line in out.splitlines())}


def refusal(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **fields)
    assert error.value.details().isprintable()
    return error.value.code(), error.value.details()


@contextlib.contextmanager
def running(pod, image, name, command=SLEEP, **context):
    container = pod.run(name, image, command, linux=security(**context))
    yield container
    pod.client.StopContainer(container_id=container.id, timeout=0)


# ---- system calls


def test_runtime_default(pod, image):
    for name, context in {"default": {"seccomp": {"profile_type": api.SecurityProfile.RuntimeDefault}},
                          "default-old": {"seccomp_profile_path": "runtime/default"}}.items():
        with running(pod, image, name, **context) as container:
            assert status_of(container, 1)["Seccomp"] == "2"
            assert status_of(container)["Seccomp"] == "2", "an exec is under the same filter"
            assert outcomes(container, *REFUSED_CALLS, *ALLOWED_CALLS) == {**REFUSED_CALLS, **ALLOWED_CALLS}


def test_a_capability_opens_its_calls(pod, image):
    with running(pod, image, "administrator", seccomp={"profile_type": api.SecurityProfile.RuntimeDefault},
                 capabilities={"add_capabilities": ["SYS_ADMIN"]}) as container:
        assert status_of(container, 1)["Seccomp"] == "2"
        assert outcomes(container, "unshare", "mount", "clone_user", "clone3", "keyctl") == {
            "unshare": 0, "mount": errno.ENOENT, "clone_user": 0, "clone3": errno.EINVAL, "keyctl": errno.EPERM}


def test_unconfined_and_privileged_have_no_filter(pod, image):
    default = {"profile_type": api.SecurityProfile.RuntimeDefault}
    for name, context in {"unset": {}, "unconfined": {"seccomp": {"profile_type": api.SecurityProfile.Unconfined}},
                          "privileged": {"seccomp": default, "privileged": True}}.items():
        with running(pod, image, name, **context) as container:
            assert status_of(container, 1)["Seccomp"] == "0"
            assert outcomes(container, "keyctl", "clone_user") == {"keyctl": 0, "clone_user": 0}


def test_a_localhost_profile_denies_mkdir(pod, image, tmp_path):
    profile = tmp_path / "no-mkdir.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}]}))
    for name, context in {
            "localhost": {"seccomp": {"profile_type": api.SecurityProfile.Localhost, "localhost_ref": str(profile)}},
            "localhost-old": {"seccomp_profile_path": f"localhost/{profile}"}}.items():
        with running(pod, image, name, **context) as container:
            # Read once: what becomes of the file concerns later containers.
            assert status_of(container, 1)["Seccomp"] == "2"
            assert outcomes(container, "mkdir", "unshare") == {"mkdir": errno.EXDEV, "unshare": 0}
            assert container.execute("/bin/mkdir", "/tmp/x")[0] != 0


def test_profiles_that_are_none_are_refused_by_name(pod, image, tmp_path):
    def create(reference):
        return refusal(pod.create, "bad-profile", image, SLEEP, linux=security(
            seccomp={"profile_type": api.SecurityProfile.Localhost, "localhost_ref": str(reference)}))
    (tmp_path / "junk.json").write_text("{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"sycalls\": []}")
    (tmp_path / "notify.json").write_text("{\"defaultAction\": \"SCMP_ACT_NOTIFY\"}")
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 20) + 1))
    os.mkfifo(tmp_path / "fifo")
    for reference, words in {
            "": "localhost_ref", "relative.json": "localhost_ref", tmp_path / "missing.json": "missing.json",
            tmp_path / "junk.json": "sycalls", tmp_path / "notify.json": "SCMP_ACT_NOTIFY",
            tmp_path / "large.json": "larger than", tmp_path / "fifo": "not a regular file",
            "/dev/zero": "not a regular file", f"{tmp_path}/../x\x1b": "x\\x1b"}.items():
        code, details = create(reference)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "seccomp" in details and words in details, details


def test_apparmor_and_selinux_are_refused_by_name(pod, image):
    for context, field in [({"apparmor": {"profile_type": api.SecurityProfile.Localhost, "localhost_ref": "x"}}, "apparmor"),
                           ({"apparmor_profile": "localhost/x"}, "apparmor_profile"),
                           ({"selinux_options": {"type": "spc_t"}}, "selinux_options")]:
        code, details = refusal(pod.create, "labelled", image, SLEEP, linux=security(**context))
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert f"security_context.{field}: " in details
    with running(pod, image, "unlabelled", apparmor={"profile_type": api.SecurityProfile.RuntimeDefault}):
        pass


# ---- privileges


def test_privileges(pod, image):
    with running(pod, image, "plain") as container:
        assert status_of(container, 1)["NoNewPrivs"] == "0"
        assert int(status_of(container, 1)["CapEff"], 16) == 0xa80425fb
        assert shell(container, "ulimit -Sn; ulimit -Hn").split() == ["1024", "524288"]
    net_admin = 1 << 12
    with running(pod, image, "bare", run_as_user={"value": 1000}, no_new_privs=True, readonly_rootfs=True,
                 capabilities={"drop_capabilities": ["ALL"], "add_ambient_capabilities": ["NET_ADMIN"]}) as container:
        status = status_of(container, 1)
        assert status["NoNewPrivs"] == "1"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == net_admin, name
        assert status_of(container)["NoNewPrivs"] == "1", "of an exec"
        assert int(status_of(container)["CapEff"], 16) == net_admin, "of an exec"
        assert "Read-only" in container.execute("/bin/touch", "/tmp/x")[2]
    with running(pod, image, "privileged-too", privileged=True, masked_paths=[], readonly_paths=[]) as container:
        status = status_of(container, 1)
        assert int(status["CapEff"], 16) & (1 << 21)
        assert status["CapEff"] == status["CapBnd"]
        shell(container, "mkdir /mnt && mount -t tmpfs none /mnt")


def test_masked_and_read_only_paths(pod, image):
    with running(pod, image, "masked") as container:
        assert shell(container, "wc -c < /proc/keys") == "0"
        assert shell(container, "ls -A /sys/firmware") == ""
        assert "Read-only" in container.execute("/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")[2]
    with running(pod, image, "unmasked", masked_paths=[], readonly_paths=[],
                 capabilities={"add_capabilities": ["NET_ADMIN"]}) as container:
        assert shell(container, "ls -A /sys/firmware") != ""
        shell(container, "cat /proc/sys/net/ipv4/ip_forward > /proc/sys/net/ipv4/ip_forward")


# ---- users


def groups(container, command="id -G"):
    return sorted(int(gid) for gid in shell(container, command).split())


def resolved(container):
    user = container.status().user.linux
    return user.uid, user.gid, sorted(user.supplemental_groups)


def test_supplemental_groups(pod, image, huskd):
    features = huskd.client.Status().features
    assert features.supplemental_groups_policy and not features.user_namespaces_host_network
    assert not any(handler.features.user_namespaces for handler in huskd.client.Status().runtime_handlers)
    who = {"run_as_user": {"value": 1000}, "run_as_group": {"value": 3000}, "supplemental_groups": [4000]}
    with running(pod, image, "merge", **who) as merge, \
            running(pod, image, "strict", supplemental_groups_policy=api.Strict, **who) as strict:
        assert groups(merge) == [3000, 4000, 50000]
        assert groups(strict) == [3000, 4000]
        assert status_of(merge, 1)["Groups"].split() == ["3000", "4000", "50000"]
        assert resolved(merge) == (1000, 3000, [3000, 4000, 50000])
        assert resolved(strict) == (1000, 3000, [3000, 4000])
        huskd.restart()
        assert resolved(merge) == (1000, 3000, [3000, 4000, 50000])


def test_users_by_name_and_by_image(pod, image):
    with running(pod, image, "named", run_as_username="app") as container:
        assert shell(container, "id -u; id -g").split() == ["1000", "3000"]
        assert resolved(container) == (1000, 3000, [3000, 50000])
        assert status_of(container, 1)["Uid"].split() == ["1000"] * 4
        assert shell(container, "echo $HOME") == "/home/app"
    with running(pod, image, "of-image") as container:
        assert resolved(container) == (0, 0, [0])
    code, details = refusal(pod.create, "nobody", image, SLEEP, linux=security(run_as_username="no\x7fwho"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "no\\x7fwho" in details
    code, details = refusal(pod.create, "group", image, SLEEP, linux=security(run_as_group={"value": 5}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "run_as_group" in details


# ---- namespaces


def commands(container):
    return shell(container, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done").splitlines()


def test_pid_namespaces(pod, image):
    shared = {"namespace_options": {"pid": api.POD}}
    with running(pod, image, "own", ["/bin/sleep", "100001"], namespace_options={"pid": api.CONTAINER}) as own, \
            running(pod, image, "first", ["/bin/sleep", "100002"], **shared) as first, \
            running(pod, image, "second", ["/bin/sleep", "100003"], **shared) as second:
        assert shell(own, "cat /proc/1/comm") == "sleep"
        assert not any("100002" in line for line in commands(own))
        seen = "\n".join(commands(first))
        assert "sleep 100002" in seen and "sleep 100003" in seen and "sleep 100001" not in seen
        assert shell(first, "readlink /proc/self/ns/pid") == shell(second, "readlink /proc/self/ns/pid")
        # Its first process is no container's, and gives nothing away.
        assert shell(first, "cat /proc/1/comm") == "husk-pod-init"
        status = status_of(first, 1)
        assert status["Uid"].split()[0] == "65535" and int(status["CapPrm"], 16) == 0
        # It reaps what containers leave behind.
        shell(first, "(sleep 0.1 &) ; true")
        eventually(lambda: "Z (zombie)" not in shell(second, "cat /proc/[0-9]*/status"), "the orphan to be reaped")
        # A container ends alone.
        pod.client.StopContainer(container_id=second.id, timeout=0)
        assert first.state() == "CONTAINER_RUNNING"
        debug = pod.run("debug", image, ["/bin/sleep", "100004"], linux=security(
            namespace_options={"pid": api.TARGET, "target_id": own.id}))
        assert shell(debug, "cat /proc/1/cmdline | tr '\\0' ' '") == "/bin/sleep 100001"
        assert "sleep 100004" in "\n".join(commands(own))
        # The namespace ends with its first process, and takes the looker-on with it.
        pod.client.StopContainer(container_id=own.id, timeout=0)
        assert debug.wait().exit_code == 137
    code, details = refusal(pod.create, "late", image, SLEEP, linux=security(
        namespace_options={"pid": api.TARGET, "target_id": own.id}))
    assert code == grpc.StatusCode.FAILED_PRECONDITION and own.id in details
    for target, code in (("x" * 64, grpc.StatusCode.INVALID_ARGUMENT), ("", grpc.StatusCode.INVALID_ARGUMENT)):
        assert "target_id" in refusal(pod.create, "lost", image, SLEEP, linux=security(
            namespace_options={"pid": api.TARGET, "target_id": target}))[1]


def test_the_pods_first_process_shows_nothing_even_to_a_tracer(pod, image):
    with running(pod, image, "tracer", namespace_options={"pid": api.POD},
                 capabilities={"add_capabilities": ["SYS_PTRACE"]}) as container:
        for directory in ("/proc/1/root/", "/proc/1/root/..", "/proc/1/cwd/"):
            assert shell(container, f"ls -A {directory}") == ""


def test_ipc_namespaces(pod, image):
    own = {"namespace_options": {"ipc": api.CONTAINER}}
    with running(pod, image, "ipc-a") as first, running(pod, image, "ipc-b") as second, \
            running(pod, image, "ipc-own", **own) as alone:
        shell(first, "echo shared > /dev/shm/file")
        assert shell(second, "cat /dev/shm/file") == "shared"
        assert shell(alone, "ls -A /dev/shm") == ""
        links = [shell(container, "readlink /proc/self/ns/ipc") for container in (first, second, alone)]
        assert links[0] == links[1] != links[2]
        for container in (first, alone):
            assert shell(container, "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max").split() == ["4096", "33"]


def test_user_namespaces_are_refused_by_name(huskd):
    code, details = refusal(huskd.client.RunPodSandbox, config=huskd.pod_config(linux={"security_context": {
        "namespace_options": {"userns_options": {"mode": api.POD}}}}))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "userns_options" in details


# ---- CRI-02


def test_cri_02_sysctls(pod, image, huskd):
    with running(pod, image, "sysctls") as container:
        for name, value in SYSCTLS.items():
            assert shell(container, f"cat /proc/sys/{name.replace('.', '/')}") == value
    for name in ("vm.swappiness", "kernel.panic", "kernel.core_pattern", "fs.file-max", "net.a+b", "net.core.x=1",
                 "net/../kernel/panic", "net..core", "net.core/../../vm.swappiness", "/net/core/somaxconn",
                 "net.\x1b\u202e", "net." + "x" * 4096, ""):
        code, details = refusal(huskd.client.RunPodSandbox,
                                config=huskd.pod_config(linux={"sysctls": {"net.core.somaxconn": "5", name: "1"}}))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "config.linux.sysctls[" in details
        if name.isprintable() and len(name) < 100:
            assert f"[{name}]" in details
    code, details = refusal(huskd.client.RunPodSandbox,
                            config=huskd.pod_config(linux={"sysctls": {"net.core.somaxconn": "5\n6"}}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "net.core.somaxconn" in details
    assert len(huskd.pods()) == 1


# ---- CRI-01


def test_cri_01_ids_and_names(pod, image, huskd):
    names = ["a/b", "../../etc", "a\0b", "x" * 4096, "a\nb", "a\x1b[31m", "a\x7f", "w\u0435b", "we\u200bb",
             "\u202ebew", "\ufeffweb"]
    before = len(huskd.containers())
    for name in names:
        for field in ("name", "namespace", "uid"):
            metadata = {"name": "n", "namespace": "ns", "uid": "u", field: name}
            config = huskd.pod_config()
            config.metadata.CopyFrom(api.PodSandboxMetadata(**metadata))
            code, details = refusal(huskd.client.RunPodSandbox, config=config)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert f"config.metadata.{field}: " in details and len(details) < 2000
        code, details = refusal(pod.create, name, image, SLEEP)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "metadata.name" in details
        for call, field in ((huskd.client.ContainerStatus, "container_id"), (huskd.client.StartContainer, "container_id"),
                            (huskd.client.PodSandboxStatus, "pod_sandbox_id")):
            code, details = refusal(call, **{field: name})
            assert code == grpc.StatusCode.NOT_FOUND and len(details) < 5000
        # Ends of what is not there are done already.
        huskd.client.RemoveContainer(container_id=name)
        huskd.client.StopPodSandbox(pod_sandbox_id=name)
        huskd.client.RemovePodSandbox(pod_sandbox_id=name)
    assert len(huskd.containers()) == before and len(huskd.pods()) == 1


# ---- CFG-02 to CFG-04


def test_cfg_02_volumes_working_directories_and_environment(pod, image, huskd, registry):
    value = "line one\nline two=\t'$HOME' \\ \u00fc"
    reference = registry.push("security/odd", Volumes={"/../../": {}, "relative": {}, "/data/../..": {}},
                              Env=["PATH=/usr/bin:/bin", f"FROM_IMAGE={value}"])
    huskd.pull(reference)
    container = pod.run("odd", reference, ["/bin/sh", "-c", "env -0 | tr '\\0' '~'; echo; sleep 100000"],
                        envs=[{"key": "GIVEN", "value": value}])
    printed = container.wait_for_log(f"GIVEN={value}~").split("~")
    assert f"FROM_IMAGE={value}" in printed and f"GIVEN={value}" in printed
    pod.client.StopContainer(container_id=container.id, timeout=0)
    for directory in ("/proc/self/fd/7", "/tmp/../proc/1/root"):
        code, details = refusal(pod.create, "inside", image, SLEEP, working_dir=directory)
        assert code == grpc.StatusCode.INVALID_ARGUMENT and directory in details
    links = [sample_image.Entry(f"link{number}", symlink=f"/proc/self/fd/{number}") for number in range(3, 20)]
    layers = [*sample_image.sample_layers(), sample_image.layer_tar(links)]
    reference = registry.push("security/links", layers=layers)
    huskd.pull(reference)
    for number in range(3, 20):
        container = pod.create(f"link{number}", reference, ["/bin/sh", "-c", "pwd -P; ls ../../../../..; ls"],
                               working_dir=f"/link{number}")
        with contextlib.suppress(grpc.RpcError):
            container.start()
        container.wait()
        # What only the guest's own root has.
        assert "sysroot" not in container.log() and "init" not in container.log().split()
        pod.client.RemoveContainer(container_id=container.id)


@pytest.mark.parametrize("name, target", [
    ("etc", "/proc/1/root/etc"), ("etc", "../../../../run/husk/pod"), ("dev", "/../../dev"), ("dev", "/tmp"),
    ("proc", "/tmp"), ("proc", "../../../../run"), ("etc/resolv.conf", "/../../../../init"),
    ("etc/resolv.conf", "/proc/1/root/etc/husk/modules"), ("etc/hosts", "loop"), ("sys", "/nowhere")])
def test_cfg_03_symlinks_where_crun_mounts(pod, huskd, registry, name, target):
    """The container starts with its own files, or fails with words of why; nothing outside it changes."""
    base = [entry for entry in sample_image.base_layer() if entry.name != name]
    entries = [*base, sample_image.Entry(name, symlink=target)]
    reference = registry.push("security/links-" + name.replace("/", "-"), tag=target.replace("/", "-").strip("-."),
                              layers=[sample_image.layer_tar(entries)])
    huskd.pull(reference)
    witness = pod.run("witness", huskd_sample(huskd, registry), SLEEP)
    before = shell(witness, "cat /etc/resolv.conf /etc/hosts /etc/hostname; ls /dev /proc/sys; mount | wc -l")
    container = pod.create("linked", reference, ["/bin/sh", "-c", "echo inside > /etc/resolv.conf; echo started; sleep 100000"])
    try:
        container.start()
        container.wait_for_log("started")
    except grpc.RpcError as error:
        assert error.details().isprintable() and container.id in error.details()
        assert container.status().reason == "StartError"
    pod.client.RemoveContainer(container_id=container.id)
    assert shell(witness, "cat /etc/hostname; ls /dev /proc/sys; mount | wc -l") in before
    assert shell(witness, "echo fine") == "fine"
    pod.client.RemoveContainer(container_id=witness.id)
    later = pod.run("later", huskd_sample(huskd, registry), ["/bin/true"])
    assert later.wait().exit_code == 0
    pod.client.RemoveContainer(container_id=later.id)


def huskd_sample(huskd, registry):
    reference = registry.push("security/sample")
    huskd.pull(reference)
    return reference


def test_cfg_04_reserved_labels_and_annotations(pod, image, huskd, registry, tmp_path):
    """Words that other runtimes take orders from are words here."""
    trap = tmp_path / "trap"
    reserved = {"run.oci.handler": "krun", "run.oci.hooks.stderr": str(trap), "run.oci.hooks.stdout": str(trap),
                "run.oci.seccomp.receiver": str(trap), "run.oci.keep_original_groups": "1",
                "io.katacontainers.config.hypervisor.path": "/bin/false", "io.kubernetes.cri-o.Devices": "/dev/mem",
                "io.kubernetes.cri.untrusted-workload": "true", "husk.io/anything": "x",
                "org.systemd.property.ExecStartPre": f"'/bin/touch {trap}'"}
    reference = registry.push("security/labelled", Labels=reserved)
    huskd.pull(reference)
    container = pod.create("labelled", reference, SLEEP, labels=reserved, annotations=reserved).start()
    status = container.status()
    assert dict(status.labels) == dict(status.annotations) == reserved
    assert int(status_of(container, 1)["CapEff"], 16) == 0xa80425fb
    assert container.execute("/bin/cat", "/dev/mem")[0] != 0
    assert not trap.exists()
    pod.client.StopContainer(container_id=container.id, timeout=0)


# ---- CRI-05


def test_cri_05_repeated_and_reordered_calls(pod, image, huskd):
    client = huskd.client
    container = pod.create("repeated", image, SLEEP)
    for _ in range(2):
        client.StopContainer(container_id=container.id, timeout=0)  # nothing to stop yet
    assert container.state() == "CONTAINER_CREATED"
    for _ in range(3):
        client.StartContainer(container_id=container.id)
    started_at = container.status().started_at
    client.StartContainer(container_id=container.id)
    assert container.status().started_at == started_at
    for _ in range(2):
        client.StopContainer(container_id=container.id, timeout=0)
    assert refusal(client.StartContainer, container_id=container.id)[0] == grpc.StatusCode.FAILED_PRECONDITION
    for _ in range(2):
        client.RemoveContainer(container_id=container.id)
    assert refusal(client.StartContainer, container_id=container.id)[0] == grpc.StatusCode.NOT_FOUND
    assert refusal(container.execute, "/bin/true")[0] == grpc.StatusCode.NOT_FOUND


def test_cri_05_concurrent_calls(pod, image, huskd):
    """Every order of start, stop, exec, status and removal ends with the container gone."""
    container = pod.create("raced", image, SLEEP)
    calls = [("StartContainer", {}), ("ExecSync", {"cmd": ["/bin/true"], "timeout": 60}), ("StopContainer", {"timeout": 0}),
             ("ContainerStatus", {}), ("StartContainer", {}), ("RemoveContainer", {}), ("StopContainer", {"timeout": 1}),
             ("RemoveContainer", {})]
    futures = [huskd.client.future(name, container_id=container.id, **fields) for name, fields in calls]
    for (name, _), future in zip(calls, futures):
        error = future.exception()
        if name in ("RemoveContainer", "StopContainer"):
            assert error is None, error
        elif error is not None:
            assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION,
                                    grpc.StatusCode.UNAVAILABLE), error
    assert refusal(huskd.client.ContainerStatus, container_id=container.id)[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name, fields", [
    ("CreateContainer", None), ("StartContainer", {}), ("ExecSync", {"cmd": ["/bin/sleep", "1000"], "timeout": 0}),
    ("StopContainer", {"timeout": 0}), ("RemoveContainer", {})])
def test_cri_05_cancelled_calls(pod, image, huskd, name, fields):
    """Cancelled at once, a little later and later still, a call leaves what a repetition can go on with."""
    before = {each.id for each in huskd.containers()}
    for delay in (0, 0.02, 0.2, 0.6):
        container = None
        if name == "CreateContainer":
            config = pod.container_config("cancelled", image, SLEEP)
            future = huskd.client.future(name, pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        else:
            container = pod.create("cancelled", image, SLEEP)
            if name != "StartContainer":
                container.start()
            future = huskd.client.future(name, container_id=container.id, **fields)
        threading.Event().wait(delay)
        future.cancel()
        if container is None:
            container = pod.create("cancelled", image, SLEEP, attempt=1)
        if name != "RemoveContainer":
            if name in ("CreateContainer", "StartContainer"):
                container.start()
                assert shell(container, "echo fine") == "fine"
            huskd.client.StopContainer(container_id=container.id, timeout=0)
        huskd.client.RemoveContainer(container_id=container.id)
    # A creation that was finished when its caller had gone is there, and is the kubelet's to remove.
    for each in huskd.containers():
        if each.id not in before:
            huskd.client.RemoveContainer(container_id=each.id)
    assert {each.id for each in huskd.containers()} == before
    after = pod.run("after", image, ["/bin/true"])
    assert after.wait().exit_code == 0
    huskd.client.RemoveContainer(container_id=after.id)


def test_cri_05_a_pod_that_is_cancelled_while_it_boots(huskd, image):
    def traces():
        # The others may be those of an instance that runs beside this one.
        return {kind: names for kind, names in huskd.snapshot().items() if kind in ("processes", "mounts", "cgroups", "files")}
    config = huskd.pod_config("cancelled")
    before = traces()
    machines = len(huskd.vm_processes())
    future = huskd.client.future("RunPodSandbox", config=config)
    eventually(lambda: len(huskd.vm_processes()) > machines, "the VM to be there")
    future.cancel()
    eventually(lambda: traces() == before, "everything of the pod to go")
    # A retry of the same pod, twice at once, is one pod.
    futures = [huskd.client.future("RunPodSandbox", config=config) for _ in range(2)]
    ids = {each.result().pod_sandbox_id for each in futures}
    assert len(ids) == 1
    for _ in range(2):
        huskd.client.StopPodSandbox(pod_sandbox_id=next(iter(ids)))
        huskd.client.RemovePodSandbox(pod_sandbox_id=next(iter(ids)))
    eventually(lambda: traces() == before, "everything of the pod to go")
