"""The kubelet's garbage collection of images: what nothing uses goes, what is used, mounted or pinned stays."""

from conftest import PINNED
from harness.daemon import eventually
from harness.kubelet import is_ready
from harness.manifests import pod, shell

# As soon as the kubelet starts, whatever has no container is old enough.
AT_ONCE = {"imageMinimumGCAge": "1ns", "imageMaximumGCAge": "2ns"}


def images(cluster):
    """Their ids by each of their names."""
    return {name: one.id for one in cluster.huskd.client.ListImages().images for name in one.repo_tags}


def idle(name, image, **fields):
    return pod(name, shell("main", "sleep 100000", image, **fields.pop("container", {})), **fields)


def test_what_nothing_uses_goes(cluster, space):
    # Each has a configuration of its own, and with it an id.
    used, unused, mounted, pinned = (
        cluster.registry.push(name, Env=["PATH=/usr/bin:/bin", f"NAME={name}"])
        for name in (f"{space.name}/used", f"{space.name}/unused", f"{space.name}/mounted", f"{PINNED}/{space.name}"))
    cluster.huskd.pull(pinned)
    space.apply(
        idle("ends", unused),
        idle("stays", used, container={"volumeMounts": [{"name": "image", "mountPath": "/image"}]},
             volumes=[{"name": "image", "image": {"reference": mounted, "pullPolicy": "IfNotPresent"}}]))
    for name in ("ends", "stays"):
        space.wait_for("pod", name, is_ready, "to be ready")
    space.delete("pod", "ends")
    identity = images(cluster)[unused]
    eventually(lambda: identity not in {one.image_id for one in cluster.huskd.containers()}, "its container to be removed")
    with cluster.node.configured(**AT_ONCE):
        eventually(lambda: unused not in images(cluster), "the unused image to go")
    left = images(cluster)
    assert {used, mounted, pinned} <= left.keys()
    assert space.execute("stays", "cat", "/image/etc/motd", "/etc/motd").count("image of three layers") == 2
    space.run(idle("comes-back", unused))
    cluster.huskd.client.RemoveImage(image={"image": pinned})
