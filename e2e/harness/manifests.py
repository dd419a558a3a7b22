"""Kubernetes objects as dictionaries, with what every test wants filled in."""

from harness.cluster import RUNTIME_CLASS


def shell(name, script, image, **fields):
    """A container that runs a script."""
    # Without a request a VM has the least share of the host's CPUs there is.
    fields.setdefault("resources", {"requests": {"cpu": "20m", "memory": "32Mi"}})
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", script], **fields}


def pod_spec(*containers, **fields):
    return {"containers": list(containers), "terminationGracePeriodSeconds": 1, "enableServiceLinks": False,
            "runtimeClassName": RUNTIME_CLASS, "automountServiceAccountToken": False, **fields}


def pod(name, *containers, labels=None, **fields):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
            "spec": pod_spec(*containers, **fields)}


def workload(kind, name, template, api_version="apps/v1", **fields):
    """A Deployment, DaemonSet or StatefulSet whose pods carry the label app=NAME."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}}, "spec": template}, **fields}}
