"""Redis or Valkey, through redis-py (extra ``redis``): answers and revocations for several workers and hosts.

Answers are strings with a time to live; revocations are a stream, of which every process reads what it has not seen.
Each operation is one atomic command or one transaction, and has a deadline far below that of a request.

Needed is one server of version 6.2 or newer, primary to all processes. Not supported: Redis Cluster and Sentinel. What
was not written to disk is lost with the server: for revocations that are to outlive it and every process, switch
``appendonly`` on, and leave ``maxmemory-policy`` at ``noeviction``, or it may evict them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from scopeguard.config.checks import number, text
from scopeguard.errors import AuthorityUnavailable, ConfigurationError, Reason
from scopeguard.extras import installation

log: Final = logging.getLogger("scopeguard")

_MOST_ENTRIES_AT_ONCE: Final = 1000
_TAG: Final = hashlib.sha256().digest_size
# What a URL may say beside the address. Not: time limits and retries, which are ours, what changes the types of
# answers, and what switches the check of a certificate off.
_OPTIONS: Final = frozenset(
    ("db", "protocol", "client_name", "username", "password",
     "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
)  # fmt: skip


class RedisStore:
    """Implements :class:`~scopeguard.flow.effects.Store`.

    * *url*: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it. It may hold a password: say
      ``env:NAME`` in a configuration file.
    * *prefix*: in front of every key, so that several APIs can share a server.
    * *secret*: signs what is stored (HMAC-SHA256), so that who can write to Redis cannot vouch for tokens; the same
      for all processes. What is not signed with it is ignored. Without it, Redis is trusted like the authorization
      server. Whoever can write to Redis can delete revocations, signed or not.
    * *timeout*: seconds to wait for Redis: to be connected, and for each answer.

    No key and no value holds a token. Any failure of Redis is :class:`~scopeguard.errors.AuthorityUnavailable`; what
    that means is the flow's to say: introspection answers are asked for again, revocations fail closed.

    Raises :class:`ConfigurationError`. Nothing is connected before the first operation.
    """

    def __init__(
        self, url: str, *, prefix: str = "scopeguard:", secret: str | None = None, timeout: float = 0.5
    ) -> None:
        text(url, "store: url")
        _check_url(url)
        if not isinstance(prefix, str) or not prefix.isascii():
            raise ConfigurationError("store: prefix is a string in ASCII")
        if secret is not None and (not isinstance(secret, str) or len(secret) < 16):
            raise ConfigurationError("store: secret is shorter than 16 characters; use 32 random ones")
        if not 0 < number(timeout, "store: timeout") <= 60:
            raise ConfigurationError("store: timeout is a number of seconds greater than 0, and 60 at most")
        self._url = url
        self._prefix = prefix
        self._secret = None if secret is None else hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Any = None
        _every.add(self)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    def get(self, key: str, /) -> bytes | None:
        """The value under *key*, ``None`` for none and for one whose signature is not ours."""
        name = self._prefix + key
        return self._opened(name, self._run(lambda client: client.get(name)))

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Keep *value* under *key* for *seconds*."""
        name, milliseconds = self._prefix + key, max(1, math.floor(seconds * 1000))
        self._run(lambda client: client.set(name, self._sealed(name, value), px=milliseconds))

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the log of revocations, which lasts *seconds* beyond its last entry.

        Entries older than *seconds*, by the clock of Redis, are dropped: give the same to all processes.
        """
        name = self._prefix + "revocations"

        def transaction(client: Any) -> None:
            seconds_now, _ = client.time()
            oldest = max(0, int(seconds_now) - math.ceil(seconds)) * 1000
            with client.pipeline(transaction=True) as pipeline:
                pipeline.xadd(name, {"entry": self._sealed(name, entry)})
                pipeline.xtrim(name, minid=f"{oldest}-0", approximate=True)
                pipeline.expire(name, math.ceil(seconds))
                pipeline.execute()

        self._run(transaction)

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """The entries behind *after*, a thousand at most, and the position to go on from.

        Where the entry at *after* is gone, it was dropped, or Redis has lost its data and begun anew, perhaps with
        a clock that is behind: positions mean nothing then, and everything is read again.
        """
        name = self._prefix + "revocations"
        batch = self._range(name, after or "-")
        if after is not None:
            if batch and batch[0][0] == after.encode("ascii"):
                del batch[0]
            else:
                after, batch = None, self._range(name, "-")
        found: list[bytes] = []
        for position, fields in batch:
            after = position.decode("ascii")
            entry = self._opened(name, fields.get(b"entry"))
            if entry is not None:
                found.append(entry)
        if len(found) < len(batch):
            log.warning("%s: ignored entries that are not ours, by their form or signature", name)
        return after, found

    def close(self) -> None:
        """Close the connections; the next operation opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            # Those in use end with the operation they are used for.
            client.connection_pool.disconnect(inuse_connections=False)

    def _range(self, name: str, start: str) -> list[Any]:
        # One more: the entry at the start is only there to be recognized.
        return list(self._run(lambda client: client.xrange(name, min=start, count=_MOST_ENTRIES_AT_ONCE + 1)))

    def _sealed(self, name: str, value: bytes) -> bytes:
        return value if self._secret is None else self._tag(name, value) + value

    def _opened(self, name: str, sealed: Any) -> bytes | None:
        if not isinstance(sealed, bytes) or self._secret is None:
            return sealed if isinstance(sealed, bytes) else None
        tag, value = sealed[:_TAG], sealed[_TAG:]
        return value if hmac.compare_digest(tag, self._tag(name, value)) else None

    def _tag(self, name: str, value: bytes) -> bytes:
        # The key is signed with the value: an answer moved to another token's key, or another API's, is no answer.
        return hmac.digest(self._secret or b"", name.encode() + b"\0" + value, "sha256")

    def _run(self, operation: Callable[[Any], Any]) -> Any:
        try:
            return operation(self._connected())
        except (_library().RedisError, OSError) as error:
            raise AuthorityUnavailable(
                Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0, problem=type(error).__name__
            ) from None

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                redis = _library()
                pool = redis.ConnectionPool.from_url(
                    self._url,
                    socket_timeout=self._timeout,
                    socket_connect_timeout=self._timeout,
                    # Once more, at once, on a connection that the server has closed meanwhile; not after a time-out.
                    retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                )
                self._client = redis.Redis(connection_pool=pool)
            return self._client

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._client = None


def _library() -> Any:
    try:
        import redis  # noqa: PLC0415 - an extra: whoever has no store does without
        import redis.backoff  # noqa: PLC0415
        import redis.connection  # noqa: PLC0415
        import redis.retry  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(f"store: needs redis-py; {installation('redis')}") from None
    return redis


def _check_url(url: str) -> None:
    """Refuse a *url* that redis-py would not understand or that changes what is promised here; never quoting it."""
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError("store: redis is a URL that begins with redis://, rediss:// or unix://")
    try:
        options = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        _library().connection.parse_url(url)
    except ValueError:  # whose text may hold a part of a password
        raise ConfigurationError("store: redis is not a URL; percent-encode the password in it") from None
    for name in sorted(options - _OPTIONS):
        known = ", ".join(sorted(_OPTIONS))
        raise ConfigurationError(f"store: redis has the option {name[:40]!a}, and may have {known}")


_every: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _drop_connections_of_the_parent() -> None:
    for store in _every:
        store._after_fork()


os.register_at_fork(after_in_child=_drop_connections_of_the_parent)
