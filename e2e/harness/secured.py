"""What stands before a registry: certificates, a token server, and a proxy that resets connections."""

import base64
import contextlib
import http.server
import json
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

from harness import registry


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *map(str, arguments)], input=data, check=True, capture_output=True).stdout


class Authority:
    """Certificates below `directory`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.certificate = self.directory / "ca.pem"
        self.key = self.directory / "ca.key"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 1, "-subj", "/CN=test authority",
                "-keyout", self.key, "-out", self.certificate)

    def issue(self, name, organization=None, alternatives=("IP:127.0.0.1",)):
        """(certificate, key). Kubernetes reads a user from the name and a group from the organization."""
        file = name.replace(":", "-")
        certificate, key = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        subject = (f"/O={organization}" if organization else "") + f"/CN={name}"
        request = openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", key)
        extensions = self.directory / f"{file}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternatives)}\n")
        openssl("x509", "-req", "-days", 1, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                "-extfile", extensions, "-out", certificate, data=request)
        return certificate, key


class TokenServer:
    """The server of docker-registry's token authentication, by TLS: users and refresh tokens for signed grants."""

    SERVICE, ISSUER = "registry", "token server"

    def __init__(self, authority, users, refresh_tokens):
        self.users, self.refresh_tokens = users, refresh_tokens
        self.asked = []  # (method, who)
        self.certificate, self._key = authority.issue("token-server")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
                user, _, password = base64.b64decode(encoded).decode().partition(":")
                outer.asked.append(("GET", user))
                granted = scheme == "Basic" and outer.users.get(user) == password
                self.answer(granted, user, query["scope"][0])

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                user = outer.refresh_tokens.get(form["refresh_token"][0])
                outer.asked.append(("POST", user))
                self.answer(user is not None and form["grant_type"] == ["refresh_token"], user, form["scope"][0])

            def answer(self, granted, user, scope):
                body = json.dumps({"token": outer.grant(user, scope)} if granted else {"details": "who are you?"}).encode()
                self.send_response(200 if granted else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self._key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.realm = f"https://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def grant(self, user, scope):
        """A JSON web token, signed with RS256."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        x5c = "".join(line for line in self.certificate.read_text().splitlines() if "CERTIFICATE" not in line)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [x5c]}
        claims = {"iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "iat": now, "nbf": now - 60, "exp": now + 300,
                  "jti": str(time.monotonic_ns()),
                  "access": [{"type": kind, "name": name, "actions": actions.split(",")}]}

        def encode(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=")

        signed = b".".join(encode(json.dumps(part).encode()) for part in (header, claims))
        return (signed + b"." + encode(openssl("dgst", "-sha256", "-sign", self._key, data=signed))).decode()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


class ResettingProxy:
    """Passes TCP connections on to `target` and resets each of the first `resets` after `limit` bytes of answers."""

    def __init__(self, target, resets, limit):
        self._target, self.left, self._limit = target, resets, limit
        self.connections = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        host, port = self._target.split(":")
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
        passed = 0
        with contextlib.suppress(OSError), client, server:
            while data := server.recv(65536):
                reset = passed + len(data) > self._limit and self._may_reset()
                client.sendall(data[:max(0, self._limit - passed)] if reset else data)
                passed += len(data)
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Without this the other thread's recv keeps the socket open.
                    client.shutdown(socket.SHUT_RD)
                    return

    def _may_reset(self):
        with self._lock:
            self.left -= 1
            return self.left >= 0

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def stop(self):
        # Wakes accept(), which close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Silent:
    """Takes connections and says nothing."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self):
        self._listener.close()


class SecuredRegistry(registry.RegistryServer):
    """docker-registry over another one's images, with TLS; `auth` and `tls` are further parts of its configuration."""

    def __init__(self, directory, images, authority, auth, tls=None):
        self.authority, self._images, self._auth, self._tls = authority, images, auth, tls or {}
        super().__init__(directory)

    def configuration(self):
        certificate, key = self.authority.issue(f"registry-{self.address.rpartition(':')[2]}")
        configuration = super().configuration()
        configuration["storage"]["filesystem"]["rootdirectory"] = f"{self._images.directory}/data"
        configuration["http"]["tls"] = {"certificate": str(certificate), "key": str(key), **self._tls}
        configuration["auth"] = self._auth
        return configuration

    def wait_until_ready(self):
        host, port = self.address.split(":")
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
