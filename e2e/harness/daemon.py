"""A huskd of its own beside any other: directories, socket, bridge and subnet belong to one test file."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import grpc
import yaml

from harness import cri, host, logs

HUSKD = cri.BUILD / "bin" / "huskd"

# Under QEMU's TCG on two busy cores a boot takes seconds; a limit here is for what never comes.
PATIENCE = 120.0


def eventually(check, what, seconds=PATIENCE, interval=0.2):
    """Returns the first true value of check(). `what` completes "waited in vain for ...": text, or what makes it."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what() if callable(what) else what}"
        time.sleep(interval)


class Container:
    def __init__(self, pod, container_id, name, log_path):
        self.pod, self.id, self.name, self.log_path = pod, container_id, name, log_path
        self._client = pod.client

    def status(self):
        return self._client.ContainerStatus(container_id=self.id).status

    def state(self):
        return cri.api.ContainerState.Name(self.status().state)

    def start(self):
        self._client.StartContainer(container_id=self.id)
        return self

    def wait(self, seconds=PATIENCE):
        """Until it has exited; its status."""
        return eventually(lambda: (lambda status: status if status.state == cri.api.CONTAINER_EXITED else None)(
            self.status()), f"container {self.name} to exit", seconds)

    def execute(self, *command, timeout=0):
        """ExecSync: (exit code, stdout, stderr)."""
        response = self._client.ExecSync(container_id=self.id, cmd=list(command), timeout=timeout)
        return response.exit_code, response.stdout.decode(), response.stderr.decode()

    def log(self, stream="stdout"):
        return logs.text(self.log_path, stream)

    def wait_for_log(self, needle, stream="stdout", seconds=PATIENCE):
        return eventually(lambda: (lambda text: text if needle in text else None)(self.log(stream)),
                          f"{needle!r} in the {stream} log of {self.name}", seconds)


class Pod:
    def __init__(self, client, pod_id, config):
        self.client, self.id, self.config = client, pod_id, config

    def status(self):
        return self.client.PodSandboxStatus(pod_sandbox_id=self.id).status

    def state(self):
        return cri.api.PodSandboxState.Name(self.status().state)

    def address(self):
        return self.status().network.ip

    def container_config(self, name, image, command=(), args=(), attempt=0, **fields):
        return cri.api.ContainerConfig(metadata={"name": name, "attempt": attempt}, image={"image": image},
                                       command=list(command), args=list(args), log_path=f"{name}/{attempt}.log",
                                       **fields)

    def create(self, name, image, command=(), args=(), attempt=0, **fields):
        config = self.container_config(name, image, command, args, attempt, **fields)
        response = self.client.CreateContainer(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return Container(self, response.container_id, name, pathlib.Path(self.config.log_directory, config.log_path))

    def run(self, name, image, command=(), args=(), **fields):
        return self.create(name, image, command, args, **fields).start()

    def stop(self):
        self.client.StopPodSandbox(pod_sandbox_id=self.id)

    def remove(self):
        """As the kubelet ends a pod."""
        self.stop()
        self.client.RemovePodSandbox(pod_sandbox_id=self.id)


class Huskd:
    """`number` (1 to 254) keeps bridges and subnets of instances apart."""

    def __init__(self, number, directories=None, **configuration):
        """`directories`: the (state, root) of one whose process is gone, to go on in its place, as it was configured."""
        # Short, because unix sockets below it have paths of at most 107 bytes.
        self.state, self.root = map(pathlib.Path, directories or (
            tempfile.mkdtemp(prefix="hk", dir="/run"), tempfile.mkdtemp(prefix="husk-e2e-", dir="/var/tmp")))
        self.data = self.root / "data"
        self.logs = self.root / "logs"
        self.socket = self.state / "husk.sock"
        self.registry_hosts = self.root / "certs.d"
        self.run_state = self.state / "s"
        self.log_path = self.root / "huskd.log"
        self.bridge = f"husk-e2e{number}"
        self.cgroup_root = f"/husk-e2e{number}"
        self.users = range(500000 + 1000 * number, 500000 + 1000 * (number + 1))
        self.config_path = self.root / "config.yaml"
        if directories is None:
            self.logs.mkdir()
            self.config_path.write_text(yaml.safe_dump(self._configuration(number, configuration)))
        self.wrapper = []  # words before the command, of a program that becomes it
        self.process = None
        self.client = cri.CriClient(self.socket)
        self._pods_made = 0

    def _configuration(self, number, more):
        # Husk's own bridge, whatever the host has configured for other runtimes.
        network = self.root / "net.d"
        network.mkdir()
        configuration = {
            "version": 1,
            "log": {"level": "debug"},
            # Tests that fill a VM's memory want to meet its end soon.
            "vm": {"first_user": self.users.start, "user_count": len(self.users), "unlimited_memory": "256Mi"},
            "network": {"cni_configuration_directory": str(network), "default_bridge": self.bridge,
                        "default_subnet": f"10.214.{number}.0/24"},
            "images": {"registry_hosts": str(self.registry_hosts)},
            "cgroup": {"root": self.cgroup_root},
            # Several run at once.
            "metrics": {"address": ""},
        }
        for section, values in more.items():
            configuration.setdefault(section, {}).update(values)
        return configuration

    @property
    def pid(self):
        return self.process.pid

    def spawn(self, fault_point=None):
        """Starts the process and does not wait for it."""
        environment = {key: value for key, value in os.environ.items() if key != "HUSK_FAULT_POINT"}
        if fault_point:
            environment["HUSK_FAULT_POINT"] = fault_point
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, str(HUSKD), "--config", str(self.config_path), "--root", str(self.data), "--state",
                 str(self.run_state), "--listen", f"unix://{self.socket}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)

    def wait_until_serving(self):
        def serving():
            assert self.process.poll() is None, f"huskd ended with {self.process.returncode}\n{self.log_tail()}"
            with contextlib.suppress(grpc.RpcError):
                return self.client.Version(deadline=5)
            return None
        eventually(serving, "huskd to answer Version", interval=0.05)

    def start(self, fault_point=None):
        self.spawn(fault_point)
        self.wait_until_serving()
        return self

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def restart(self, fault_point=None):
        if self.process.poll() is None:
            self.kill()
        return self.start(fault_point)

    def log_tail(self, lines=60):
        return "\n".join(host.read_text(self.log_path).splitlines()[-lines:])

    def pull(self, reference):
        return self.client.PullImage(image={"image": reference}).image_ref

    def pod_config(self, name=None, attempt=0, uid=None, **fields):
        self._pods_made += 1
        name = name or f"pod{self._pods_made}"
        uid = uid or f"uid-{name}-{self._pods_made}"
        directory = self.logs / uid
        directory.mkdir(exist_ok=True)
        linux = fields.pop("linux", {})
        return cri.api.PodSandboxConfig(
            metadata={"name": name, "uid": uid, "namespace": "e2e", "attempt": attempt}, hostname=name,
            log_directory=str(directory), linux=linux, **fields)

    def run_pod(self, name=None, **fields):
        return self.run_pod_with(self.pod_config(name, **fields))

    def run_pod_with(self, config):
        return Pod(self.client, self.client.RunPodSandbox(config=config).pod_sandbox_id, config)

    def pods(self):
        return list(self.client.ListPodSandbox().items)

    def containers(self):
        return list(self.client.ListContainers().containers)

    def vm_processes(self):
        """Pids of this instance's QEMUs, by their users (a confined QEMU has no path of ours in its command line), of its
        file servers, by their cgroup, and of what else has its directories there, such as a launcher. Not those that have
        ended: a QEMU whose huskd was killed is init's to reap."""
        marks = (str(self.state), str(self.root))

        def is_ours(pid):
            if pid == os.getpid() or (self.process and pid == self.process.pid) or host.state(pid) in (None, "Z"):
                return False
            return (host.user(pid) in self.users or self.cgroup_root + "/" in host.read_text(f"/proc/{pid}/cgroup")
                    or any(mark in host.command_line(pid) for mark in marks))
        return [pid for pid in host.process_ids() if is_ours(pid)]

    def vm_process_of(self, pod):
        """The pid of a pod's QEMU."""
        found = [pid for pid in self.vm_processes()
                 if pod.id in host.read_text(f"/proc/{pid}/cgroup") or pod.id in host.command_line(pid)]
        assert len(found) == 1, f"QEMU of {pod.id}: {found}"
        return found[0]

    def snapshot(self):
        """Everything that a removed pod must not leave behind, by kind."""
        mine = (str(self.state), str(self.root))
        return {
            "processes": {f"{pid} {host.command_line(pid)[:120]}" for pid in self.vm_processes()},
            "network interfaces": host.links(),
            "mounts": {mount for mount in host.mounts() if mount.startswith(mine)},
            "named network namespaces": host.tree("/run/netns"),
            "cgroups": host.cgroups(self.cgroup_root.lstrip("/")),
            "firewall rules": {rule for rule in host.firewall_rules() if self.bridge in rule or "10.214." in rule},
            "files": {path for directory in (self.data, self.run_state) for path in host.tree(directory)},
        }

    def remove_everything(self):
        """Ends pods, huskd and what it made. Returns what a clean end should not have left: a list of sentences."""
        left = []
        if self.process is not None:
            try:
                if self.process.poll() is not None:
                    self.start()
                for pod in self.pods():
                    self.client.StopPodSandbox(pod_sandbox_id=pod.id)
                    self.client.RemovePodSandbox(pod_sandbox_id=pod.id)
                code = self.stop()
                if code != 0:
                    left.append(f"huskd answered SIGTERM with exit code {code}")
            except (grpc.RpcError, AssertionError, subprocess.TimeoutExpired) as error:
                left.append(f"clean-up failed: {error}")
            if self.process.poll() is None:
                self.kill()
        self.client.close()
        for pid in self.vm_processes():
            left.append(f"process {pid} lives on: {host.command_line(pid)[:200]}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in sorted((m for m in host.mounts() if m.startswith((str(self.state), str(self.root)))), reverse=True):
            left.append(f"still mounted: {mount}")
            subprocess.run(["umount", "--lazy", mount], check=False)
        if self.bridge in host.links():
            subprocess.run(["ip", "link", "delete", self.bridge], check=False)
        for directory in sorted(host.cgroups(self.cgroup_root.lstrip("/")), reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)
        return left
