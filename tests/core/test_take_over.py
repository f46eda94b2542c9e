"""A guard that replaces another one takes over its state, as far as the new settings allow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scopeguard import AuthorityUnavailable, Guard, Issuer
from scopeguard.core.starting import take_over
from scopeguard.guard import Denied, Granted, engine_of
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.scopes import all_of
from scopeguard.testing import FakeAuthority


def guard(fake: FakeAuthority, *issuers: Issuer, **settings: Any) -> Guard:
    return Guard(*(issuers or (fake.issuer,)), transport=fake.transport, clock=fake.clock, **settings)


def check(judge: Guard, token: str, *scopes: str) -> object:
    headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
    return judge.check(RequestView(method="GET", path="/", headers=headers), all_of(*scopes) if scopes else None)


def test_issuer_with_equal_settings_keeps_its_keys_if_others_change():
    fake = FakeAuthority()
    token = fake.mint("cloud")
    old = guard(fake)
    old.warm()
    new = guard(fake, implies={"cloud": ["read"]})
    with fake.outage():
        take_over(engine_of(new), engine_of(old))
        assert isinstance(check(new, token, "read"), Granted)
        assert isinstance(check(old, token, "read"), Denied)
    assert fake.transport.count("jwks") == 1


def test_issuer_with_changed_settings_fetches_keys_before_the_change():
    fake = FakeAuthority()
    token = fake.mint("read")
    old = guard(fake)
    old.warm()
    new = guard(fake, Issuer(fake.url, audience=fake.audience, leeway=1))
    with fake.outage():
        for _ in range(2):
            with pytest.raises(AuthorityUnavailable):
                take_over(engine_of(new), engine_of(old))
        assert isinstance(check(old, token), Granted)
    fake.clock.advance(60)
    take_over(engine_of(new), engine_of(old))
    assert isinstance(check(new, token), Granted)
    assert fake.transport.count("jwks") >= 2


def test_unreachable_unchanged_issuer_does_not_delay_the_change():
    fake = FakeAuthority()
    old = guard(fake)
    with fake.outage():
        take_over(engine_of(guard(fake, implies={"a": ["b"]})), engine_of(old))


def test_key_file_is_read_again(tmp_path: Path):
    fake, other = FakeAuthority(), FakeAuthority()
    path = tmp_path / "jwks.json"
    issuer = Issuer(fake.url, audience=fake.audience, jwks_file=str(path))
    path.write_text(json.dumps(fake.authority.keys.key_set(fake.clock.wall())))
    old = guard(fake, issuer)
    token = fake.mint("read")
    assert isinstance(check(old, token), Granted)
    path.write_text(json.dumps(other.authority.keys.key_set(other.clock.wall())))
    new = guard(fake, issuer)
    take_over(engine_of(new), engine_of(old))
    assert isinstance(check(new, token), Denied)


def test_revocations_are_kept():
    fake = FakeAuthority()
    token, of_others = fake.mint("read", subject="gone"), fake.mint("read", subject="here")
    old = guard(fake)
    old.revoke(subject="gone")
    new = guard(fake)
    take_over(engine_of(new), engine_of(old))
    assert isinstance(check(new, token), Denied)
    assert isinstance(check(new, of_others), Granted)


class Away:
    """A store that does not answer."""

    def __init__(self) -> None:
        self.is_away = True

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        if self.is_away:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "store")
        return after, ()

    def get(self, key: str, /) -> bytes | None:
        return None

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        pass

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


def test_unreadable_shared_log_delays_the_change():
    fake = FakeAuthority()
    old = guard(fake)
    old.warm()
    store = Away()
    new = guard(fake, store=store)
    with pytest.raises(AuthorityUnavailable):
        take_over(engine_of(new), engine_of(old))
    store.is_away = False
    fake.clock.advance(60)
    take_over(engine_of(new), engine_of(old))
    assert isinstance(check(new, fake.mint("read")), Granted)
