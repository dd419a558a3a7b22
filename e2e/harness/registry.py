"""Debian's docker-registry on a free loopback port, with images made here."""

import pathlib
import signal
import socket
import subprocess
import sys

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy"))

import sample_image  # noqa: E402  (deploy/ is no package)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class RegistryServer:
    """A running registry, on a free port unless it is told one. Images live below `directory`, which is the caller's to
    remove."""

    def __init__(self, directory, port=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{port or free_port()}"
        self.log_path = self.directory / "registry.log"
        config = self.directory / "config.yml"
        config.write_text(yaml.safe_dump(self.configuration()))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        self.client = sample_image.Registry(self.address)
        try:
            self.wait_until_ready()
        except OSError as error:
            self.stop()
            raise RuntimeError(f"docker-registry did not start: {self.log_path.read_text()}") from error

    def configuration(self):
        return {"version": "0.1", "log": {"level": "warn"}, "http": {"addr": self.address},
                "storage": {"filesystem": {"rootdirectory": f"{self.directory}/data"}, "delete": {"enabled": True}}}

    def wait_until_ready(self):
        self.client.wait_until_ready()

    def push(self, repository, tag="latest", layers=None, **run_config):
        """Pushes an image (by default the sample one) and returns its reference. run_config: Cmd=[...], User="..."."""
        run_config.setdefault("Env", ["PATH=/usr/bin:/bin"])
        self.client.push_image(repository, tag, layers or sample_image.sample_layers(), run_config)
        return f"{self.address}/{repository}:{tag}"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
