"""What Kubernetes configures a container with: ConfigMaps, Secrets, the downward API and tokens, and how they change live."""

import base64
import json

import pytest

from harness.cluster import API_SERVER
from harness.daemon import eventually
from harness.manifests import pod, shell

# The kubelet looks at a volume once a minute, and some more.
CHANGE_SECONDS = 300
# The least that an API server lets a token live; the kubelet wants a new one at four fifths of it.
TOKEN_SECONDS = 600
TOKEN = "/var/run/secrets/tokens/token"


def settings(**content):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": content}


def secret(value):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}, "stringData": {"word": value}}


@pytest.fixture(scope="module")
def configured(cluster, shared_space):
    """A pod with all of it. Its program tells when two files of a volume are not of one version."""
    # What is swapped whole is the directory behind ..data: two files of one of them are of one version.
    watch = ("cd /etc/map; rounds=0; while sleep 0.05; do version=$(readlink ..data); "
             "if read one <$version/one && read two <$version/two; then [ $one = $two ] || echo torn: $one $two; "
             "else [ $(readlink ..data) != $version ] || echo incomplete: $version; fi; "
             "rounds=$((rounds + 1)); echo $rounds >/tmp/rounds; done 2>/dev/null")
    field = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    address = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    memory = {"valueFrom": {"resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}}}
    main = shell(
        "main", watch, cluster.image,
        resources={"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        envFrom=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "password"}, "prefix": "SECRET_"}],
        env=[{"name": "POD", **field}, {"name": "ADDRESS", **address}, {"name": "MEMORY", **memory}],
        volumeMounts=[{"name": "map", "mountPath": "/etc/map"}, {"name": "secret", "mountPath": "/etc/secret", "readOnly": True},
                      {"name": "map", "mountPath": "/etc/only/one", "subPath": "one"},
                      {"name": "pod", "mountPath": "/etc/pod"}, {"name": "all", "mountPath": "/etc/all"},
                      {"name": "data", "mountPath": "/data", "subPathExpr": "of-$(POD)"},
                      {"name": "token", "mountPath": "/var/run/secrets/tokens"}])
    whole = shell("whole", "sleep 100000", cluster.image, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    downward = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                {"path": "limit", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}}]
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}}
    volumes = [
        {"name": "map", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "password", "defaultMode": 0o400}},
        {"name": "pod", "downwardAPI": {"items": downward}},
        {"name": "data", "emptyDir": {}},
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "all", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "settings", "items": [{"key": "one", "path": "from-map/one"}]}},
            {"secret": {"name": "password"}}, {"downwardAPI": {"items": downward[:1]}},
            {"configMap": {"name": "not-there", "optional": True}}]}}]
    shared_space.apply(settings(one="1\n", two="1\n"), secret("first"))
    made = pod("configured", main, whole, labels={"colour": "blue"}, volumes=volumes, automountServiceAccountToken=True)
    made["metadata"]["annotations"] = {"note": "a \"quoted\"\nline"}
    shared_space.run(made)
    return shared_space


def read(space, path, container="main"):
    return space.execute("configured", "cat", path, container=container)


def test_environment(configured):
    found = configured.get("pod", "configured")
    lines = configured.execute("configured", "env", container="main").splitlines()
    environment = dict(line.split("=", 1) for line in lines if line)
    assert (environment["one"], environment["two"], environment["SECRET_word"]) == ("1", "1", "first")
    assert environment["POD"] == "configured" and environment["MEMORY"] == str(64 << 20)
    assert environment["ADDRESS"] == found["status"]["podIP"]


def test_volumes(configured):
    assert read(configured, "/etc/map/one") == "1\n" and read(configured, "/etc/only/one") == "1\n"
    modes = configured.execute("configured", "stat", "-L", "-c", "%a", "/etc/secret/word", "/etc/all/word", container="main")
    assert modes.split() == ["400", "440"]
    assert [read(configured, f"/etc/all/{name}") for name in ("from-map/one", "word", "labels")] == ["1\n", "first", 'colour="blue"']
    assert read(configured, "/etc/pod/limit") == "64"
    assert 'note="a \\"quoted\\"\\nline"' in read(configured, "/etc/pod/annotations")
    refused = configured.kubectl("exec", "configured", "--container", "main", "--", "sh", "-c", "echo x >/etc/secret/word",
                                 check=False)
    assert refused.returncode != 0 and "Read-only file system" in refused.stderr


def test_a_sub_path_by_an_expression(configured):
    configured.execute("configured", "sh", "-c", "echo mine >/data/file", container="main")
    assert read(configured, "/data/of-configured/file", "whole") == "mine\n"


def test_the_token_is_the_pods(cluster, configured):
    token = read(configured, TOKEN)
    user = who_is(cluster, token)
    assert user["username"] == f"system:serviceaccount:{configured.name}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["configured"]
    # That of the default mount too, beside the authority and the namespace.
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert read(configured, f"{mounted}/namespace") == configured.name
    assert read(configured, f"{mounted}/ca.crt") == cluster.credentials.authority.certificate.read_text()
    assert read(configured, f"{mounted}/token").count(".") == 2


def test_changes_arrive_live_and_whole(configured):
    configured.apply(settings(one="2\n", two="2\n", three="new"), secret("second"))
    configured.kubectl("label", "pod", "configured", "colour=green", "--overwrite")
    configured.kubectl("annotate", "pod", "configured", "note=changed", "--overwrite")

    def expect(path, content):
        eventually(lambda: content in configured.execute("configured", "cat", path, container="main", check=False),
                   lambda: f"{path} to have {content!r}: {read(configured, path)!r}", CHANGE_SECONDS, interval=1)
    expect("/etc/map/one", "2")
    expect("/etc/secret/word", "second")
    expect("/etc/pod/labels", 'colour="green"')
    expect("/etc/pod/annotations", 'note="changed"')
    expect("/etc/all/from-map/one", "2")
    expect("/etc/all/word", "second")
    assert read(configured, "/etc/map/three") == "new"
    # What is mounted by a sub-path, and the environment, are those of the container's start.
    assert read(configured, "/etc/only/one") == "1\n"
    assert "SECRET_word=first\n" in configured.execute("configured", "env", container="main")
    assert configured.kubectl("logs", "configured", "--container", "main").stdout == ""
    before = int(read(configured, "/tmp/rounds"))
    eventually(lambda: int(read(configured, "/tmp/rounds") or 0) > before, "the watching program to go on")


def test_a_token_is_followed_by_the_next(cluster, configured):
    """A kubelet that starts has no token in its memory, and asks for one, as it does shortly before the old one's end."""
    before = read(configured, TOKEN)
    cluster.node.stop()
    cluster.node.start()

    def another():
        now = configured.execute("configured", "cat", TOKEN, container="main", check=False)
        return now if now.count(".") == 2 and now != before else None
    token = eventually(another, "another token", CHANGE_SECONDS, interval=1)
    for one in (before, token):
        assert claims(one)["exp"] - claims(one)["iat"] == TOKEN_SECONDS
    assert claims(token)["kubernetes.io"]["pod"]["name"] == "configured" and claims(token)["jti"] != claims(before)["jti"]
    assert who_is(cluster, token)["extra"]["authentication.kubernetes.io/credential-id"] == [f"JTI={claims(token)['jti']}"]
    status = configured.get("pod", "configured")["status"]["containerStatuses"]
    assert [one["restartCount"] for one in status] == [0, 0]


def claims(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def who_is(cluster, token):
    """As the API server knows whoever comes with it."""
    answer = cluster.kubectl("--kubeconfig", "/dev/null", "--server", API_SERVER, "--certificate-authority",
                             cluster.credentials.authority.certificate, "--token", token, "auth", "whoami", "--output", "json")
    return json.loads(answer.stdout)["status"]["userInfo"]
