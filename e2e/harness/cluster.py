"""A whole cluster of one node on this machine: etcd, the Kubernetes project's own programs, a kubelet and a huskd, in a
network namespace of their own."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import yaml

from harness import host, kubernetes
from harness.daemon import PATIENCE, Huskd, eventually
from harness.kubelet import NODE, Kubelet, remove_files
from harness.namespaces import NetworkNamespace
from harness.registry import RegistryServer
from harness.secured import Authority, openssl

# Ports and addresses are those of any cluster: nobody else is in the namespace.
API_SERVER, ETCD, KUBELET_PORT, REGISTRY_PORT = "https://127.0.0.1:6443", "http://127.0.0.1:2379", 10250, 5000
SERVICES, SERVICE_OF_API = "10.96.0.0/16", "10.96.0.1"
NODE_ADDRESS, NODE_INTERFACE = "10.215.0.1", "node"
RUNTIME_CLASS = "husk"
# What a pod's VM needs beside its containers, as docs/configuration.md has it.
OVERHEAD = {"memory": "450Mi", "cpu": "100m"}


def runtime_class():
    """The class, and a policy by which every pod that names none has it: without its overhead the kubelet's limit of a pod
    leaves no room for the machine (docs/adr/0134)."""
    policy = "every-pod-has-a-runtime-class"
    api = "admissionregistration.k8s.io/v1"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    change = 'Object{spec: Object.spec{runtimeClassName: "%s"}}' % RUNTIME_CLASS
    return [
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": RUNTIME_CLASS}, "handler": "husk",
         "overhead": {"podFixed": OVERHEAD}},
        {"apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": {"name": policy},
         "spec": {"matchConstraints": {"resourceRules": [pods]}, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                  "matchConditions": [
                      {"name": "names-none", "expression": "!has(object.spec.runtimeClassName)"},
                      # The API server's picture of a static pod, whose file is what counts.
                      {"name": "no-mirror", "expression": "!('kubernetes.io/config.mirror' in "
                                                          "object.metadata.?annotations.orValue({}))"}],
                  "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}]}},
        {"apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": policy},
         "spec": {"policyName": policy}}]


class Program:
    """One process of the cluster, with a log."""

    def __init__(self, name, command, directory, environment=None):
        self.name, self.command = name, [str(word) for word in command]
        self.log_path = directory / f"{name}.log"
        self._environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env=self._environment)

    def check(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}\n{self.log_tail()}"

    def log_tail(self, lines=40):
        return "\n".join(host.read_text(self.log_path).splitlines()[-lines:])

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Credentials:
    """The cluster's authority, and a kubeconfig for each who speaks to the API server."""

    def __init__(self, directory):
        self.directory = directory
        self.authority = Authority(directory / "authority")
        self.api_server = self.authority.issue(
            "kube-apiserver", alternatives=["IP:127.0.0.1", f"IP:{NODE_ADDRESS}", f"IP:{SERVICE_OF_API}", "DNS:kubernetes",
                                            "DNS:kubernetes.default", "DNS:kubernetes.default.svc",
                                            "DNS:kubernetes.default.svc.cluster.local"])
        self.kubelet_client = self.authority.issue("kube-apiserver-kubelet-client", "system:masters")
        self.kubelet = self.authority.issue(f"system:node:{NODE}", "system:nodes",
                                            ["IP:127.0.0.1", f"IP:{NODE_ADDRESS}", f"DNS:{NODE}"])
        self.accounts_key, self.accounts_public = directory / "accounts.key", directory / "accounts.pub"
        openssl("genrsa", "-out", self.accounts_key, 2048)
        openssl("rsa", "-in", self.accounts_key, "-pubout", "-out", self.accounts_public)
        self.admin = self.kubeconfig("admin", self.authority.issue("admin", "system:masters"))
        self.node = self.kubeconfig("kubelet", self.kubelet)
        self.controllers = self._component("kube-controller-manager")
        self.scheduler = self._component("kube-scheduler")
        self.proxy = self._component("kube-proxy")

    def _component(self, name):
        return self.kubeconfig(name, self.authority.issue(f"system:{name}"))

    def kubeconfig(self, name, identity):
        certificate, key = identity
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "husk",
            "clusters": [{"name": "husk", "cluster": {"server": API_SERVER,
                                                      "certificate-authority": str(self.authority.certificate)}}],
            "users": [{"name": name, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": "husk", "context": {"cluster": "husk", "user": name}}]}))
        return path


class Node(Kubelet):
    """The kubelet of a cluster: it has its pods from the API server, and lets in whom that one knows."""

    def __init__(self, huskd, credentials, **configuration):
        self._credentials = credentials
        super().__init__(huskd, **configuration)
        self._tls.load_cert_chain(*credentials.kubelet_client)

    def start(self):
        """Until it knows its pods: it does not find them before."""
        known = self.log_path.stat().st_size if self.log_path.exists() else 0
        super().start()

        def has_pods():
            with open(self.log_path, "rb") as log:
                log.seek(known)
                return b'"SyncLoop ADD" source="api"' in log.read()
        eventually(has_pods, lambda: f"the kubelet to have its pods\n{self.log_tail()}")
        return self

    def _port(self):
        return KUBELET_PORT

    def _identity(self):
        return (self._credentials.authority.certificate, *self._credentials.kubelet)

    def _arguments(self):
        return ["--kubeconfig", str(self._credentials.node), "--node-ip", NODE_ADDRESS]

    def _configuration(self, huskd):
        host.make_cgroup(huskd.cgroup_root)
        configuration = super()._configuration(huskd)
        for key in ("fileCheckFrequency", "crashLoopBackOff"):
            del configuration[key]
        configuration.update({
            "address": "0.0.0.0",
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                               "x509": {"clientCAFile": str(self.authority)}},
            "authorization": {"mode": "Webhook"},
            "clusterDomain": "cluster.local",
            "serializeImagePulls": False,
            # Pods' cgroups are the kubelet's: without them it ends with a panic at the first resize (1.36).
            "cgroupsPerQOS": True, "cgroupDriver": "cgroupfs", "cgroupRoot": huskd.cgroup_root,
            "enforceNodeAllocatable": ["pods"],
            "featureGates": {"PodAndContainerStatsFromCRI": True},
            # A machine that emulates its VMs is slow to say that it is well.
            "nodeStatusUpdateFrequency": "5s",
        })
        return configuration

    def remove_everything(self, huskd):
        left = []
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired as error:
                left.append(f"the kubelet's end: {error}")
                self.process.kill()
                self.process.wait()
        self._remove_files()
        return left


class Cluster:
    """`number` keeps it apart from others, as it does a Huskd; `say` gets a line for each step."""

    def __init__(self, number, say=lambda line: None, huskd=None, kubelet=None):
        self.number, self._say = number, say
        self._huskd_configuration, self._kubelet_configuration = huskd or {}, kubelet or {}
        self.namespace = NetworkNamespace(f"husk-cluster{number}")
        self.directory = None
        self.huskd = self.node = self.registry = self.image = None
        self.programs = []
        self._made_namespace = False
        self._old_kubelet = None
        self._binaries, self.credentials = {}, None

    # ---- up

    def up(self):
        """Until the node is Ready. The calling thread is in the cluster's network namespace from then on."""
        if kubernetes.missing():
            self._say("Go builds Kubernetes' programs")
        self._binaries = kubernetes.programs()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="husk-cluster-", dir="/var/tmp"))
        self.namespace.make()
        self._made_namespace = True
        self.namespace.add_interface(NODE_INTERFACE, f"{NODE_ADDRESS}/24")
        self.namespace.add_route(SERVICES, NODE_INTERFACE)
        self.namespace.enter()
        self._say("certificates")
        self.credentials = Credentials(self.directory)
        self._say("etcd and the API server")
        self._start_control_plane()
        self._say("registry, with an image")
        self.registry = RegistryServer(self.directory / "registry", REGISTRY_PORT)
        self.image = self.registry.push("husk/sample")
        self._say("huskd")
        self.huskd = Huskd(self.number, **{"metrics": {"address": "127.0.0.1:9105"}, **self._huskd_configuration})
        self.huskd.start()
        eventually(self._api_server_is_ready, lambda: f"the API server\n{self.programs[1].log_tail()}")
        self._say("controllers, scheduler, service proxy and kubelet")
        self._start_controllers()
        self.node = Node(self.huskd, self.credentials, **self._kubelet_configuration)
        self.node.start()
        self.apply(*runtime_class())
        eventually(self.is_ready, lambda: f"the node to be Ready\n{self.node.log_tail()}")
        eventually(lambda: self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
                   "the default service account")
        self._say("the node is Ready")
        return self

    def _start(self, name, *arguments, environment=None):
        program = Program(name, [self._binaries.get(name, name), *arguments], self.directory, environment)
        program.start()
        self.programs.append(program)
        return program

    def _start_control_plane(self):
        credentials = self.credentials
        # Nothing of it outlives the cluster, so nothing has to be on the disk at once.
        self._start("etcd", "--data-dir", self.directory / "etcd", "--listen-client-urls", ETCD, "--advertise-client-urls",
                    ETCD, "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level", "warn")
        certificate, key = credentials.api_server
        client_certificate, client_key = credentials.kubelet_client
        self._start(
            "kube-apiserver", "--etcd-servers", ETCD, "--bind-address", "0.0.0.0", "--secure-port", "6443",
            "--advertise-address", NODE_ADDRESS, "--service-cluster-ip-range", SERVICES, "--allow-privileged=true",
            "--tls-cert-file", certificate, "--tls-private-key-file", key, "--client-ca-file",
            credentials.authority.certificate, "--authorization-mode", "Node,RBAC", "--enable-admission-plugins",
            "NodeRestriction", "--kubelet-client-certificate", client_certificate, "--kubelet-client-key", client_key,
            "--kubelet-certificate-authority", credentials.authority.certificate,
            "--kubelet-preferred-address-types", "InternalIP", "--service-account-issuer",
            "https://kubernetes.default.svc.cluster.local", "--service-account-signing-key-file", credentials.accounts_key,
            "--service-account-key-file", credentials.accounts_public,
            "--service-account-extend-token-expiration=false")

    def _api_server_is_ready(self):
        for program in self.programs:
            program.check()
        return self.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok"

    def _start_controllers(self):
        credentials = self.credentials
        kubeconfig = ["--kubeconfig", credentials.controllers]
        self._start("kube-controller-manager", *kubeconfig, "--authentication-kubeconfig", credentials.controllers,
                    "--authorization-kubeconfig", credentials.controllers, "--bind-address", "127.0.0.1",
                    "--leader-elect=false", "--use-service-account-credentials=true", "--root-ca-file",
                    credentials.authority.certificate, "--service-account-private-key-file", credentials.accounts_key)
        self._start("kube-scheduler", "--kubeconfig", credentials.scheduler, "--authentication-kubeconfig",
                    credentials.scheduler, "--authorization-kubeconfig", credentials.scheduler, "--bind-address",
                    "127.0.0.1", "--leader-elect=false")
        # Two pods on one bridge speak past the node's address translation, unless it is the node that seems to call.
        configuration = self.directory / "kube-proxy.yaml"
        configuration.write_text(yaml.safe_dump({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
            "clientConnection": {"kubeconfig": str(credentials.proxy)}, "hostnameOverride": NODE,
            "bindAddress": "127.0.0.1", "metricsBindAddress": "127.0.0.1:10249", "healthzBindAddress": "127.0.0.1:10256",
            "iptables": {"masqueradeAll": True}, "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s",
                                                               "tcpCloseWaitTimeout": "0s"}}))
        self._start("kube-proxy", "--config", configuration)

    # ---- use

    @property
    def kubectl_path(self):
        return self._binaries["kubectl"]

    def kubectl_command(self, *arguments):
        return [str(self.kubectl_path), "--kubeconfig", str(self.credentials.admin), "--cache-dir",
                str(self.directory / "kubectl-cache"), *map(str, arguments)]

    def kubectl(self, *arguments, stdin=None, check=True, timeout=PATIENCE):
        """A finished kubectl, its output as text."""
        ended = subprocess.run(self.kubectl_command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout,
                               check=False)
        assert not check or ended.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {ended.stderr}{ended.stdout}"
        return ended

    def get(self, *arguments):
        """The object of that name, as `kubectl get` tells it; None if there is none."""
        answer = self.kubectl("get", *arguments, "--output", "json", "--ignore-not-found")
        return json.loads(answer.stdout) if answer.stdout else None

    def list(self, *arguments):
        """The objects of a kind."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json").stdout)["items"]

    def apply(self, *objects):
        self.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump_all(objects))

    def wait_for(self, kind, name, condition, what, namespace="default", seconds=PATIENCE):
        """Until condition(object); the object."""
        def met():
            self.check()
            found = self.get(kind, name, "--namespace", namespace)
            return found if found is not None and condition(found) else None

        def vain():
            found = self.get(kind, name, "--namespace", namespace) or {}
            events = self.kubectl("get", "events", "--namespace", namespace, "--field-selector",
                                  f"involvedObject.name={name}", check=False).stdout
            return f"{kind} {name} {what}: {json.dumps(found.get('status'))}\n{events}"
        return eventually(met, vain, seconds, interval=0.5)

    def execute(self, pod, *command, container=None, namespace="default", stdin=None, check=True):
        """kubectl exec; its standard output."""
        where = ["--namespace", namespace, pod, *(["--container", container] if container else [])]
        flags = ["--stdin"] if stdin is not None else []
        return self.kubectl("exec", *flags, *where, "--", *command, stdin=stdin, check=check).stdout

    def is_ready(self):
        self.check()
        node = self.get("node", NODE)
        conditions = {one["type"]: one["status"] for one in (node or {}).get("status", {}).get("conditions", [])}
        return conditions.get("Ready") == "True"

    def check(self):
        """That none of its programs has ended."""
        for program in self.programs:
            program.check()
        if self.node is not None:
            self.node.check()

    # ---- for one who keeps it, and one who comes after

    def description(self):
        """All that is known so far, for another process."""
        running = {program.name: (program.process, program.log_path) for program in self.programs}
        for name, one in (("huskd", self.huskd), ("kubelet", self.node), ("registry", self.registry)):
            if one is not None:
                running[name] = (one.process, one.log_path)
        return {
            "namespace": self.namespace.name, "directory": str(self.directory or ""), "image": self.image,
            "kubectl": str(self.kubectl_path) if self._binaries else "",
            "kubeconfig": str(self.credentials.admin) if self.credentials else "",
            "socket": str(self.huskd.socket) if self.huskd else "",
            "huskd": [str(self.huskd.state), str(self.huskd.root)] if self.huskd else None,
            "kubelet": [str(self.node.root), self.node.made_fixed_directory] if self.node else None,
            "processes": {name: (process.pid, host.start_time(process.pid), str(log))
                          for name, (process, log) in running.items() if process is not None}}

    def start_again(self):
        """What has ended on its own; the names."""
        ended = [program for program in self.programs if program.process.poll() is not None]
        for program in ended:
            program.start()
        names = [program.name for program in ended]
        for name, one in (("huskd", self.huskd), ("kubelet", self.node)):
            if one.process.poll() is not None:
                one.spawn()
                names.append(name)
        return names

    @classmethod
    def taken_over(cls, number, description, say=lambda line: None):
        """From the description of one whose process was killed: down() removes what it left."""
        cluster = cls(number, say)
        for pid, start, _ in description["processes"].values():
            host.end(pid, start)
        if cluster.namespace.exists():
            cluster._made_namespace = True
            cluster.namespace.enter()
        cluster._old_kubelet = description["kubelet"]
        if description["huskd"]:
            # Its pods end as they should, by a huskd.
            cluster.huskd = Huskd(number, directories=description["huskd"])
            cluster.huskd.start()
        cluster.directory = pathlib.Path(description["directory"]) if description["directory"] else None
        return cluster

    # ---- down

    def down(self):
        """Ends everything. Returns what a clean end should not have left: a list of sentences."""
        left = []
        if self.node is not None:
            self._say("kubelet")
            left += self.node.remove_everything(self.huskd)
        if self._old_kubelet is not None:
            remove_files(*self._old_kubelet)
        if self.huskd is not None:
            self._say("pods and huskd")
            left += self.huskd.remove_everything()
        if self.programs:
            self._say("the other programs")
        for program in reversed(self.programs):
            program.stop()
        self.programs = []
        if self.registry is not None:
            self.registry.stop()
        if self._made_namespace:
            self.namespace.remove()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
        return left


@contextlib.contextmanager
def running(number, **options):
    """A Cluster that is up for the length of a `with`, and leaves nothing."""
    cluster = Cluster(number, say=lambda line: print(f"cluster: {line}", flush=True), **options)
    try:
        yield cluster.up()
    finally:
        left = cluster.down()
    assert not left, "\n".join(left)
