"""Pulls from a real docker-registry: TLS, passwords, a token server, mirrors that are dead, connections that are reset."""

import base64
import contextlib
import pathlib
import random
import shutil
import subprocess
import tempfile
import warnings

import grpc
import pytest

from harness import cri, host
from harness.daemon import eventually
from harness.registry import free_port, sample_image
from harness.secured import Authority, ResettingProxy, SecuredRegistry, Silent, TokenServer

with warnings.catch_warnings():
    # The only bcrypt among Python's own modules, until 3.13.
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

HUSKCTL = cri.BUILD / "bin" / "huskctl"
USER, PASSWORD, REFRESH_TOKEN = "someone", "p4ssw0rd-of-someone", "refresh-t0ken-of-someone"


@pytest.fixture(scope="module")
def directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix="husk-registries-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def authority(directory):
    return Authority(directory / "authority")


@pytest.fixture(scope="module")
def repository(registry):
    """An image of one layer that no gzip makes small."""
    content = sample_image.Entry("data", random.Random(1).randbytes(8 << 20), 0o644)
    registry.push("private/app", layers=[sample_image.layer_tar([content])])
    return "private/app"


@pytest.fixture(scope="module")
def by_password(directory, registry, authority):
    passwords = directory / "htpasswd"
    passwords.write_text(f"{USER}:{crypt.crypt(PASSWORD, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))}\n")
    server = SecuredRegistry(directory / "by-password", registry, authority,
                             {"htpasswd": {"realm": "test", "path": str(passwords)}})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tokens(authority):
    server = TokenServer(authority, {USER: PASSWORD}, {REFRESH_TOKEN: USER})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def by_token(directory, registry, authority, tokens):
    """It wants a client certificate too."""
    server = SecuredRegistry(
        directory / "by-token", registry, authority,
        {"token": {"realm": tokens.realm, "service": tokens.SERVICE, "issuer": tokens.ISSUER,
                   "rootcertbundle": str(tokens.certificate)}},
        tls={"clientcas": [str(authority.certificate)]})
    yield server
    server.stop()


def configure(huskd, address, text):
    """Writes the hosts.toml of a registry."""
    path = huskd.registry_hosts / address / "hosts.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def pull(huskd, reference, **auth):
    """PullImage, and the image is gone again. Returns its id."""
    pulled = huskd.client.PullImage(image={"image": reference}, auth=auth or None).image_ref
    status = huskd.client.ImageStatus(image={"image": reference}).image
    assert status.id == pulled and status.size > 0
    huskd.client.RemoveImage(image={"image": reference})
    return pulled


def refusal(huskd, reference, **auth):
    with pytest.raises(grpc.RpcError) as error:
        huskd.client.PullImage(image={"image": reference}, auth=auth or None)
    assert not huskd.client.ListImages().images
    return error.value.code(), error.value.details()


def test_tls_and_passwords(huskd, by_password, authority, repository):
    reference = f"{by_password.address}/{repository}:latest"
    # Docker's layout: a certificate, and no hosts.toml.
    place = huskd.registry_hosts / (by_password.address.replace(":", "_") + "_")
    place.mkdir(parents=True)
    shutil.copy(authority.certificate, place / "ca.crt")
    pulled = pull(huskd, reference, username=USER, password=PASSWORD)
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert pull(huskd, reference, auth=encoded) == pulled
    assert pull(huskd, reference, username=USER, password=PASSWORD,
                server_address=f"https://{by_password.address}/v2/") == pulled
    assert "HTTP/2.0" in host.read_text(by_password.log_path)
    for wrong in ({}, {"username": USER, "password": PASSWORD + "x"},
                  {"username": USER, "password": PASSWORD, "server_address": "registry.example"}):
        code, details = refusal(huskd, reference, **wrong)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert by_password.address in details
    (place / "ca.crt").unlink()
    configure(huskd, place.name, f'server = "https://{by_password.address}"\n')
    code, details = refusal(huskd, reference, username=USER, password=PASSWORD)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "certificate" in details
    configure(huskd, place.name, "skip_verify = true\n")
    assert pull(huskd, reference, username=USER, password=PASSWORD) == pulled


def test_token_server_and_client_certificate(huskd, by_token, tokens, authority, repository):
    reference = f"{by_token.address}/{repository}:latest"
    certificate, key = authority.issue("node")
    file = configure(huskd, by_token.address, f'ca = "{authority.certificate}"\nclient = [["{certificate}", "{key}"]]\n')
    pulled = pull(huskd, reference, username=USER, password=PASSWORD)
    # One token for manifest, config and layer.
    assert tokens.asked == [("GET", USER)]
    assert pull(huskd, reference, identity_token=REFRESH_TOKEN) == pulled
    assert tokens.asked[1:] == [("POST", USER)]
    assert pull(huskd, reference, registry_token=tokens.grant(USER, f"repository:{repository}:pull")) == pulled
    assert len(tokens.asked) == 2
    for wrong in ({}, {"username": USER, "password": "x"}, {"identity_token": "x"}, {"registry_token": "x"}):
        assert refusal(huskd, reference, **wrong)[0] == grpc.StatusCode.UNAUTHENTICATED
    # Without the client's certificate there is no connection at all.
    file.write_text(f'ca = "{authority.certificate}"\n')
    code, details = refusal(huskd, reference, username=USER, password=PASSWORD)
    assert code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNKNOWN)
    assert by_token.address in details


def test_dead_mirrors(huskd, registry, repository):
    reference = f"{registry.address}/{repository}:latest"
    silent = Silent()
    with contextlib.ExitStack() as stack:
        stack.callback(silent.stop)
        closed = f"http://127.0.0.1:{free_port()}"
        # One that refuses connections, one that says nothing, and one that resets them.
        resetting = ResettingProxy(registry.address, resets=1000, limit=0)
        stack.callback(resetting.stop)
        file = configure(huskd, registry.address, "".join(
            f'[host."{mirror}"]\n' for mirror in (closed, f"http://{silent.address}", f"http://{resetting.address}")))
        try:
            pull(huskd, reference)
            assert resetting.connections == 1
            file.write_text(f'server = "{closed}"\n[host."{closed}/mirror"]\n')
            code, details = refusal(huskd, reference)
            assert code == grpc.StatusCode.UNKNOWN
            assert details.startswith("RegistryUnavailable: ")
            assert closed in details
            file.write_text("[host\n")
            code, details = refusal(huskd, reference)
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert f"{file}:1: " in details
        finally:
            file.unlink()
    pull(huskd, reference)


def test_a_mirror_serves_what_it_has(huskd, registry, repository):
    # The registry itself is nowhere; the mirror has it all.
    configure(huskd, "registry.invalid", f'[host."http://{registry.address}"]\n')
    pull(huskd, f"registry.invalid/{repository}:latest")
    # What the mirror lacks is asked for at the registry, whose name nobody knows.
    code, details = refusal(huskd, "registry.invalid/no/such:latest")
    assert code == grpc.StatusCode.UNKNOWN
    assert details.startswith("RegistryUnavailable: ")
    assert registry.address in details


def test_resets_in_mid_layer(huskd, registry, repository):
    proxy = ResettingProxy(registry.address, resets=5, limit=1 << 20)
    try:
        assert pull(huskd, f"{proxy.address}/{repository}:latest") == pull(huskd, f"{registry.address}/{repository}:latest")
        assert proxy.left <= 0 and proxy.connections > 5
    finally:
        proxy.stop()
    hopeless = ResettingProxy(registry.address, resets=1000, limit=0)
    try:
        code, details = refusal(huskd, f"{hopeless.address}/{repository}:latest")
        assert code == grpc.StatusCode.UNKNOWN
        assert details.startswith("RegistryUnavailable: ")
        assert hopeless.connections == 5
    finally:
        hopeless.stop()


def test_a_pull_that_stands_still_says_what_it_waits_for(huskd, repository):
    silent = Silent()
    url = f"http://{silent.address}/v2/"
    reference = f"{silent.address}/{repository}:latest"
    command = subprocess.Popen([HUSKCTL, "--endpoint", f"unix://{huskd.socket}", "pull", reference], stderr=subprocess.PIPE, text=True)
    try:
        shown = command.stderr.readline()
        assert shown.startswith(f"pulling {reference}") and url in shown
        eventually(lambda: f"image={reference} bytes=0 B/? " in host.read_text(huskd.log_path), "a line in the log")
        line = next(line for line in host.read_text(huskd.log_path).splitlines() if f"image={reference} bytes" in line)
        assert url in line and " nothing for " in line
    finally:
        command.kill()
        command.communicate()
        silent.stop()


def test_no_secret_was_logged(huskd):
    log = host.read_text(huskd.log_path)
    assert "private/app" in log
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, encoded, REFRESH_TOKEN, "eyJ0eXAi", "Authorization"):
        assert secret not in log
