"""Real proxies that end mutual TLS and tell an app which certificate the client has shown."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from waitress import wasyncore
from waitress.server import create_server

from environment import skip_or_fail
from loopback import AUTHORITY_USAGE
from scopeguard import Guard
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.wsgi import GuardMiddleware as WSGIGuardMiddleware

PATIENCE: Final = 20.0
NAMES: Final = ("server", "client", "other")
LARGE_HEADS: Final = {"nginx": "large_client_header_buffers 4 16k", "haproxy": "global\n    tune.bufsize 65536"}
"""The settings that let requests with large header fields pass. Envoy needs none."""


class Certificates:
    """An authority in *folder*, and the certificates of :data:`NAMES` that it has signed, as PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._write("ca", self._sign(self._name, self._key.public_key(), authority=True))
        for name in NAMES:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            self._write(name, self._sign(subject, key.public_key(), authority=False), key)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def der(self, name: str) -> bytes:
        """Return the certificate of *name* in DER."""
        pem = self.path(name).read_text("ascii").partition("-----BEGIN CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(pem[1] + pem[2])

    def context(self, name: str | None) -> ssl.SSLContext:
        """Return the TLS settings of a client with the certificate of *name*, or without any."""
        context = ssl.create_default_context(cafile=str(self.path("ca")))
        if name is not None:
            context.load_cert_chain(str(self.path(name)))
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        # Python 3.13 and newer verify certificates strictly, and demand these extensions.
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        builder = builder.add_extension(issuer_key, critical=False)
        if authority:
            builder = builder.add_extension(AUTHORITY_USAGE, critical=True)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        # The key and the certificate in one file, which all three proxies and Python read.
        text = b""
        if key is not None:
            pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            text = key.private_bytes(pem, form, serialization.NoEncryption())
        self.path(name).write_bytes(text + certificate.public_bytes(serialization.Encoding.PEM))


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a proxy listens, and the app behind it."""

    port: int
    app: int
    certificates: Certificates
    large_heads: bool = False


def nginx(folder: Path, upstream: Upstream) -> list[str]:
    """Write the configuration of nginx, and return the command."""
    files = upstream.certificates
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr;
        events {{}}
        http {{
            access_log off;
            {LARGE_HEADS["nginx"] + ";" if upstream.large_heads else ""}
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
            server {{
                listen 127.0.0.1:{upstream.port} ssl;
                ssl_certificate {files.path("server")}; ssl_certificate_key {files.path("server")};
                ssl_client_certificate {files.path("ca")}; ssl_verify_client optional;
                location / {{
                    proxy_pass http://127.0.0.1:{upstream.app};
                    proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
                }}
            }}
        }}
        """,
        "ascii",
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def haproxy(folder: Path, upstream: Upstream) -> list[str]:
    """Write the configuration of HAProxy, and return the command."""
    files = upstream.certificates
    (folder / "haproxy.cfg").write_text(
        f"""
{LARGE_HEADS["haproxy"] if upstream.large_heads else ""}
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend api
    bind 127.0.0.1:{upstream.port} ssl crt {files.path("server")} ca-file {files.path("ca")} verify optional
    http-request del-header x[-_]ssl[-_]client[-_]der -m reg
    http-request set-header X-SSL-Client-DER %[ssl_c_der,base64] if {{ ssl_c_used }}
    default_backend app
backend app
    server app 127.0.0.1:{upstream.app}
""",
        "ascii",
    )
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


def envoy(folder: Path, upstream: Upstream) -> list[str]:
    """Write the configuration of Envoy, and return the command."""
    files = upstream.certificates
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    server = str(files.path("server"))
    settings: dict[str, Any] = {
        "stat_prefix": "api",
        "@type": hcm,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"cert": True},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        "route_config": {
            "virtual_hosts": [
                {"name": "api", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
    }
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": server}, "private_key": {"filename": server}}],
            "validation_context": {"trusted_ca": {"filename": str(files.path("ca"))}},
        },
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": settings}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    listener = {"name": "api", "address": _address(upstream.port), "filter_chains": [chain]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(upstream.app)}}]}
    cluster = {"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app", "endpoints": [endpoint]}}
    configuration = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    (folder / "envoy.json").write_text(json.dumps(configuration), "ascii")
    # One worker thread, and no shared memory with other processes of Envoy.
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    return ["envoy", "-c", str(folder / "envoy.json"), *flags]


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PROXIES: Final[dict[str, Callable[[Path, Upstream], list[str]]]] = {"nginx": nginx, "haproxy": haproxy, "envoy": envoy}


@contextmanager
def run_proxy(
    name: str, folder: Path, app: int, certificates: Certificates, *, large_heads: bool = False
) -> Iterator[int]:
    """Run the proxy *name* in front of port *app*, if *large_heads* with :data:`LARGE_HEADS`; the value is its port."""
    beside = Path(sys.executable).parent  # Envoy is installed there
    program = shutil.which(name) or shutil.which(name, path=str(beside))
    if program is None:
        skip_or_fail(f"no {name}: make system installs nginx and haproxy, and the extra dev installs envoy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = PROXIES[name](folder, Upstream(port, app, certificates, large_heads))
    output = folder / "output.txt"
    with output.open("wb") as log:
        process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _listens(port):
            assert process.poll() is None, output.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, output.read_text("utf-8", "replace")
            select.select([], [], [], 0.02)
        yield port
    finally:
        process.kill()
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"in"]


@contextmanager
def serve_app(interface: str, guard: Guard) -> Iterator[int]:
    """Serve an app behind *guard*, with uvicorn or waitress; the value is its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    if interface == "asgi":
        with Serving(GuardMiddleware(_asgi_app, guard=guard), listener):
            yield port
        return
    server: Any = create_server(WSGIGuardMiddleware(_wsgi_app, guard=guard), sockets=[listener], threads=2)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        # No task may be left that would wake a closed server, and only the thread of the sockets may close them.
        server.task_dispatcher.shutdown()
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
        thread.join(20)
        assert not thread.is_alive()
