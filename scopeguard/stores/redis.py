"""A store in Redis or Valkey, through redis-py (extra ``redis``), for several workers and hosts.

Answers are strings with a time to live. Revocations are a stream, whose new entries each process reads. Each operation
is atomic: a command, a script or a transaction. Each has a time limit, half a second by default.

It needs one server, version 6.2 or newer, that is the primary for all processes. Redis Cluster and Sentinel are not
supported. Data that was not written to disk is lost with the server. To keep revocations across its restart, switch
``appendonly`` on, and leave ``maxmemory-policy`` at ``noeviction``: other policies may evict them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from scopeguard.config.checks import number, text
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.extras import install_command
from scopeguard.frozen import dataclass
from scopeguard.reasons import Reason
from scopeguard.state.fork import Locked

log: Final = logging.getLogger("scopeguard")

_MOST_ENTRIES_AT_ONCE: Final = 1000
_TAG: Final = hashlib.sha256().digest_size
# The options that a URL may have. Time limits and retries are set here; options that change the types of answers or
# switch the verification of certificates off are not allowed.
_OPTIONS: Final = frozenset(
    ("db", "protocol", "client_name", "username", "password",
     "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
)  # fmt: skip


_CLAIMS: Final = ("new", "used", "full")
# Three sorted sets: the proofs of a key, the proofs of all keys, and those of a holder of tokens. Scores are the times
# in milliseconds at which proofs expire, by the clock of Redis. A member of the second set is a proof together with the
# attempt that has claimed it: redis-py sends the script again if the connection breaks before the answer, and then the
# first execution may have claimed the proof for this very attempt.
# Each call removes up to a hundred expired members, more than it adds, so that none takes long. Expired members are not
# counted. The expiry of a set is that of its last member: other APIs may remember proofs for other times.
_CLAIM: Final = """
local owner, all, holder = KEYS[1], KEYS[2], KEYS[3]
local proof, attempt, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3])
local total, per_owner, per_holder = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function forget_expired(name)
  local gone = redis.call("ZRANGE", name, "-inf", now, "BYSCORE", "LIMIT", 0, 100)
  if #gone > 0 then redis.call("ZREM", name, unpack(gone)) end
end
local function count(name)
  return redis.call("ZCOUNT", name, "(" .. now, "+inf")
end
local expiry = redis.call("ZSCORE", owner, proof)
if expiry and tonumber(expiry) > now then
  return redis.call("ZSCORE", all, proof .. attempt) and 0 or 1
end
forget_expired(owner)
forget_expired(all)
forget_expired(holder)
local taken = count(all)
if taken >= total or count(owner) >= per_owner then return 2 end
if taken * 2 >= total and count(holder) >= per_holder then return 2 end
redis.call("ZADD", owner, now + lifetime, proof)
redis.call("ZADD", all, now + lifetime, proof .. attempt)
redis.call("ZADD", holder, now + lifetime, proof)
for _, name in ipairs(KEYS) do
  if redis.call("PTTL", name) < lifetime then redis.call("PEXPIRE", name, lifetime) end
end
return 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a server says about itself: :meth:`RedisStore.facts`.

    * ``product``: "Redis" or "Valkey". ``version``: that of the product.
    * ``role``: "master" for a primary. ``is_cluster``: it is a node of a cluster.
    * ``policy``: the ``maxmemory-policy``. ``max_memory``: the limit in bytes, 0 for none.
    * ``is_append_only``: writes are logged on disk.
    * ``time``: its clock, in seconds since the epoch.
    """

    product: str
    version: str
    role: str
    is_cluster: bool
    policy: str
    max_memory: int
    is_append_only: bool
    time: float


class RedisStore(Locked):
    """Implements :class:`~scopeguard.flow.effects.Store` with Redis or Valkey.

    * *url*: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads it. It may hold a password: write
      ``env:NAME`` in a configuration file.
    * *prefix*: precedes every key, so that several APIs can share a server.
    * *secret*: signs stored values (HMAC-SHA256), so that write access to Redis cannot make a token valid. All
      processes need the same secret; values without its signature are ignored. Without a secret, Redis is trusted like
      the authorization server. Write access to Redis always allows deleting revocations, signed or not.
    * *timeout*: the seconds to wait for a connection, and for each response.

    No key or value contains a token. Any failure of Redis raises :class:`~scopeguard.errors.AuthorityUnavailable`. The
    guard then sends introspection requests to the authorization server, and denies tokens that it cannot check for
    revocation.

    Raises :class:`ConfigurationError` for invalid settings. The first operation opens the first connection.
    """

    def __init__(
        self, url: str, *, prefix: str = "scopeguard:", secret: str | None = None, timeout: float = 0.5
    ) -> None:
        text(url, "store: url")
        _check_url(url)
        if not isinstance(prefix, str) or not prefix.isascii():
            raise ConfigurationError("store: prefix must be a string in ASCII")
        if secret is not None and (not isinstance(secret, str) or len(secret) < 16):
            raise ConfigurationError("store: secret must have at least 16 characters; use 32 random ones")
        if not 0 < number(timeout, "store: timeout") <= 60:
            raise ConfigurationError("store: timeout must be a number of seconds above 0 and at most 60")
        self._url = url
        self._prefix = prefix
        self._secret = None if secret is None else hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        self._timeout = timeout
        super().__init__()
        self._client: Any = None

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r})"

    @property
    def host(self) -> str | None:
        """The host of the server, or ``None`` for a Unix socket."""
        return None if self._url.startswith("unix:") else urlsplit(self._url).hostname or "localhost"

    @property
    def is_encrypted(self) -> bool:
        """True if connections use TLS."""
        return self._url.startswith("rediss:")

    @property
    def has_password(self) -> bool:
        """True if the URL has a password."""
        return bool(_library().connection.parse_url(self._url).get("password"))

    def facts(self) -> ServerFacts:
        """Return what the server says about itself (``INFO`` and ``TIME``), for ``scopeguard doctor``."""
        info = self._run(lambda client: client.info())
        seconds, microseconds = self._run(lambda client: client.time())
        valkey = info.get("valkey_version")
        return ServerFacts(
            product="Redis" if valkey is None else "Valkey",
            version=str(valkey or info.get("redis_version", "")),
            role=str(info.get("role", "")),
            is_cluster=bool(info.get("cluster_enabled")),
            policy=str(info.get("maxmemory_policy", "")),
            max_memory=int(info.get("maxmemory", 0)),
            is_append_only=bool(info.get("aof_enabled")),
            time=seconds + microseconds / 1_000_000,
        )

    def get(self, key: str, /) -> bytes | None:
        """Return the value under *key*, ``None`` if there is none or its signature is invalid."""
        name = self._prefix + key
        return self._verify(name, self._run(lambda client: client.get(name)))

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Store *value* under *key* for *seconds*."""
        name, milliseconds = self._prefix + key, max(1, math.floor(seconds * 1000))
        self._run(lambda client: client.set(name, self._sign(name, value), px=milliseconds))

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the log of revocations, which expires *seconds* after its last entry.

        Entries older than *seconds*, by the clock of Redis, are dropped: use the same value in all processes.
        """
        name = self._prefix + "revocations"

        def transaction(client: Any) -> None:
            seconds_now, _ = client.time()
            oldest = max(0, int(seconds_now) - math.ceil(seconds)) * 1000
            with client.pipeline(transaction=True) as pipeline:
                pipeline.xadd(name, {"entry": self._sign(name, entry)})
                pipeline.xtrim(name, minid=f"{oldest}-0", approximate=True)
                pipeline.expire(name, math.ceil(seconds))
                pipeline.execute()

        self._run(transaction)

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """Return the position for the next call, and the entries after *after*, at most a thousand.

        If the entry at *after* is missing, everything is read again: the entry was dropped, or Redis has lost its data,
        and its new positions may be lower than the old ones.
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

        One script reads and writes all sets, so the operation is atomic for any number of processes. Redis drops no key
        with an expiry for lack of memory under the policy ``noeviction``, which this requires: an evicted proof could
        be used again. Without free memory the script fails, and raises :class:`~scopeguard.errors.AuthorityUnavailable`
        as any other failure does.
        """
        names = [f"{self._prefix}{name}" for name in (f"proofs:{{{owner}}}", "all-proofs", f"proofs-of:{{{holder}}}")]
        values = [identity, secrets.token_bytes(16), math.ceil(seconds * 1000), total, per_owner, per_holder]
        return _CLAIMS[int(self._run(lambda client: client.eval(_CLAIM, len(names), *names, *values)))]

    def close(self) -> None:
        """Close the connections; the next operation opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            # A connection in use is closed by the operation that uses it.
            client.connection_pool.disconnect(inuse_connections=False)

    def _range(self, name: str, start: str) -> list[Any]:
        # One more than the batch, because the entry at the start is known already.
        return list(self._run(lambda client: client.xrange(name, min=start, count=_MOST_ENTRIES_AT_ONCE + 1)))

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

    def _run(self, operation: Callable[[Any], Any]) -> Any:
        try:
            return operation(self._connect())
        except (_library().RedisError, OSError) as error:
            raise AuthorityUnavailable(
                Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0, problem=type(error).__name__
            ) from None

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                redis = _library()
                pool = redis.ConnectionPool.from_url(
                    self._url,
                    socket_timeout=self._timeout,
                    socket_connect_timeout=self._timeout,
                    # One immediate retry, for a connection that the server has closed; none after a timeout.
                    retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                )
                self._client = redis.Redis(connection_pool=pool)
            return self._client

    def after_fork(self) -> None:
        """Replace the lock and drop the client, whose sockets belong to the parent."""
        super().after_fork()
        self._client = None


def _library() -> Any:
    try:
        import redis  # noqa: PLC0415 - an optional dependency
        import redis.backoff  # noqa: PLC0415
        import redis.connection  # noqa: PLC0415
        import redis.retry  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(f"store: needs redis-py; {install_command('redis')}") from None
    return redis


def _check_url(url: str) -> None:
    """Raise :class:`ConfigurationError` unless redis-py can read *url* and all its options are allowed.

    Messages do not quote the URL, which may contain a password.
    """
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigurationError("store: the Redis URL must begin with redis://, rediss:// or unix://")
    try:
        options = {name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        _library().connection.parse_url(url)
    except ValueError:  # its text may contain a part of the password
        raise ConfigurationError("store: the Redis URL is invalid; percent-encode the password in it") from None
    for name in sorted(options - _OPTIONS):
        allowed = ", ".join(sorted(_OPTIONS))
        raise ConfigurationError(f"store: the Redis URL has the option {name[:40]!a}; the allowed ones are {allowed}")
