"""The tour's cluster, and what its stops have in common. One cluster for all of them: each has a namespace of its own."""

import itertools
import os

import pytest

from harness.cluster import REGISTRY_PORT, running
from harness.daemon import eventually
from harness.following import Following
from harness.kubelet import is_ready

# A stop waits for several boots in turn, on a host that others keep busy too; the limit is for what never comes.
PATIENCE = 600
NUMBER = int(os.environ.get("HUSK_TOUR_NUMBER", "38"))
# The kubelet's garbage collection spares images of repositories below it.
PINNED = "pinned"


@pytest.fixture(scope="session")
def cluster():
    with running(NUMBER, huskd={"images": {"pinned": [f"127.0.0.1:{REGISTRY_PORT}/{PINNED}/*"]}}) as instance:
        yield instance


_names = itertools.count(1)


class Space:
    """A namespace of one stop, and what is asked in it."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.name = f"stop{next(_names)}"

    def make(self):
        self.cluster.kubectl("create", "namespace", self.name)
        eventually(lambda: self.cluster.kubectl("--namespace", self.name, "get", "serviceaccount", "default",
                                                check=False).returncode == 0, "the namespace's service account")
        return self

    def kubectl(self, *arguments, **options):
        return self.cluster.kubectl("--namespace", self.name, *arguments, **options)

    def apply(self, *objects):
        for one in objects:
            one["metadata"].setdefault("namespace", self.name)
        self.cluster.apply(*objects)

    def get(self, *arguments):
        return self.cluster.get("--namespace", self.name, *arguments)

    def list(self, *arguments):
        return self.cluster.list("--namespace", self.name, *arguments)

    def wait_for(self, kind, name, condition, what, seconds=PATIENCE, **options):
        return self.cluster.wait_for(kind, name, condition, what, namespace=self.name, seconds=seconds, **options)

    def execute(self, pod, *command, **options):
        return self.cluster.execute(pod, *command, namespace=self.name, **options)

    def following(self, *arguments, environment=None):
        """A kubectl that runs beside the test."""
        return Following(self.cluster.kubectl_command("--namespace", self.name, *arguments), environment)

    def events(self, name):
        """[(reason, message)] of an object, oldest first."""
        found = self.list("events", "--field-selector", f"involvedObject.name={name}", "--sort-by", ".lastTimestamp")
        return [(event["reason"], event["message"]) for event in found]

    def run(self, pod):
        """Applies a pod and waits until it is Ready."""
        self.apply(pod)
        return self.wait_for("pod", pod["metadata"]["name"], is_ready, "to be ready")

    def delete(self, kind, name, *arguments):
        """And waits until it is gone."""
        self.kubectl("delete", kind, name, "--wait=true", *arguments)

    def remove(self):
        """Its pods are gone when this returns. The rest follows when Kubernetes has waited its five seconds."""
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false")
        self.kubectl("delete", "pods", "--all", "--wait=true")


def _space(cluster):
    instance = Space(cluster)
    instance.make()
    try:
        yield instance
    finally:
        instance.remove()


@pytest.fixture
def space(cluster):
    yield from _space(cluster)


@pytest.fixture(scope="module")
def shared_space(cluster):
    """For pods that all tests of a file share."""
    yield from _space(cluster)
