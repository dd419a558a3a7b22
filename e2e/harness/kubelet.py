"""A real kubelet on a huskd, without an API server: its pods are files, and it is asked at its own port."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

import yaml

from harness import host, kubernetes
from harness.daemon import PATIENCE, eventually
from harness.registry import free_port
from harness.secured import Authority

NODE = "husk-node"
# Sockets of device plugins are there, wherever the rest is.
FIXED_DIRECTORY = pathlib.Path("/var/lib/kubelet")


class Kubelet:
    """Keeps all that it writes below a directory of its own, and is ended by its process."""

    def __init__(self, huskd, **configuration):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="husk-kubelet-", dir="/var/tmp"))
        self.manifests = self.root / "manifests"
        self.manifests.mkdir()
        self.port = self._port()
        self.log_path = self.root / "kubelet.log"
        self.config_path = self.root / "config.yaml"
        self.authority, self._certificate, self._key = self._identity()
        self.configuration = {**self._configuration(huskd), **configuration}
        self.environment = {}
        self.wrapper = []  # as Huskd's
        self.process = None
        self.made_fixed_directory = not FIXED_DIRECTORY.exists()
        self._tls = ssl.create_default_context(cafile=self.authority)

    def _port(self):
        return free_port()

    def _identity(self):
        """(authority's certificate, own certificate, key)"""
        authority = Authority(self.root / "authority")
        return (authority.certificate, *authority.issue(NODE))

    def _arguments(self):
        """Beside those of every kubelet."""
        return []

    def _configuration(self, huskd):
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{huskd.socket}",
            "staticPodPath": str(self.manifests),
            "fileCheckFrequency": "1s",
            "syncFrequency": "10s",
            "address": "127.0.0.1",
            "port": self.port,
            "readOnlyPort": 0,
            "tlsCertFile": str(self._certificate),
            "tlsPrivateKeyFile": str(self._key),
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "podLogsDir": str(self.root / "pod-logs"),
            "volumePluginDir": str(self.root / "volume-plugins"),
            "resolvConf": "",
            "makeIPTablesUtilChains": False,
            "failSwapOn": False,
            "failCgroupV1": False,
            # The host's cgroup tree is not this kubelet's.
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            # Else its cAdvisor looks at no file system, and /stats/summary fails.
            "localStorageCapacityIsolation": True,
            # Figures of pods are huskd's, not what cAdvisor makes of a QEMU.
            "featureGates": {"PodAndContainerStatsFromCRI": True, "KubeletCrashLoopBackOffMax": True},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
            # The host's disk may be as full as it is.
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%",
                             "nodefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
        }

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def spawn(self):
        """`configuration` and `environment` are those of the next start."""
        self.config_path.write_text(yaml.safe_dump(self.configuration))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, str(kubernetes.program("kubelet")), "--config", str(self.config_path), "--root-dir",
                 str(self.root / "root"), "--cert-dir", str(self.root / "pki"), "--hostname-override", NODE, "--v", "3",
                 *self._arguments()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.environment})

    def start(self):
        self.spawn()

        def healthy():
            self.check()
            try:
                return self.get("/healthz") == b"ok"
            except OSError:
                return False
        eventually(healthy, lambda: f"the kubelet to be healthy\n{self.log_tail()}")
        return self

    def check(self):
        assert self.process.poll() is None, f"the kubelet ended with {self.process.returncode}\n{self.log_tail()}"

    def stop(self):
        """Its pods go on running."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def restart(self):
        assert self.stop() == 0, self.log_tail()
        return self.start()

    @contextlib.contextmanager
    def configured(self, environment=None, **configuration):
        """Restarted with other settings, for the length of a `with`."""
        before = self.configuration, self.environment
        self.configuration = {**self.configuration, **configuration}
        self.environment = {**self.environment, **(environment or {})}
        try:
            yield self.restart()
        finally:
            self.configuration, self.environment = before
            if self.process.poll() is None:
                self.stop()
            self.start()

    def log_tail(self, lines=60):
        return "\n".join(host.read_text(self.log_path).splitlines()[-lines:])

    def get(self, path, timeout=60):
        with urllib.request.urlopen(self.url + path, context=self._tls, timeout=timeout) as answer:
            return answer.read()

    def post(self, path, timeout=60):
        request = urllib.request.Request(self.url + path, method="POST")
        with urllib.request.urlopen(request, context=self._tls, timeout=timeout) as answer:
            return answer.read()

    def json(self, path):
        return json.loads(self.get(path))

    # ---- static pods

    def add(self, name, spec, **metadata):
        """Writes a static pod's manifest. Its full name is name-NODE."""
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", **metadata},
                    "spec": spec}
        # Elsewhere first: the kubelet watches the directory, and reads what appears.
        draft = self.root / f"{name}.yaml"
        draft.write_text(yaml.safe_dump(manifest))
        os.replace(draft, self.manifests / f"{name}.yaml")

    def delete(self, name):
        (self.manifests / f"{name}.yaml").unlink()

    def pod(self, name):
        """As the kubelet tells it; None if it has none of that name."""
        return next((pod for pod in self.json("/pods")["items"] or [] if pod["metadata"]["name"] == f"{name}-{NODE}"), None)

    def wait_for(self, name, condition, what, seconds=PATIENCE):
        """Until condition(pod); the pod."""
        def met():
            pod = self.pod(name)
            return pod if pod is not None and condition(pod) else None
        return eventually(met, lambda: f"{name} {what}: {json.dumps((self.pod(name) or {}).get('status'))}", seconds)

    def wait_until_ready(self, name, seconds=PATIENCE):
        return self.wait_for(name, is_ready, "to be ready", seconds)

    def remove_everything(self, huskd):
        """Ends the pods and the kubelet. Returns what went wrong: a list of sentences."""
        left = []
        if self.process is not None:
            try:
                if self.process.poll() is not None:
                    self.start()
                for manifest in self.manifests.iterdir():
                    manifest.unlink()
                # The kubelet keeps a sandbox that it has stopped until it has use for its place.
                eventually(lambda: all(pod.state for pod in huskd.pods()), "the static pods to end")
                self.stop()
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                left.append(f"the kubelet's end: {error}")
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        self._remove_files()
        return left

    def _remove_files(self):
        remove_files(self.root, self.made_fixed_directory)


def remove_files(root, fixed_directory_too):
    """Of a kubelet that has ended, its mounts among them."""
    for mount in sorted((m for m in host.mounts() if m.startswith(str(root))), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(root, ignore_errors=True)
    if fixed_directory_too:
        shutil.rmtree(FIXED_DIRECTORY, ignore_errors=True)


def conditions(pod):
    return {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}


def is_ready(pod):
    return conditions(pod).get("Ready") == "True"


def container_status(pod, name):
    """A container's status, of whichever kind it is."""
    status = pod["status"]
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return next((one for kind in kinds for one in status.get(kind, []) if one["name"] == name), None)
