"""What the flow may ask of the outside world, as data. None of it knows OAuth.

The flow yields an effect, an edge performs it and sends the answer back; a failure is thrown in. There are six
effects, and a seventh needs a reason in CHANGELOG.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar, cast

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Effect(Generic[T_co]):
    """Something to be done outside; ``T_co`` is the type of the answer."""

    __slots__ = ()


Flow = Generator[Effect[Any], Any, T]


class Clock(Protocol):
    """Both clocks, in seconds. Tokens are judged by the wall clock, caches live by the monotonic one (X-66)."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one HTTP exchange; header names are lower case."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send(Effect[Answer]):
    """One HTTP exchange: no redirect is followed, and the answer is bounded in size and time.

    ``form`` makes it a POST. ``limit`` is in bytes after decompression, ``timeout`` in seconds for the whole
    exchange, ``retries`` how often it may be repeated after a failure to connect or a 502, 503 or 504. A failure of
    transport, a timeout and an oversized answer are thrown in as
    :class:`~scopeguard.errors.AuthorityUnavailable` naming ``authority``. ``ca_file``, a path, is read for this
    exchange, and the server verified with what is in it alone. ``insecure``: hosts (``"name:port"``) to which the URL
    may lead by http.
    """

    url: str
    authority: str
    accept: str = "application/json"
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    insecure: frozenset[str] = frozenset()
    limit: int = 512 * 1024
    timeout: float = 5.0
    retries: int = 0


class Store(Protocol):
    """State shared by processes and hosts. Every operation may raise
    :class:`~scopeguard.errors.AuthorityUnavailable`; what that means is for the flow to say."""

    def get(self, key: str, /) -> bytes | None:
        """The value under *key*."""
        ...

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Keep *value* under *key* for *seconds*."""
        ...

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the one log of revocations, which is kept for *seconds* at least."""
        ...

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """Entries of the log behind the position *after*, and the position to go on from.

        Not necessarily all of them: there are no more when the position stays where it is. An entry may come again.
        """
        ...

    def close(self) -> None:
        """Release what is held; a later operation may open it again."""
        ...


@dataclass(frozen=True, slots=True)
class UseStore(Effect[T_co]):
    """Run *operation* against the shared store, and answer what it returns."""

    operation: Callable[[Store], T_co] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile(Effect[bytes]):
    """The content of a local file named in the configuration, at most ``limit`` bytes."""

    path: str
    authority: str
    limit: int = 512 * 1024


TURN: Final = 5.0
"""How long a caller waits for the turn of its flight, in seconds, beside the time that the flight itself may take."""

LONGEST_RETRY_PAUSE: Final = 0.25
"""The pause before an exchange is repeated, in seconds, is random and at most this long."""

HOOK_PATIENCE: Final = 15.0
"""How long a caller waits for a function of the operator's, in seconds."""


class Lane(StrEnum):
    """Kinds of outbound work. Each kind has its own bounds, so a flood of one kind delays no other."""

    KEYS = "keys"
    REVOCATIONS = "revocations"
    INTROSPECTION = "introspection"
    HOOKS = "hooks"
    STATUS_LISTS = "status lists"


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFlight(Effect[None]):
    """Run ``flow`` once for all callers that ask under ``key``, in any thread or event loop.

    A caller that waited, and one that is about to run the flow, calls ``needed()`` again and does nothing when it
    returns false. A failure is raised in the caller that started the flight. A caller waits for at most ``deadline``
    seconds. A flight that runs is not interrupted when its callers leave; one that still waits for its turn is dropped
    when the last of them has left.

    Flights of one ``lane`` share its bounds. ``account`` says whose waiting work is counted together: ``authority``
    unless given. It must not be a name that strangers make up or choose, so issuers that a resolver finds share one
    account until one of their tokens was accepted. A flight with ``priority`` goes before those without,
    and there are places that only such flights may take: set it for work that a stranger cannot cause. When too many
    flights of the account wait already, :class:`~scopeguard.errors.AuthorityUnavailable` is raised at once, with the
    seconds after which a place is expected to be free.

    Without ``wait`` the flight goes on beside the request and its failure is only logged. What the flow returns are
    sentences for the operator's log. ``label`` names the flight there; the key where it is empty.
    """

    key: str
    authority: str
    needed: Callable[[], bool] = field(compare=False, repr=False)
    flow: Callable[[], Flow[tuple[str, ...]]] = field(compare=False, repr=False)
    wait: bool = True
    deadline: float = 15.0
    label: str = ""
    lane: Lane = Lane.KEYS
    priority: bool = False
    account: str = ""

    @property
    def title(self) -> str:
        """What the log calls this flight."""
        return self.label or self.key


@dataclass(frozen=True, slots=True)
class CallHook(Effect[T_co]):
    """Call a function of the operator's, and answer what it returns; inside a flight only, since it may block.

    An awaitable is run to its end in an event loop of its own.
    """

    hook: Callable[[], T_co | Awaitable[T_co]] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadForm(Effect[bytes]):
    """The body of the request, at most ``limit`` bytes; the adapter replays it unchanged to the app (B-27).

    A larger one is thrown in as :class:`~scopeguard.errors.RequestTooLarge` (B-26).
    """

    limit: int


def start(flow: Flow[T]) -> tuple[Effect[Any] | None, T | None]:
    """*flow*, as far as it comes by itself: what it asks for, or, if it asks for nothing at all, its value."""
    try:
        return next(flow), None
    except StopIteration as stop:
        return None, stop.value


def ask(effect: Effect[T]) -> Flow[T]:
    """Yield *effect* and return its answer with its own static type."""
    return cast(T, (yield effect))
