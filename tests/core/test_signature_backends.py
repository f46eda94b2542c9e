"""The signature backend of a guard: used for keys of each source; failures are outages."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from forked import Child
from providers import pem
from scopeguard import (
    ConfigurationError,
    Denied,
    Granted,
    Guard,
    Issuer,
    IssuerResolver,
    Reason,
    TokenCachePolicy,
    Unavailable,
)
from scopeguard.config.file import read_settings
from scopeguard.core.signature_backends import Awscrt, PyNaCl, load_backends
from scopeguard.core.starting import take_over
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.spec.signatures import PublicKey, Verifier, prepare_verifier
from scopeguard.testing import FakeAuthority


class Backend:
    """A backend that verifies with ``cryptography`` and counts calls, or returns or raises a configured value."""

    name = "counting"

    def __init__(self, says: Any = None) -> None:
        self.says = says
        self.algorithms: list[str] = []
        self.calls = 0

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        self.algorithms.append(algorithm)
        verifier = prepare_verifier(algorithm, public_key)

        def verify(signed: bytes, signature: bytes) -> bool:
            self.calls += 1
            if isinstance(self.says, Exception):
                raise self.says
            verdict: bool = verifier(signed, signature) if self.says is None else self.says
            return verdict

        return verify


@pytest.fixture
def fake() -> FakeAuthority:
    return FakeAuthority()


def guard_of(fake: FakeAuthority, *backends: Any, issuer: Issuer | None = None, **settings: Any) -> Guard:
    settings = {"transport": fake.transport, "clock": fake.clock, "token_cache": "off", **settings}
    return Guard(*([] if "resolver" in settings else [issuer or fake.issuer]), signature_backends=backends, **settings)


def check(guard: Guard, token: str) -> Decision:
    headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
    return guard.check(RequestView(method="GET", path="/", headers=headers))


def reason(decision: Decision) -> Reason:
    assert isinstance(decision, Denied | Unavailable), decision
    return decision.error.reason


def replace_signature(token: str) -> str:
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


# --- use of the backend ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["fetched", "configured", "file", "resolver"])
def test_backend_of_a_guard_verifies_keys_of_each_source(fake: FakeAuthority, tmp_path: Path, source: str):
    backend = Backend()
    keys = json.loads(json.dumps(fake.authority.keys.key_set(fake.clock.wall())))
    settings: dict[str, Any] = {}
    issuer = fake.issuer
    match source:
        case "configured":
            issuer = Issuer(fake.url, audience=fake.audience, keys=keys)
        case "file":
            (tmp_path / "keys.json").write_text(json.dumps(keys))
            issuer = Issuer(fake.url, audience=fake.audience, jwks_file=str(tmp_path / "keys.json"))
        case "resolver":
            settings["resolver"] = IssuerResolver(accepts=lambda name: True, resolve=lambda name: fake.issuer)
    guard, token = guard_of(fake, backend, issuer=issuer, **settings), fake.mint("read")
    assert isinstance(check(guard, token), Granted)
    assert isinstance(check(guard, fake.mint("write")), Granted)
    assert (backend.algorithms, backend.calls) == (["ES256"], 2)
    assert reason(check(guard, replace_signature(token))) is Reason.BAD_SIGNATURE
    assert backend.calls >= 3
    guard.close()


def test_backend_verifies_keys_published_one_by_one(fake: FakeAuthority):
    kid = "a2b4c6d8-0000-4000-8000-000000000000"

    class Keys:
        def send(self, request: Send, /) -> Answer:
            assert request.url == f"https://keys.test/{kid}"
            return Answer(200, pem(fake.key().private_key.public_key()))

        def close(self) -> None:
            pass

    backend = Backend()
    issuer = Issuer(fake.url, audience=fake.audience, key_url_template="https://keys.test/{kid}")
    guard = guard_of(fake, backend, issuer=issuer, transport=Keys())
    assert isinstance(check(guard, fake.mint("read", headers={"kid": kid})), Granted)
    assert backend.calls == 1


def test_security_event_endpoint_uses_the_backends_of_its_guard(fake: FakeAuthority):
    backend = Backend()
    assert engine_of(guard_of(fake, backend)).add_key_source(fake.issuer).backends == (backend,)


def test_signature_that_the_backend_refuses_is_refused(fake: FakeAuthority):
    decision = check(guard_of(fake, Backend(says=False)), fake.mint("read"))
    assert isinstance(decision, Denied)
    assert reason(decision) is Reason.BAD_SIGNATURE


def test_signature_of_another_length_is_refused_for_any_backend(fake: FakeAuthority):
    backend, token = Backend(says=True), fake.mint("read")
    guard = guard_of(fake, backend)
    signed, _, signature = token.rpartition(".")
    for wrong in (signature[:-6], signature[:-2], f"{signature[:-1]}AAA", "AAAA"):
        assert reason(check(guard, f"{signed}.{wrong}")) is Reason.BAD_SIGNATURE
    assert backend.calls == 0


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [RuntimeError("sg-secret-text"), "yes", 1])
@pytest.mark.parametrize("cached", [False, True])
def test_failing_backend_is_a_logged_outage(
    fake: FakeAuthority, caplog: pytest.LogCaptureFixture, says: object, cached: bool
):
    backend = Backend(says)
    guard = guard_of(fake, backend, token_cache=TokenCachePolicy() if cached else "off")
    token = fake.mint("read")
    with caplog.at_level(logging.WARNING, "scopeguard"):
        for text in (token, token, replace_signature(token)):
            decision = check(guard, text)
            assert isinstance(decision, Unavailable)
            assert decision.response.status == 503
            assert reason(decision) is Reason.SIGNATURE_BACKEND_FAILED
            assert "signature_backends: counting" in str(decision.error)
    assert caplog.text.count("not judged") == 3
    assert "sg-secret-text" not in caplog.text
    assert token not in caplog.text
    backend.says = None  # The failure is not cached.
    assert isinstance(check(guard, token), Granted)
    assert reason(check(guard, replace_signature(token))) is Reason.BAD_SIGNATURE


def test_backend_failure_causes_no_key_fetch(fake: FakeAuthority):
    guard = guard_of(fake, Backend(RuntimeError()))
    guard.warm()
    for _ in range(20):
        assert isinstance(check(guard, fake.mint("read")), Unavailable)
    assert fake.transport.count("jwks") == 1


# --- libraries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "ES512"])
def test_decisions_are_the_same_with_each_library(algorithm: str):
    fake = FakeAuthority(algorithm=algorithm)
    issuer = Issuer(fake.url, audience=fake.audience, algorithms=(algorithm,))
    guard, token = guard_of(fake, "awscrt", "pynacl", issuer=issuer), fake.mint("read")
    assert isinstance(check(guard, token), Granted)
    assert reason(check(guard, replace_signature(token))) is Reason.BAD_SIGNATURE


def test_child_process_verifies_with_the_libraries_of_its_parent():
    fake = FakeAuthority(algorithm="ES256")
    guard, token = guard_of(fake, "awscrt", "pynacl"), fake.mint("read")
    assert isinstance(check(guard, token), Granted)

    def judge() -> None:
        assert isinstance(check(guard, token), Granted)
        assert reason(check(guard, replace_signature(token))) is Reason.BAD_SIGNATURE

    assert Child(judge).ok()


def test_backend_name_gives_one_object_and_an_object_is_kept():
    backend = Backend()
    awscrt, pynacl, own = load_backends(["awscrt", "pynacl", backend])
    assert isinstance(awscrt, Awscrt)
    assert isinstance(pynacl, PyNaCl)
    assert own is backend
    assert load_backends(iter(["pynacl", "awscrt"])) == (pynacl, awscrt)


def test_backends_can_be_named_in_the_configuration_file(tmp_path: Path):
    path = tmp_path / "api.toml"
    text = '[[issuers]]\nurl = "https://as.test"\naudience = "https://api.test"\n'
    path.write_text('signature_backends = ["pynacl"]\n' + text)
    issuers, arguments = read_settings(path)
    assert arguments["signature_backends"] == load_backends(["pynacl"])
    Guard(*issuers, **arguments)
    path.write_text('signature_backends = ["openssl"]\n' + text)
    with pytest.raises(ConfigurationError, match=r"api.toml: top level: signature_backends: must be one of awscrt, "):
        read_settings(path)
    path.write_text("signature_backends = true\n" + text)
    with pytest.raises(ConfigurationError, match=r"signature_backends: must be a list of strings, not true"):
        read_settings(path)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("awscrt", r"""must be a list, as in \["awscrt"\], not str"""),
        (["OpenSSL"], "must be one of awscrt, pynacl, not 'OpenSSL'"),
        ([""], "must be one of awscrt, pynacl, not ''"),
        ([object()], "an object with name and prepare is needed, not object"),
        ([None], "an object with name and prepare is needed, not NoneType"),
        ([Backend], "an object with name and prepare is needed, not type"),
    ],
)
def test_invalid_backend_is_refused_at_construction(fake: FakeAuthority, wrong: Any, message: str):
    with pytest.raises(ConfigurationError, match=f"^signature_backends: {message}$"):
        Guard(fake.issuer, signature_backends=wrong)


@pytest.mark.parametrize("name, module", [("awscrt", "awscrt.crypto"), ("pynacl", "nacl.bindings")])
def test_missing_library_is_an_error_at_construction(
    fake: FakeAuthority, monkeypatch: pytest.MonkeyPatch, name: str, module: str
):
    load_backends.__globals__["_load_backend"].cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"{name} is not installed; pip install .scopeguard-oauth2\[fast\]"):
        Guard(fake.issuer, signature_backends=[name])


# --- take-over by a new guard ----------------------------------------------------------------------------------------


def test_a_guard_with_other_backends_takes_over_no_keys(fake: FakeAuthority):
    failing, token = Backend(RuntimeError()), fake.mint("read")
    old = guard_of(fake, failing)
    assert isinstance(check(old, token), Unavailable)
    new = guard_of(fake)
    take_over(engine_of(new), engine_of(old))
    assert isinstance(check(new, token), Granted)
    with fake.outage(), pytest.raises(AuthorityUnavailable):
        take_over(engine_of(guard_of(fake)), engine_of(old))


def test_a_guard_with_equal_backends_takes_over_keys(fake: FakeAuthority):
    old, token = guard_of(fake, "awscrt"), fake.mint("read")
    assert isinstance(check(old, token), Granted)
    with fake.outage():
        new = guard_of(fake, "awscrt")
        take_over(engine_of(new), engine_of(old))
        assert isinstance(check(new, token), Granted)
