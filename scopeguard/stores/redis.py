"""Redis or Valkey, through redis-py (extra ``redis``): answers and revocations for several workers and hosts.

Answers are strings with a time to live; revocations are a stream, of which every process reads what it has not seen.
Each operation is one atomic command or one transaction, and has a deadline far below that of a request.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from scopeguard.errors import AuthorityUnavailable, ConfigurationError, Reason

if TYPE_CHECKING:
    import redis

_MOST_ENTRIES_AT_ONCE: Final = 1000
_TAG: Final = hashlib.sha256().digest_size


class RedisStore:
    """Implements :class:`~scopeguard.effects.Store`.

    * *url*: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it. It may hold a password: say ``env:NAME``
      in a configuration file.
    * *prefix*: in front of every key, so that several APIs can share a server.
    * *secret*: signs what is stored (HMAC-SHA256), so that who can write to Redis cannot vouch for tokens; the same
      for all processes. Without it, Redis is trusted like the authorization server.
    * *timeout*: seconds for one operation, connecting included.

    No value holds a token. A failure of Redis is :class:`~scopeguard.errors.AuthorityUnavailable`; what that means is
    the flow's to say: introspection answers are asked for again, revocations fail closed.
    """

    def __init__(
        self, url: str, *, prefix: str = "scopeguard:", secret: str | None = None, timeout: float = 0.5
    ) -> None:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigurationError("store: redis is a URL that begins with redis://, rediss:// or unix://")
        if secret is not None and len(secret) < 16:
            raise ConfigurationError("store: secret is shorter than 16 characters; use 32 random ones")
        if not timeout > 0:
            raise ConfigurationError("store: timeout is a number of seconds greater than 0")
        self._url = url
        self._prefix = prefix
        self._secret = None if secret is None else hashlib.sha256(secret.encode()).digest()
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        _every.add(self)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    def get(self, key: str, /) -> bytes | None:
        """The value under *key*, ``None`` for none and for one whose signature is not ours."""
        return self._opened(key, self._run(lambda client: client.get(self._prefix + key)))

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Keep *value* under *key* for *seconds*."""
        milliseconds = max(1, math.floor(seconds * 1000))
        self._run(lambda client: client.set(self._prefix + key, self._sealed(key, value), px=milliseconds))

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the log of revocations, which lasts *seconds* beyond its last entry."""
        name = self._prefix + "revocations"

        def transaction(client: redis.Redis) -> None:
            seconds_now, _ = client.time()
            with client.pipeline(transaction=True) as pipeline:
                pipeline.xadd(name, {"entry": self._sealed("revocations", entry)})
                pipeline.xtrim(name, minid=f"{(int(seconds_now) - math.ceil(seconds)) * 1000}-0", approximate=True)
                pipeline.expire(name, math.ceil(seconds))
                pipeline.execute()

        self._run(transaction)

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """The entries behind *after*, and the position to go on from."""
        name = self._prefix + "revocations"
        found: list[bytes] = []
        while True:
            start = "-" if after is None else f"({after}"
            batch: Any = self._run(
                lambda client, start=start: client.xrange(name, min=start, count=_MOST_ENTRIES_AT_ONCE)
            )
            for position, fields in batch:
                after = position.decode("ascii")
                entry = self._opened("revocations", fields.get(b"entry"))
                if entry is not None:
                    found.append(entry)
            if len(batch) < _MOST_ENTRIES_AT_ONCE:
                return after, found

    def close(self) -> None:
        """Close the connections; the next operation opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _sealed(self, key: str, value: bytes) -> bytes:
        return value if self._secret is None else self._tag(key, value) + value

    def _opened(self, key: str, sealed: Any) -> bytes | None:
        if not isinstance(sealed, bytes) or self._secret is None:
            return sealed if isinstance(sealed, bytes) else None
        tag, value = sealed[:_TAG], sealed[_TAG:]
        return value if hmac.compare_digest(tag, self._tag(key, value)) else None

    def _tag(self, key: str, value: bytes) -> bytes:
        # The key is signed with the value: an answer moved to another token's key is not an answer.
        return hmac.digest(self._secret or b"", key.encode() + b"\0" + value, "sha256")

    def _run(self, operation: Any) -> Any:
        import redis

        try:
            return operation(self._connected())
        except redis.RedisError as error:
            raise AuthorityUnavailable(
                Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0, problem=type(error).__name__
            ) from None

    def _connected(self) -> redis.Redis:
        with self._lock:
            if self._client is None:
                import redis
                from redis.backoff import NoBackoff
                from redis.retry import Retry

                self._client = redis.Redis.from_url(
                    self._url,
                    socket_timeout=self._timeout,
                    socket_connect_timeout=self._timeout,
                    # One more try on a connection that the server closed meanwhile, at once.
                    retry=Retry(NoBackoff(), 1),
                    health_check_interval=30,
                )
            return self._client

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._client = None


_every: weakref.WeakSet[RedisStore] = weakref.WeakSet()


def _drop_connections_of_the_parent() -> None:
    for store in _every:
        store._after_fork()


os.register_at_fork(after_in_child=_drop_connections_of_the_parent)
