"""Drives flows in these tests: scripted answers, in one thread, and a record of the requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from flow_player import play
from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import TokenSources
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.authenticate import authenticate
from scopeguard.flow.context import Context
from scopeguard.flow.effects import Answer, Flow, ReadFile, ReadForm, Send, SingleFlight
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.keys import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.state.token_cache import TokenCache
from scopeguard.testing import FakeAuthority

Reply = Answer | Exception


def trust_in(issuer: Issuer, **options: Any) -> IssuerRecord:
    return IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=KeyRing(issuer.key_set, **options))


def down(authority: str = "https://as.test", **options: Any) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, authority, **options)


class Script:
    """Performs the effects of a flow. ``replies`` answers a URL or a path; ``asked`` lists those that were requested.

    Background flights are deferred until :meth:`land_background`.
    """

    def __init__(self, replies: Callable[[str], Reply] | Mapping[str, Reply] | None = None) -> None:
        self._replies = replies if callable(replies) else (replies or {}).__getitem__
        self.asked: list[str] = []
        self.sends: list[Send] = []
        self.sentences: list[str] = []
        self.background: list[SingleFlight] = []
        self.form: bytes = b""
        self.form_limits: list[int] = []

    def play(self, flow: Flow[Any]) -> Any:
        return play(flow, self._perform)

    def _perform(self, effect: object) -> object:
        match effect:
            case Send(url=url):
                self.sends.append(effect)
                return self._reply(url)
            case ReadFile(path=path):
                answer = self._reply(path)
                return answer.body
            case ReadForm(limit=limit):
                self.form_limits.append(limit)
                return self.form
            case SingleFlight(wait=False):
                self.background.append(effect)
            case SingleFlight():
                self._run(effect)
            case _:
                raise AssertionError(effect)
        return None

    def _reply(self, place: str) -> Answer:
        self.asked.append(place)
        reply = self._replies(place)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _run(self, flight: SingleFlight) -> None:
        if flight.needed():
            self.sentences += self.play(flight.flow())

    def land_background(self) -> None:
        flights, self.background = self.background, []
        for flight in flights:
            self._run(flight)


class Bench:
    """An authority, the issuer record for it, and requests with its tokens."""

    def __init__(self, authority: FakeAuthority, issuer: Issuer | None = None, **options: Any) -> None:
        self.authority = authority
        self.clock = authority.clock
        self.record = trust_in(issuer or authority.issuer, **options)
        self.script = Script(self._ask)

    def _ask(self, url: str) -> Reply:
        try:
            return self.authority.transport.send(Send(url=url, authority="-"))
        except AuthorityUnavailable as error:
            return error

    @property
    def asked(self) -> list[str]:
        return self.script.asked

    def flow(
        self,
        token: str,
        *,
        sources: TokenSources | None = None,
        issuers: Sequence[IssuerRecord] = (),
        token_cache: TokenCache | None = None,
    ) -> Flow[Any]:
        view = RequestView(
            method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode("ascii"))])
        )
        context = Context(
            issuers=Issuers(issuers or (self.record,), revocations=Revocations()),
            clock=self.clock,
            token_cache=token_cache,
        )
        return authenticate(view, sources or TokenSources(), context)

    def judge(self, token: str, **options: Any) -> Any:
        return self.script.play(self.flow(token, **options))


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def bench(authority: FakeAuthority) -> Bench:
    return Bench(authority)


@pytest.fixture
def new_bench() -> type[Bench]:
    return Bench


@pytest.fixture
def new_script() -> type[Script]:
    return Script
