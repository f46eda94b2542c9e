"""A real server on the loopback interface that sends exactly the bytes of a test, optionally over TLS."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PATIENCE: Final = 30.0


class Connection:
    """One connection, as the server sees it."""

    def __init__(self, stream: socket.socket, closing: threading.Event) -> None:
        self._stream = stream
        self._closing = closing
        self.sent = 0

    def send(self, data: bytes) -> None:
        self._stream.sendall(data)
        self.sent += len(data)

    def send_forever(self, data: bytes, *, every: float = 0.0, limit: int = 1 << 30) -> None:
        """Send *data* again and again, until the client goes away, the server closes, or *limit* bytes are out."""
        while self.sent < limit and not self._closing.wait(every):
            self.send(data)

    def hold(self) -> None:
        """Send nothing more until the client disconnects or the server closes."""
        self._stream.settimeout(0.05)
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                if not self._stream.recv(1):
                    return


Handler = Callable[[Connection, bytes], None]


class Loopback:
    """A server for the length of a ``with`` block. ``requests`` are the heads and bodies it got, ``connections`` how
    many; *respond* says what to answer to each request."""

    def __init__(self, respond: Handler, *, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> None:
        self.respond = respond
        self.requests: list[bytes] = []
        self.connections = 0
        self.most_sent = 0
        self._tls = tls
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{name}:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, stream)

    def _serve(self, stream: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(stream)
            stream.settimeout(_PATIENCE)
            if self._tls is not None:
                stream = stack.enter_context(self._tls.wrap_socket(stream, server_side=True))
            while not self._closing.is_set() and (request := self._read(stream)):
                self.requests.append(request)
                connection = Connection(stream, self._closing)
                try:
                    self.respond(connection, request)
                finally:
                    self.most_sent = max(self.most_sent, connection.sent)

    def _read(self, stream: socket.socket) -> bytes:
        """The next request, empty when there is none."""
        stream.settimeout(0.05)
        request = b""
        wanted = 1
        while len(request) < wanted:
            try:
                data = stream.recv(65536)
            except TimeoutError:
                if self._closing.is_set():
                    return b""
                continue
            if not data:
                return b""
            request += data
            head, end, _ = request.partition(b"\r\n\r\n")
            wanted = len(head) + len(end) + _length(head) if end else len(request) + 1
        stream.settimeout(_PATIENCE)
        return request


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def response(body: bytes = b"", *headers: str, status: str = "200 OK", kind: str | None = "application/json") -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def json_response(document: object, *headers: str) -> bytes:
    return response(json.dumps(document).encode(), *headers)


def answer_with(data: bytes) -> Handler:
    """Answer everything with *data*."""
    return lambda connection, request: connection.send(data)


AUTHORITY_USAGE: Final = x509.KeyUsage(
    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip
"""The usage of the key of a certificate authority."""


class Certificates:
    """A certificate authority of the test's own, in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._made = 0
        self._certificate = self._sign(self._name, self._key, ca=True)
        self.bundle = folder / "authority.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str = "localhost", *, expired: bool = False, self_signed: bool = False) -> ssl.SSLContext:
        """Return the TLS context of a server with the host name *name*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(name, expired=expired, self_signed=self_signed))
        return context

    def issue(self, name: str, *, expired: bool = False, self_signed: bool = False) -> Path:
        """Return the file of a new certificate for *name* and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, name=name, expired=expired, by_itself=self_signed)
        self._made += 1
        path = self._folder / f"server-{self._made}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        name: str | None = None,
        ca: bool = False,
        expired: bool = False,
        by_itself: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        end = now + dt.timedelta(days=-1 if expired else 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by_itself else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((key if by_itself else self._key).public_key()),
                critical=False,
            )
        )
        if ca:
            builder = builder.add_extension(AUTHORITY_USAGE, critical=True)
        if name is not None:
            address = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(key if by_itself else self._key, hashes.SHA256())
