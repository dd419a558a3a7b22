"""kubectl debug: a container added to a pod that runs, a copy of a pod, and a node, which no VM can show."""

from harness.kubelet import NODE, container_status, is_ready
from harness.manifests import pod, shell
from harness.terminal import PtyProgram


def test_debug(cluster, space):
    space.run(pod("patient", shell("main", "sleep 54321", cluster.image)))
    identity = container_status(space.get("pod", "patient"), "main")["containerID"]
    command = cluster.kubectl_command(
        "--namespace", space.name, "debug", "-it", "patient", "--image", cluster.image, "--image-pull-policy=IfNotPresent",
        "--container", "visitor", "--target", "main", "--profile", "general", "--", "/bin/sh")
    with PtyProgram(command) as visitor:
        visitor.type(b"echo sees $(ps | grep -c '[s]leep 54321') $((6*7))\r")
        visitor.wait_for(b"sees 1 42")
        # Its target's files, by way of the target's first process.
        visitor.type(b"ls /proc/1/root/etc/motd && exit 4\r")
        visitor.wait()
    found = space.wait_for("pod", "patient", lambda found: "terminated" in (container_status(found, "visitor") or {}).get(
        "state", {}), "to have had a visitor")
    assert container_status(found, "visitor")["state"]["terminated"]["exitCode"] == 4
    assert (container_status(found, "main")["containerID"], container_status(found, "main")["restartCount"]) == (identity, 0)

    space.kubectl("debug", "patient", "--copy-to", "copy", "--image", cluster.image, "--image-pull-policy=IfNotPresent",
                  "--container", "visitor", "--share-processes", "--profile", "general", "--", "sleep", "12345")
    space.wait_for("pod", "copy", is_ready, "to be ready")
    processes = space.execute("copy", "ps", container="visitor")
    assert "sleep 54321" in processes and "sleep 12345" in processes
    assert is_ready(space.get("pod", "patient"))

    # A debugger of the node wants the host's namespaces.
    said = space.kubectl("debug", f"node/{NODE}", "--image", cluster.image, "--profile", "general", "--attach=false", "--",
                         "true").stdout
    debugger = next(word for word in said.split() if word.startswith("node-debugger-"))
    space.wait_for("pod", debugger, lambda _: any(
        reason == "FailedCreatePodSandBox" and "host" in message for reason, message in space.events(debugger)),
        "to be refused")
