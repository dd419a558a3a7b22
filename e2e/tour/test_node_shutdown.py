"""A graceful shutdown of the node, as logind announces it: pods end in their order and with their grace."""

from harness.daemon import PATIENCE, eventually
from harness.kubelet import NODE, conditions, is_ready
from harness.logind import Logind
from harness.manifests import pod, shell

# Limits for what hangs: each group of pods has as long as it takes.
SETTINGS = {"shutdownGracePeriod": f"{2 * PATIENCE:.0f}s", "shutdownGracePeriodCriticalPods": f"{PATIENCE:.0f}s"}
NOTE = "trap 'echo $(hostname) >>/notes/order; exit 3' TERM; while :; do sleep 0.2; done"


def noting(name, directory, image, **fields):
    """Notes its end in a directory of the host's."""
    return pod(name, shell("main", NOTE, image, volumeMounts=[{"name": "notes", "mountPath": "/notes"}]),
               volumes=[{"name": "notes", "hostPath": {"path": str(directory), "type": "Directory"}}],
               **{**fields, "terminationGracePeriodSeconds": 60})


def readiness(cluster):
    return next(one for one in cluster.get("node", NODE)["status"]["conditions"] if one["type"] == "Ready")


def test_pods_end_in_order_before_the_node_does(cluster, space, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    with Logind() as logind, cluster.node.configured({"DBUS_SYSTEM_BUS_ADDRESS": logind.address}, **SETTINGS):
        logind.wait_for_lock()
        space.apply(noting("ordinary", notes, cluster.image),
                    noting("critical", notes, cluster.image, priorityClassName="system-node-critical"))
        for name in ("ordinary", "critical"):
            space.wait_for("pod", name, is_ready, "to be ready")
        logind.shut_down()
        eventually(lambda: "shutting down" in readiness(cluster)["message"], "the node to say that it is shutting down")
        space.apply(pod("late", shell("main", "true", cluster.image), nodeName=NODE, tolerations=[{"operator": "Exists"}]))
        logind.wait_for_release()
        assert (notes / "order").read_text() == "ordinary\ncritical\n"
        assert not [one for one in cluster.huskd.pods() if one.metadata.namespace == space.name and one.state == 0]
        for name in ("ordinary", "critical"):
            found = space.wait_for("pod", name, lambda found: found["status"]["phase"] == "Failed", "to end")
            assert found["status"]["reason"] == "Terminated" and "node shutdown" in found["status"]["message"]
            assert conditions(found)["DisruptionTarget"] == "True"
            assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
        space.wait_for("pod", "late", lambda found: found["status"].get("reason") == "NodeShutdown", "to be refused")
        logind.cancel()
        logind.wait_for_lock(2)
        space.run(pod("after", shell("main", "sleep 100000", cluster.image)))
    assert readiness(cluster)["status"] == "True"
