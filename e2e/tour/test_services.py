"""Pods that find each other: directly, through a service's address and port of the node by kube-proxy, by host ports."""

import urllib.request

from harness.cluster import NODE_ADDRESS
from harness.daemon import PATIENCE, eventually
from harness.kubelet import is_ready
from harness.manifests import pod, shell

NODE_PORT = 30080
HOST_PORTS = {"first": 28081, "second": 28082}


def server(name, image, **port):
    """Says its name, as often as it is asked."""
    script = f"mkdir /www && echo {name} >/www/index.html && exec httpd -f -p 8080 -h /www"
    return pod(name, shell("main", script, image, ports=[{"containerPort": 8080, **port}],
                           readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 20}),
               labels={"app": "web"})


def ask(address):
    """From the node. None if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}/index.html", timeout=PATIENCE) as answer:
            return answer.read().decode().strip()
    except OSError:
        return None


def ask_from(space, name, address):
    """From a pod: the last line of the answer."""
    host, port = address.rsplit(":", 1)
    request = r"GET /index.html HTTP/1.0\r\n\r\n"
    return space.execute(name, "/bin/sh", "-c", f"printf '{request}' | nc -w 60 {host} {port} | tail -n 1").strip()


def both_answer(who, what):
    seen = set()

    def more():
        seen.add(who())
        return set(HOST_PORTS) <= seen
    eventually(more, lambda: f"both servers to answer {what}: {seen}")


def test_pods_find_each_other(cluster, space):
    space.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                 "spec": {"type": "NodePort", "selector": {"app": "web"},
                          "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]}})
    space.apply(*(server(name, cluster.image, hostPort=port) for name, port in HOST_PORTS.items()))
    addresses = {name: space.wait_for("pod", name, is_ready, "to be ready")["status"]["podIP"] for name in HOST_PORTS}
    service = space.get("service", "web")["spec"]["clusterIP"]

    assert ask_from(space, "first", f"{addresses['second']}:8080") == "second"
    assert ask_from(space, "second", f"{addresses['first']}:8080") == "first"
    for name, port in HOST_PORTS.items():
        assert ask(f"{NODE_ADDRESS}:{port}") == name
        assert ask_from(space, "first", f"{NODE_ADDRESS}:{port}") == name
    both_answer(lambda: ask(service), "at the service's address")
    both_answer(lambda: ask(f"{NODE_ADDRESS}:{NODE_PORT}"), "at the node's port")
    # One of them is the caller itself.
    both_answer(lambda: ask_from(space, "first", f"{service}:80"), "a pod at the service's address")

    # Who is gone is asked no more, and has left its port.
    space.delete("pod", "first")
    eventually(lambda: ask(service) == "second", "the service to go on with the other")
    assert {ask(service) for _ in range(8)} == {"second"}
    assert ask(f"{NODE_ADDRESS}:{HOST_PORTS['first']}") is None
    space.apply(server("third", cluster.image, hostPort=HOST_PORTS["first"]))
    space.wait_for("pod", "third", is_ready, "to be ready")
    assert ask(f"{NODE_ADDRESS}:{HOST_PORTS['first']}") == "third"
