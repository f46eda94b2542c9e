"""A store in Redis or Valkey, through redis-py (extra ``redis``), for several workers and hosts.

Answers are strings with a time to live. Revocations are a stream, whose new entries each process reads. Each operation
is atomic: a command or a script on keys of one slot. Each has a time limit, half a second by default.

It needs version 6.2 or newer: one server, a primary that Sentinels watch, or a cluster. Data that was not written to
disk is lost with the server. To keep revocations across its restart, switch ``appendonly`` on, and leave
``maxmemory-policy`` at ``noeviction``: other policies may evict them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from scopeguard.config.checks import number, text, whole
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import SHARED_STORE
from scopeguard.reasons import Reason
from scopeguard.state.fork import Locked
from scopeguard.stores.redis_facts import ServerFacts, read_facts
from scopeguard.stores.redis_scripts import APPEND, CLAIM
from scopeguard.stores.redis_servers import Client, Kind, library, open_client, parse_url

T = TypeVar("T")

log: Final = logging.getLogger("scopeguard")

_MOST_ENTRIES_AT_ONCE: Final = 1000
_MOST_REPLICAS: Final = 100
_TAG: Final = hashlib.sha256().digest_size
_CLAIMS: Final = ("new", "used", "full")


class RedisStore(Locked):
    """Implements :class:`~scopeguard.flow.effects.Store` with Redis or Valkey.

    * *url*: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it. Sentinels:
      ``redis+sentinel://host-1:26379,host-2:26379/mymaster``. A cluster: ``redis+cluster://host-1:6379,host-2:6379``.
      With TLS: ``rediss+sentinel://`` and ``rediss+cluster://``. It may hold a password: write ``env:NAME`` in a
      configuration file.
    * *prefix*: precedes every key, so that several APIs can share a server.
    * *secret*: signs stored values (HMAC-SHA256), so that write access to Redis cannot make a token valid. All
      processes need the same secret; values without its signature are ignored. Without a secret, Redis is trusted like
      the authorization server. Write access to Redis always allows deleting revocations, signed or not.
    * *timeout*: the seconds to wait for a connection, and for each response.
    * *replicas*: how many replicas must have a used proof or a revocation before it counts (``WAIT``). With fewer, the
      operation fails. It must be set with Sentinels and clusters: replication is asynchronous, so what was written last
      may be lost when a replica takes over, and a primary that was replaced may answer for some seconds. Set
      it to the number of replicas that each primary has to prevent both. ``None`` is 0, for one server.

    No key or value contains a token. Any failure of Redis raises :class:`~scopeguard.errors.AuthorityUnavailable`. The
    guard then sends introspection requests to the authorization server, and denies tokens that it cannot check for
    revocation.

    Raises :class:`ConfigurationError` for invalid settings. The first operation opens the first connection.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "scopeguard:",
        secret: str | None = None,
        timeout: float = 0.5,
        replicas: int | None = None,
    ) -> None:
        given: object = url
        if hasattr(given, "execute_command"):
            raise ConfigurationError("store: give the URL of Redis, not a client: the store sets its time limits")
        text(url, "store: url")
        self._servers = parse_url(url)
        if not isinstance(prefix, str) or not prefix.isascii() or "{}" in prefix:
            raise ConfigurationError("store: prefix must be a string in ASCII without {}")
        if secret is not None and (not isinstance(secret, str) or len(secret) < 16):
            raise ConfigurationError("store: secret must have at least 16 characters; use 32 random ones")
        if not 0 < number(timeout, "store: timeout") <= 60:
            raise ConfigurationError("store: timeout must be a number of seconds above 0 and at most 60")
        if replicas is None and self._servers.kind is not Kind.SERVER:
            raise ConfigurationError(
                "store: set replicas with Sentinels or a cluster: as many as each primary has, so that a failover "
                "loses no used proof and no revocation; 0 accepts that"
            )
        replicas = 0 if replicas is None else replicas
        if whole(replicas, "store: replicas", least=0) > _MOST_REPLICAS:
            raise ConfigurationError(f"store: replicas must be at most {_MOST_REPLICAS}")
        self.replicas: int = replicas
        self._prefix = prefix
        self._secret = None if secret is None else hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        self._timeout = timeout
        super().__init__()
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    @property
    def kind(self) -> Kind:
        """Whether the URL names one server, Sentinels or a cluster."""
        return self._servers.kind

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts in the URL, empty for a Unix socket."""
        return tuple(host for host, _ in self._servers.addresses)

    @property
    def is_encrypted(self) -> bool:
        """True if connections use TLS."""
        return self._servers.is_encrypted

    @property
    def has_password(self) -> bool:
        """True if the URL has a password."""
        return bool(self._servers.options.get("password"))

    def facts(self) -> list[ServerFacts]:
        """Return the facts about each primary from ``INFO`` and ``TIME``, for ``scopeguard doctor``."""
        return self._run(lambda client: [read_facts(name, server) for name, server in client.primaries()])

    def get(self, key: str, /) -> bytes | None:
        """Return the value under *key*, ``None`` if there is none or its signature is invalid."""
        name = self._prefix + key
        return self._verify(name, self._run(lambda client: client.run(name, lambda server: server.get(name))))

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Store *value* under *key* for *seconds*."""
        name, milliseconds = self._prefix + key, max(1, math.floor(seconds * 1000))
        sealed = self._sign(name, value)
        self._run(lambda client: client.run(name, lambda server: server.set(name, sealed, px=milliseconds)))

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the log of revocations, and drop entries whose own *seconds* are over, by the clock of Redis.

        The log expires with the entry that expires last.
        """
        name = self._tagged_key("revocations")
        sealed, lifetime = self._sign(name, entry), math.ceil(seconds * 1000)
        self._run_confirmed(name, lambda server: server.eval(APPEND, 2, name, f"{name}:expiries", sealed, lifetime))

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """Return the position for the next call, and the entries after *after*, at most a thousand.

        If the entry at *after* is missing, everything is read again: the entry was dropped, or Redis has lost its data,
        and its new positions may be lower than the old ones.
        """
        name = self._tagged_key("revocations")
        batch = self._range(name, after or "-")
        if after is not None:
            if batch and batch[0][0] == after.encode("ascii"):
                del batch[0]
            else:
                after, batch = None, self._range(name, "-")
        found: list[bytes] = []
        for position, fields in batch:
            after = position.decode("ascii")
            entry = self._verify(name, fields.get(b"entry"))
            if entry is not None:
                found.append(entry)
        if len(found) < len(batch):
            log.warning("%s: ignored entries with a wrong form or signature", name)
        return after, found

    def claim(
        self,
        identity: bytes,
        owner: str,
        /,
        *,
        holder: str,
        seconds: float,
        total: int,
        per_owner: int,
        per_holder: int,
    ) -> str:
        """Remember the proof *identity* of *owner*; see :class:`~scopeguard.flow.effects.ProofStore`.

        One script reads and writes all sets, so the operation is atomic for any number of processes. It requires the
        policy ``noeviction``: under other policies, Redis may evict a proof, which could then be used again. If Redis
        has no free memory, the script fails, and this raises :class:`~scopeguard.errors.AuthorityUnavailable`.
        """
        # One slot of a cluster has all proofs, because the script needs the numbers of all of them.
        tagged = self._tagged_key("proofs")
        names = [f"{tagged}:key:{owner}", f"{tagged}:all", f"{tagged}:holder:{holder}"]
        values = [identity, secrets.token_bytes(16), math.ceil(seconds * 1000), total, per_owner, per_holder]
        found = self._run_confirmed(tagged, lambda server: server.eval(CLAIM, len(names), *names, *values))
        return _CLAIMS[int(found)]

    def close(self) -> None:
        """Close the connections; the next operation opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _tagged_key(self, tag: str) -> str:
        return f"{self._prefix}{{{tag}}}"

    def _range(self, name: str, start: str) -> list[Any]:
        # One more than the batch, because the entry at the start is known already.
        number = _MOST_ENTRIES_AT_ONCE + 1
        return list(self._run_confirmed(name, lambda server: server.xrange(name, min=start, count=number)))

    def _sign(self, name: str, value: bytes) -> bytes:
        return value if self._secret is None else self._tag(name, value) + value

    def _verify(self, name: str, sealed: Any) -> bytes | None:
        if not isinstance(sealed, bytes) or self._secret is None:
            return sealed if isinstance(sealed, bytes) else None
        tag, value = sealed[:_TAG], sealed[_TAG:]
        return value if hmac.compare_digest(tag, self._tag(name, value)) else None

    def _tag(self, name: str, value: bytes) -> bytes:
        # The signature covers the key, so that a value moved to the key of another token or API is invalid.
        return hmac.digest(self._secret or b"", name.encode() + b"\0" + value, "sha256")

    def _run_confirmed(self, tagged: str, operation: Callable[[Any], Any]) -> Any:
        """Return the answer to *operation* on keys in the slot of *tagged*, after *replicas* have confirmed its writes.

        Reading needs a confirmation, too. A primary that was replaced may go on answering without the newest
        revocations, but the replicas of the new primary do not confirm its writes.
        """
        if not self.replicas:
            return self._run(lambda client: client.run(tagged, operation))
        milliseconds = max(1, math.floor(self._timeout * 500))  # half of the time limit for answers

        def run_pipeline(server: Any) -> list[Any]:
            with server.pipeline(transaction=False) as pipeline:
                operation(pipeline)
                # WAIT confirms writes only, and the operation may have written nothing. Replicas confirm this write.
                pipeline.set(f"{tagged}:fence", b"", px=1000)
                pipeline.wait(self.replicas, milliseconds)
                return list(pipeline.execute())

        answer, _, confirmed = self._run(lambda client: client.run(tagged, run_pipeline))
        if confirmed < self.replicas:
            raise _unavailable("NotReplicated")
        return answer

    def _run(self, operation: Callable[[Client], T]) -> T:
        redis = library()
        with self._lock:
            if self._client is None:
                self._client = open_client(self._servers, self._timeout)
            client = self._client
        try:
            return operation(client)
        except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
            problem = type(error).__name__
        raise _unavailable(problem)

    def after_fork(self) -> None:
        """Replace the lock and drop the client, whose sockets belong to the parent."""
        super().after_fork()
        self._client = None


def _unavailable(problem: str) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.STORE_UNAVAILABLE, SHARED_STORE, retry_after=1.0, problem=problem)
