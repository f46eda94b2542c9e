"""The HTTP client: https only, no redirects, no cookies, no proxies from the environment, bounded size and time.

Only this module uses ``httpx``. The library is imported at the first exchange, because the import is slow. The network
backend below httpx is in :mod:`scopeguard.edge.exchange_deadlines`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeGuard
from urllib.parse import urlsplit

from scopeguard.config.checks import flag, path
from scopeguard.config.urls import check_url
from scopeguard.edge.exchange_deadlines import Deadline, DeadlineBackend, NameLookups, Streams
from scopeguard.edge.files import check_file, require_regular
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.flow.waiting_times import LONGEST_RETRY_PAUSE, SHORTEST_RETRY_PAUSE
from scopeguard.reasons import Reason
from scopeguard.spec.outage_statuses import TRANSIENT
from scopeguard.state.fork import Locked

if TYPE_CHECKING:
    import ssl

    import httpx

USER_AGENT: Final = "scopeguard"
_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_KEPT: Final = 30.0  # seconds for which an idle connection is kept


class HttpxTransport(Locked):
    """Performs exchanges with ``httpx``; safe to use from several threads at once.

    * *verify*: ``None`` for the certificate authorities that httpx trusts, else an ``ssl.SSLContext`` or the path of a
      bundle. Only *dangerously_skip_tls_verification* turns verification off; it logs a warning at every start.
    * *cert*: the certificate of the client for mutual TLS, as the path of a PEM file that holds it, its chain and its
      private key, or as the paths of the certificates and of the key. Servers that ask for one get it, except those of
      a request with its own certificate authority (``ca_file``). The key must not be encrypted. With an
      ``ssl.SSLContext``, load the certificate into the context instead.
    * *proxy*: the URL of a proxy. ``HTTPS_PROXY`` and similar variables are not read: they could silently reroute the
      requests for keys.

    Raises :class:`ConfigurationError`; for an unreadable bundle or certificate, at the first exchange or in
    :meth:`check`.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        proxy: str | None = None,
        dangerously_skip_tls_verification: bool = False,
    ) -> None:
        flag(dangerously_skip_tls_verification, "dangerously_skip_tls_verification")
        if isinstance(verify, str | os.PathLike):
            verify = path(verify, "verify", "the path of a bundle of certificates")
            check_file(verify, "verify")
        elif verify is not None and not _is_context(verify):
            raise ConfigurationError(
                f"verify: must be an ssl.SSLContext, the path of a bundle or None, not {type(verify).__name__}; to "
                "switch verification off, set dangerously_skip_tls_verification=True"
            )
        if verify is not None and dangerously_skip_tls_verification:
            raise ConfigurationError("verify and dangerously_skip_tls_verification contradict each other; keep one")
        self._verify = verify
        self._cert = None if cert is None else _check_cert(cert)
        if self._cert is not None and _is_context(verify):
            raise ConfigurationError("cert: has no effect with an ssl.SSLContext; call its load_cert_chain instead")
        self._proxy = None if proxy is None else _check_proxy(proxy)
        self._skip_verification = dangerously_skip_tls_verification
        super().__init__()
        self._client: httpx.Client | None = None
        self._users: dict[httpx.Client, int] = {}  # running exchanges by their client
        self._used_at = time.time()
        self._deadline = Deadline()
        self._lookups = NameLookups()
        self._streams = Streams()
        self.trace: Callable[[str, Mapping[str, Any]], None] | None = None
        """Called with the events of each exchange, as the extension ``trace`` of httpcore describes them.

        ``scopeguard doctor`` measures connections with it. The details of an event may contain credentials.
        """

    @property
    def skips_tls_verification(self) -> bool:
        """True if the certificates of servers are not verified."""
        return self._skip_verification

    @property
    def may_have_certificate(self) -> bool:
        """True if *cert* is set, or there is an ``ssl.SSLContext``, which may have a certificate of the client."""
        return self._cert is not None or _is_context(self._verify)

    def send(self, request: Send, /) -> Answer:
        """Perform one exchange; see :class:`~scopeguard.flow.effects.Send`. Raises :class:`AuthorityUnavailable`."""
        for _ in range(request.retries):
            begun = time.monotonic()
            try:
                answer = self._exchange(request)
            except AuthorityUnavailable as error:
                # After a timeout, there is no time left for another attempt.
                if error.reason is not Reason.AUTHORITY_UNREACHABLE or time.monotonic() - begun > request.timeout / 2:
                    raise
            else:
                if answer.status not in TRANSIENT or "retry-after" in answer.headers:
                    return answer
            time.sleep(random.uniform(SHORTEST_RETRY_PAUSE, LONGEST_RETRY_PAUSE))
            if request.renew is not None:
                request = request.renew()
        return self._exchange(request)

    def _exchange(self, request: Send) -> Answer:
        import httpx

        check_url(request.url, "url", insecure=request.insecure)
        headers = {"accept": request.accept}
        if request.authorization is not None:
            headers["authorization"] = request.authorization
        if request.content is not None:
            headers["content-type"] = "application/json"
        headers.update(request.headers)
        self._deadline.at, self._deadline.authority = time.monotonic() + request.timeout, request.authority
        self._deadline.sent = False
        try:
            with (
                self._client_for(request) as client,
                client.stream(
                    "GET" if request.form is None and request.content is None else "POST",
                    request.url,
                    headers=headers,
                    content=request.content,
                    data=None if request.form is None else _form(request.form),
                    timeout=request.timeout,
                    extensions=None if self.trace is None else {"trace": self.trace},
                ) as response,
            ):
                body = _bounded_body(response, request)
                return Answer(response.status_code, body, {k.lower(): v for k, v in response.headers.items()})
        # UnicodeError: a label of the host name is empty or too long.
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnicodeError) as error:
            late = isinstance(error, httpx.TimeoutException | TimeoutError)
            # Only these texts are certain not to quote the request. That about a wrong certificate is one of them.
            quotable = isinstance(error, httpx.ConnectError | TimeoutError) and str(error)
            why = f": {error}" if quotable else ""
            outage = AuthorityUnavailable(
                Reason.AUTHORITY_TIMED_OUT if late else Reason.AUTHORITY_UNREACHABLE,
                request.authority,
                url=request.url,
                problem=type(error).__name__ + why,
            )
            outage.sent = self._deadline.sent
            raise outage from None  # the cause would hold the request, and with it credentials

    @contextmanager
    def _client_for(self, request: Send) -> Iterator[httpx.Client]:
        """Yield the shared client, or a new one for a request with its own certificate authority."""
        if request.ca_file is None:
            with self._shared_client() as client:
                yield client
            return
        import ssl

        try:
            require_regular(request.ca_file)
            verify = ssl.create_default_context(cafile=request.ca_file)
        except OSError as error:
            problem = f"{request.ca_file}: not a readable bundle of certificates: {type(error).__name__}"
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, problem=problem) from None
        with self._new_client(verify) as client:
            yield client

    @contextmanager
    def _shared_client(self) -> Iterator[httpx.Client]:
        """Yield the shared client.

        If the client is replaced meanwhile, the last exchange that uses it closes it: a socket that another thread
        still reads must not be closed, because a new connection could get its number.
        """
        with self._lock:
            client = self._open()
            if client not in self._users and time.time() - self._used_at > _KEPT:
                # On a machine that was frozen, the pool may not know how long its connections have been idle.
                pool: Any = client._transport
                pool._pool.close()
            self._users[client] = self._users.get(client, 0) + 1
        try:
            yield client
        finally:
            with self._lock:
                self._used_at = time.time()
                left = self._users.pop(client, 1) - 1
                if left:
                    self._users[client] = left
                closes = not left and client is not self._client
            if closes:
                client.close()

    def check(self, setting: str = "verify", cert_setting: str = "cert") -> None:
        """Raise :class:`ConfigurationError` if the bundle or the certificate of the client cannot be read.

        The message names *setting* or *cert_setting*. Opens no connection.
        """
        self._context(setting, cert_setting)

    def prepare(self) -> None:
        """Import httpx and read the certificates, which takes a long time on the first call. Opens no connection."""
        with self._lock:
            self._open()

    def _open(self) -> httpx.Client:
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _new_client(self, own: ssl.SSLContext | None = None) -> httpx.Client:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx

        verify: ssl.SSLContext | bool = True
        if own is not None:
            verify = own
        elif self._skip_verification:
            import logging

            logging.getLogger("scopeguard").warning("TLS certificates are NOT verified, as configured")
            verify = self._context() or False
        else:
            verify = self._context() or True
        try:
            transport = httpx.HTTPTransport(
                verify=verify,
                proxy=self._proxy,
                trust_env=False,
                # The lanes bound concurrent exchanges. A bound here would make one lane wait for another: hanging
                # introspection would delay fetching the keys of a healthy issuer.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=_KEPT),
            )
        except (httpx.InvalidURL, ValueError, ImportError) as error:
            raise ConfigurationError(f"proxy: cannot be used: {type(error).__name__}") from None
        pool: Any = transport._pool
        pool._network_backend = DeadlineBackend(pool._network_backend, self._deadline, self._lookups, self._streams)
        return httpx.Client(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # Identity: a compressed response of a few KB can expand to gigabytes before its size is known.
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )

    def _context(self, setting: str = "verify", cert_setting: str = "cert") -> ssl.SSLContext | None:
        if _is_context(self._verify):
            return self._verify
        if self._verify is None and self._cert is None:
            return None
        try:
            context = self._own_context()
        except OSError as error:
            raise ConfigurationError(
                f"{setting}: {self._verify!r} is not a readable bundle of certificates (PEM): {error.strerror or error}"
            ) from None
        if self._cert is not None:
            try:
                # With a password, OpenSSL does not ask for one on the terminal.
                for each in self._cert:
                    require_regular(each)
                context.load_cert_chain(self._cert[0], self._cert[-1], password="")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                files = " and ".join(dict.fromkeys(self._cert))
                raise ConfigurationError(
                    f"{cert_setting}: {files}: not a readable certificate with its key (PEM, not encrypted): {reason}"
                ) from None
        return context

    def _own_context(self) -> ssl.SSLContext:
        import ssl

        import httpx

        if isinstance(self._verify, str):
            require_regular(self._verify)
            return ssl.create_default_context(cafile=self._verify)
        return httpx.create_ssl_context(verify=not self._skip_verification, trust_env=False)

    def abort(self) -> None:
        """Interrupt the running exchanges: each fails at its next read or write."""
        self._streams.cut_off()

    def close(self) -> None:
        """Close the connections, those in use after their exchanges; the next :meth:`send` opens new ones."""
        with self._lock:
            client, self._client = self._client, None
            in_use = client in self._users
        if client is not None and not in_use:
            client.close()

    def after_fork(self) -> None:
        """Replace the lock and drop the client, whose sockets belong to the parent."""
        super().after_fork()
        self._client = None
        self._users = {}


def _is_context(verify: object) -> TypeGuard[ssl.SSLContext]:
    if verify is None or isinstance(verify, str):  # spares most programs the import at their start
        return False
    import ssl

    return isinstance(verify, ssl.SSLContext)


def _check_cert(cert: object) -> tuple[str, ...]:
    """Return the paths in *cert*: one, or those of the certificates and of the key."""
    paths = cert if isinstance(cert, tuple) and len(cert) == 2 else (cert,)
    wanted = "the path of a PEM file, or the paths of the certificates and of the key"
    found = tuple(path(each, "cert", wanted) for each in paths)
    for each in found:
        check_file(each, "cert")
    return found


def _check_proxy(proxy: object) -> str:
    """Return *proxy* if it is the URL of a proxy. Messages do not quote it: it may hold a password."""
    if not isinstance(proxy, str):
        raise ConfigurationError(f"proxy: must be a URL, a string, not {type(proxy).__name__}")
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or parts.scheme not in _PROXY_SCHEMES or parts.path not in ("", "/") or parts.query:
        raise ConfigurationError('proxy: write a URL, as in "http://proxy.example.com:3128"')
    return proxy


def _form(pairs: tuple[tuple[str, str], ...]) -> dict[str, str | list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _bounded_body(response: httpx.Response, request: Send) -> bytes:
    """Return the body. Raises :class:`AuthorityUnavailable` if it is compressed or too large."""

    def invalid_answer(problem: str) -> AuthorityUnavailable:
        return AuthorityUnavailable(
            Reason.AUTHORITY_ANSWER_INVALID, request.authority, url=request.url, problem=problem
        )

    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise invalid_answer("the answer is compressed although that was not offered")
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > request.limit:
            raise invalid_answer(f"the answer is larger than {request.limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
