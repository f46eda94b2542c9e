"""The I/O of a flow, as data. No effect depends on OAuth.

A flow yields an effect. An edge performs it and sends the answer back, or throws the failure in. There are seven
effects; an eighth needs a reason in CHANGELOG.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from scopeguard.config.answer_limits import ANSWER_TIMEOUT, LARGEST_ANSWER
from scopeguard.config.file_limits import LARGEST_FILE
from scopeguard.flow.waiting_times import FLIGHT_TIMEOUT

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Effect(Generic[T_co]):
    """One piece of I/O; ``T_co`` is the type of its answer."""

    __slots__ = ()


Flow = Generator[Effect[Any], Any, T]


class Clock(Protocol):
    """Both clocks, in seconds. Claims are compared with the wall clock, cache lifetimes with the monotonic one."""

    def wall(self) -> float: ...
    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of one HTTP exchange. Header names are in lower case."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send(Effect[Answer]):
    """One HTTP exchange. Redirects are not followed; the answer is bounded in size and time.

    ``form`` or ``content``, which is JSON, makes it a POST. ``headers`` are further fields, with names in lower case.
    ``limit`` is in bytes after decompression, ``timeout`` in seconds for the whole exchange, ``retries`` is the number
    of repetitions after a failure to connect or a 502, 503 or 504. ``renew`` returns the request of a repetition, if it
    has credentials that a server accepts once; ``None`` if the same request can be sent again. A transport failure, a
    timeout and an oversized answer are thrown in as :class:`~scopeguard.errors.AuthorityUnavailable`, which names
    ``authority``. ``ca_file`` is the path of a file of certificates: the server is verified against these alone.
    ``insecure`` lists the hosts (``"name:port"``) that may be reached by http.
    """

    url: str
    authority: str
    accept: str = "application/json"
    form: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    authorization: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    insecure: frozenset[str] = frozenset()
    limit: int = LARGEST_ANSWER
    timeout: float = ANSWER_TIMEOUT
    retries: int = 0
    renew: Callable[[], Send] | None = field(default=None, repr=False, compare=False)


class Store(Protocol):
    """State shared by processes and hosts.

    Every operation may raise :class:`~scopeguard.errors.AuthorityUnavailable`; the flow then chooses between an outage
    and going on without the store.
    """

    def get(self, key: str, /) -> bytes | None:
        """Return the value under *key*, ``None`` if there is none."""
        ...

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Keep *value* under *key* for *seconds*."""
        ...

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the one log of revocations, which keeps it for at least *seconds*."""
        ...

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """Return entries of the log after the position *after*, and the position for the next call.

        One call need not return all entries: the end is reached when the position does not change. An entry may be
        returned more than once.
        """
        ...

    def close(self) -> None:
        """Close the connections; a later operation may open new ones."""
        ...


SHARED_STORE: Final = "the shared store"
"""The name of the store in the log and in errors, which name an authority."""


class ProofStore(Store, Protocol):
    """A store that remembers proofs of possession as well."""

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
        """Remember the proof *identity* of the key *owner* for *seconds*, unless it is remembered already.

        *holder* is a digest that names the subject or client of the token. Return ``"new"``, ``"used"`` or ``"full"``:
        full if *per_owner* proofs of the key, or *total* proofs of all keys, are remembered. If at least half of
        *total* are remembered, it is also full if *per_holder* of them are of the holder. The operation is atomic: of
        any number of callers with the same proof, in any process, one gets ``"new"``.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class UseStore(Effect[T_co]):
    """Call *operation* with the shared store; the answer is its return value.

    It may block: an event loop calls it in a worker thread.
    """

    operation: Callable[[Store], T_co]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile(Effect[bytes]):
    """Read a local file that the configuration names, at most ``limit`` bytes."""

    path: str
    authority: str
    limit: int = LARGEST_FILE


class Lane(StrEnum):
    """Kinds of outbound work. Each kind has its own bounds, so that a flood of one kind does not delay others."""

    KEYS = "keys"
    REVOCATIONS = "revocations"
    INTROSPECTION = "introspection"
    HOOKS = "hooks"
    API_KEYS = "api keys"
    STATUS_LISTS = "status lists"
    DECISIONS = "decisions"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleFlight(Effect[None]):
    """Run ``flow`` once for all callers with the same ``key``, in any thread or event loop.

    After waiting, and before running the flow, a caller calls ``needed()`` again and does nothing if it returns false.
    A failure is raised in the caller that started the flight. A caller waits for at most ``deadline`` seconds. A
    running flight continues when its callers leave; a queued flight is dropped when its last caller has left.

    Flights of one ``lane`` share its bounds. Queued flights are counted per ``account``, by default the ``authority``;
    the account must not be a name that a stranger can choose, so issuers that a resolver finds share one account until
    one of their tokens is accepted. Flights with ``priority`` run before the others and have reserved places: set it
    for work that a stranger cannot cause. If too many flights of the account are queued,
    :class:`~scopeguard.errors.AuthorityUnavailable` is raised at once, with the seconds until a place is expected.

    Without ``wait``, the flight runs in the background and its failure is only logged. The flow returns sentences for
    the log. ``label`` names the flight in the log; the default is the key.
    """

    key: str
    authority: str
    needed: Callable[[], bool] = field(repr=False)
    flow: Callable[[], Flow[tuple[str, ...]]] = field(repr=False)
    wait: bool = True
    deadline: float = FLIGHT_TIMEOUT
    label: str = ""
    lane: Lane = Lane.KEYS
    priority: bool = False
    account: str = ""

    @property
    def title(self) -> str:
        """The name of this flight in the log."""
        return self.label or self.key


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CallHook(Effect[T_co]):
    """Call a function of the configuration; the answer is its return value.

    Yield it inside a flight only, because the function may block. An awaitable runs to its end in an event loop of its
    own.
    """

    hook: Callable[[], T_co | Awaitable[T_co]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CallApp(Effect[Any]):
    """Call a function of the app about this request; the answer is its return value.

    With ``is_async``, the function returns an awaitable, which runs in the event loop of the request. The other
    functions may block: an event loop calls them in a worker thread, with the context variables of the request.
    """

    function: Callable[[], Any]
    is_async: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadForm(Effect[bytes]):
    """Read the body of the request, at most ``limit`` bytes. The adapter replays it unchanged to the app.

    For a larger body, :class:`~scopeguard.errors.RequestTooLarge` is thrown in.
    """

    limit: int


def start(flow: Flow[T]) -> tuple[Effect[Any] | None, T | None]:
    """Run *flow* to its first effect. Return that effect, or ``None`` and the value if there is no effect."""
    try:
        return next(flow), None
    except StopIteration as stop:
        return None, stop.value


def ask(effect: Effect[T]) -> Flow[T]:
    """Yield *effect* and return its answer with its own static type."""
    return cast(T, (yield effect))
