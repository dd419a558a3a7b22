"""Images as a guest sees them, layers that are shared, and pulls that are cut short."""

import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess
import time

import grpc
import pytest

from harness.registry import sample_image

# What the runtime puts into every container.
NOT_THE_IMAGE = ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]


@pytest.fixture(scope="module")
def file_facts(tmp_path_factory):
    """A static program that prints a tree's facts."""
    program = tmp_path_factory.mktemp("facts") / "file_facts"
    source = pathlib.Path(__file__).with_name("file_facts.c")
    subprocess.run(["gcc", "-O2", "-static", "-o", program, source], check=True)
    return program


def facts_of(file_facts, root):
    output = subprocess.run([file_facts, root, *NOT_THE_IMAGE], check=True, capture_output=True, text=True).stdout
    return sorted(output.splitlines())


def facts_in_guest(huskd, reference):
    huskd.pull(reference)
    pod = huskd.run_pod()
    try:
        container = pod.run("walk", reference, ["/file_facts", "/", *NOT_THE_IMAGE])
        assert container.wait().exit_code == 0
        return sorted(container.log().splitlines())
    finally:
        pod.remove()


def capability():
    """security.capability of a file with cap_net_raw, effective: version 2 of the kernel's format."""
    return bytes.fromhex("0100000200200000000000000000000000000000")


def fill(root, file_facts):
    """Every kind of entry."""
    randomness = random.Random(3)
    for name in ("etc", "proc", "sys", "dev", "data/deep" + "/d" * 60, "many", "replaced", "gone", "sticky"):
        (root / name).mkdir(parents=True)
    for name in ("resolv.conf", "hosts", "hostname"):
        (root / "etc" / name).touch()
    shutil.copy(file_facts, root / "file_facts")
    data = root / "data"
    (data / "empty").touch()
    (data / "small").write_bytes(b"a few bytes")
    (data / "block").write_bytes(randomness.randbytes(4096))
    (data / "large").write_bytes(randomness.randbytes(3_000_001))
    with open(data / "sparse", "wb") as sparse:
        sparse.seek(20_000_000)
        sparse.write(b"end")
    for name in ("link1", "link2", "deep/link3"):
        os.link(data / "small", data / name)
    (data / "relative").symlink_to("../data/small")
    (data / "absolute").symlink_to("/data/large")
    (data / "dangling").symlink_to("nowhere")
    (data / "long-target").symlink_to("t" * 3000)
    os.mkfifo(data / "fifo", 0o640)
    os.mknod(data / "character", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(data / "block-device", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    (data / "setuid").write_bytes(b"#!")
    os.chown(data / "setuid", 12, 13)
    os.chmod(data / "setuid", 0o4755)
    os.chmod(root / "sticky", 0o1777)
    (data / "owned").write_bytes(b"x")
    os.chown(data / "owned", 70_000, 4_000_000_000)
    os.setxattr(data / "owned", "user.color", b"green\0and binary\xff")
    os.setxattr(data / "small", "user.shared", b"by all links")
    os.setxattr(data / "large", "security.capability", capability())
    os.setxattr(data / "deep", "user.of-a-directory", b"yes")
    (data / ("n" * 255)).write_bytes(b"a long name")
    (data / "with space\tand\nnewline").write_bytes(b"y")
    (data / "ünïcode").write_bytes(b"z")
    with open(os.fsencode(data) + b"/not-utf8-\xff\xfe", "wb") as file:
        file.write(b"w")
    os.utime(data / "block", ns=(1, 1_234_567_890_123_456_789))
    os.utime(data / "empty", ns=(1, 4_294_967_300_000_000_001))
    for number in range(1500):
        (root / "many" / f"file-{number:05}").write_bytes(b"%d" % number)
    (root / "replaced" / "inside").write_bytes(b"1")
    (root / "gone" / "inside").write_bytes(b"2")


def change(root):
    """What a second layer does to the first."""
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "replaced")
    (root / "replaced").write_bytes(b"a file now")
    (root / "data" / "link1").unlink()
    (root / "data" / "fifo").unlink()
    (root / "data" / "fifo").mkdir()
    (root / "data" / "fifo" / "was-a-pipe").write_bytes(b"3")
    (root / "data" / "large").write_bytes(b"small now")
    (root / "data" / "relative").unlink()
    (root / "data" / "relative").symlink_to("elsewhere")
    os.chmod(root / "many", 0o700)
    for number in range(0, 1500, 3):
        (root / "many" / f"file-{number:05}").unlink()
    (root / "added").mkdir()
    os.link(root / "data" / "block", root / "added" / "link-to-an-older-layer")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"


def test_an_image_of_umoci_is_in_the_guest_what_umoci_unpacks(huskd, registry, file_facts, tmp_path):
    layout = f"{tmp_path}/layout:latest"
    run("umoci", "init", "--layout", tmp_path / "layout")
    run("umoci", "new", "--image", layout)
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--image", layout, bundle)
    fill(bundle / "rootfs", file_facts)
    run("umoci", "repack", "--refresh-bundle", "--image", layout, bundle)
    change(bundle / "rootfs")
    run("umoci", "repack", "--refresh-bundle", "--image", layout, bundle)
    run("umoci", "unpack", "--image", layout, tmp_path / "truth")
    reference = f"{registry.address}/husk/umoci:1"
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{reference}")
    truth = facts_of(file_facts, tmp_path / "truth" / "rootfs")
    assert any(line.startswith("/data/owned") and "user.color=677265656e00" in line for line in truth)
    assert facts_in_guest(huskd, reference) == truth


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_layers_of_gnu_tar_are_in_the_guest_what_tar_unpacks(huskd, registry, file_facts, tmp_path, form):
    first, second, truth = tmp_path / "first", tmp_path / "second", tmp_path / "truth"
    first.mkdir()
    fill(first, file_facts)
    second.mkdir()
    # Whiteouts by hand: of a file, of a directory, and of all that a directory had.
    (second / "data").mkdir()
    shutil.copystat(first / "data", second / "data")
    (second / "data" / ".wh.small").touch()
    (second / ".wh.gone").touch()
    (second / "many").mkdir()
    (second / "many" / ".wh..wh..opq").touch()
    (second / "many" / "alone").write_bytes(b"the only one")
    layers = []
    for tree in (first, second):
        archive = tmp_path / f"{tree.name}.tar"
        options = ["--format=pax", "--xattrs", "--xattrs-include=*"] if form == "pax" else ["--format=gnu", "--sparse"]
        run("tar", *options, "--numeric-owner", "-C", tree, "-cf", archive, ".")
        layers.append(archive.read_bytes())
    truth.mkdir()
    run("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", truth, "-xpf", tmp_path / "first.tar")
    (truth / "data" / "small").unlink()
    shutil.rmtree(truth / "gone")
    shutil.rmtree(truth / "many")
    run("tar", "--numeric-owner", "--exclude=.wh.*", "-C", truth, "-xpf", tmp_path / "second.tar")
    reference = registry.push(f"husk/tar-{form}", "1", layers)
    expected = facts_of(file_facts, truth)
    assert any("security.capability=01000002" in line for line in expected) == (form == "pax")
    assert facts_in_guest(huskd, reference) == expected


def files_below(directory):
    """Digest of every file, by its name."""
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(directory.rglob("*")) if path.is_file()}


def blobs(huskd):
    images = huskd.data / "images"
    return {name: digest for name, digest in files_below(images).items() if name.split("/")[0] in ("layers", "images")}


def test_a_second_image_adds_only_its_own_layer(huskd, registry):
    randomness = random.Random(4)
    shared = sample_image.sample_layers() + [sample_image.layer_tar(
        [sample_image.Entry("usr/share/filler", randomness.randbytes(2_000_000), 0o644)])]
    own = [sample_image.layer_tar([sample_image.Entry("etc/which", text, 0o644)]) for text in (b"first\n", b"second\n")]
    first = registry.push("husk/first", "1", shared + own[:1])
    second = registry.push("husk/second", "1", shared + own[1:])
    huskd.pull(first)
    before = blobs(huskd)
    huskd.pull(second)
    added = set(blobs(huskd)) - set(before)
    layer = hashlib.sha256(own[1]).hexdigest()
    assert {name for name in added if name.startswith("layers/")} == {f"layers/{layer}", f"layers/{layer}.index"}
    assert len(added) == 3, added  # and the metadata of the merged tree
    pod = huskd.run_pod()
    containers = [pod.run(name, reference, ["/bin/sh", "-c", "cat /etc/which; exec sleep 600"])
                  for name, reference in (("first", first), ("second", second))]
    for container in containers:
        container.wait_for_log(container.name)
        assert container.execute("/bin/sh", "-c", "wc -c < /usr/share/filler")[1].strip() == "2000000"
    pod.remove()
    # The shared layers stay while either image is there.
    huskd.client.RemoveImage(image={"image": first})
    assert f"layers/{layer}" in blobs(huskd)
    huskd.client.RemoveImage(image={"image": second})
    assert f"layers/{layer}" not in blobs(huskd)


def test_kill_in_the_middle_of_ten_pulls(huskd, registry):
    randomness = random.Random(5)
    filler = [sample_image.layer_tar([sample_image.Entry(f"filler/{number}", randomness.randbytes(3_000_000), 0o644)])
              for number in range(14)]
    references = [registry.push(f"husk/cut{number}", "1", filler[number:number + 5]) for number in range(10)]
    others = {image.id for image in huskd.client.ListImages().images}
    before = blobs(huskd)
    for reference in references:
        huskd.pull(reference)
    whole = blobs(huskd)
    for seconds in (0.05, 0.15, 0.3, 0.5, 0.8):
        for reference in references:
            huskd.client.RemoveImage(image={"image": reference})
        calls = [huskd.client.future("PullImage", image={"image": reference}) for reference in references]
        time.sleep(seconds)
        huskd.restart()
        for call in calls:
            call.exception()
        left = blobs(huskd)
        # What has an index is whole; nothing else is left, and no image is listed that is not whole.
        assert {name: whole[name] for name in left} == left
        assert not files_below(huskd.data / "images" / "ingest")
        for image in huskd.client.ListImages().images:
            assert image.id in others or (image.repo_tags and set(image.repo_tags) <= set(references))
        for reference in references:
            for attempt in range(3):
                try:
                    huskd.pull(reference)
                    break
                except grpc.RpcError as error:
                    # The client's channel may still be in its back-off after the restart.
                    assert error.code() == grpc.StatusCode.UNAVAILABLE and attempt < 2, error
                    time.sleep(1)
        assert blobs(huskd) == whole
    for reference in references:
        huskd.client.RemoveImage(image={"image": reference})
    assert blobs(huskd) == before
