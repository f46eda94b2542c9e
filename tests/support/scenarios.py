"""The responses of an API behind scopeguard: one table for every adapter, runtime and server.

The API has these routes; every granted request is answered with what the app saw, as JSON.

==================  ===========================================================================
``/both``           needs ``read`` and ``write``
``/any``            needs ``admin``, or ``read`` and ``write``
``/gold``           needs ``read``, and a sign-in of class ``gold`` within five minutes
``/none``           needs a valid token and no scope
``/query``          the same, and takes the token from the query string as well
``/form``           the same, and takes it from a form as well
``/both-places``    the same, from header, query and form
``/public``         needs nothing
``/optional``       takes an anonymous caller, and no bad token
==================  ===========================================================================

Everything else is unknown to the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scopeguard.testing import FakeAuthority

Headers = tuple[tuple[bytes, bytes], ...]
FORM = (b"content-type", b"application/x-www-form-urlencoded")
REALM = 'table \\ "of" scenarios'


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request. ``{T}`` and its like in target, header values and body stand for the tokens of :func:`tokens`.
    *scheme*: ``http`` is cleartext, from another machine."""

    method: str = "GET"
    target: str = "/both"
    headers: Headers = ()
    body: bytes = b""
    scheme: str = "https"

    def fill(self, tokens: Mapping[str, str]) -> Exchange:
        """The exchange with real tokens in it."""
        target, body, headers = self.target, self.body, self.headers
        for name, token in tokens.items():
            place = "{" + name + "}"
            target = target.replace(place, token)
            body = body.replace(place.encode(), token.encode())
            headers = tuple((k, v.replace(place.encode(), token.encode())) for k, v in headers)
        return replace(self, target=target, headers=headers, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A response, as any door hands it out; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of header *name*."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def json(self) -> dict[str, object]:
        """The body."""
        value: dict[str, object] = json.loads(self.body)
        return value


@dataclass(frozen=True, slots=True)
class Scenario:
    """*send* and what must come of it: a code of the checklist, and for a granted request what the app saw."""

    name: str
    send: Exchange
    expects: str
    saw: Mapping[str, object] = field(default_factory=dict)
    scope: str | None = None


def bearer(token: str = "{T}", target: str = "/both", method: str = "GET", **more: Any) -> Exchange:
    return Exchange(method=method, target=target, headers=((b"authorization", f"Bearer {token}".encode()),), **more)


def header(value: bytes, target: str = "/both", *more: tuple[bytes, bytes]) -> Exchange:
    return Exchange(target=target, headers=((b"authorization", value), *more))


def form(body: bytes, target: str = "/form", *more: tuple[bytes, bytes], kind: bytes = FORM[1]) -> Exchange:
    return Exchange(method="POST", target=target, headers=((b"content-type", kind), *more), body=body)


AUTHORIZED = (b"authorization", b"Bearer {T}")

SCENARIOS: tuple[Scenario, ...] = (
    # the header
    Scenario("a valid token", bearer(), "PASS", {"client": "client", "scopes": ["read", "write"]}),
    Scenario("scheme in lower case", header(b"bearer {T}"), "PASS"),
    Scenario("scheme in mixed case", header(b"bEaReR {T}"), "PASS"),
    Scenario("several spaces", header(b"Bearer   {T}"), "PASS"),
    Scenario("a tab behind the scheme", header(b"Bearer\t{T}"), "IR"),
    Scenario("two words", header(b"Bearer {T} {T}"), "IR"),
    Scenario("a quoted token", header(b'Bearer "{T}"'), "IR"),
    Scenario("an auth-param", header(b'Bearer token="{T}"'), "IR"),
    Scenario("padding inside", header(b"Bearer a=b"), "IR"),
    Scenario("a colon", header(b"Bearer a:b"), "IR"),
    Scenario("percent escapes", header(b"Bearer a%2Eb%2Ec"), "IR"),
    Scenario("no token behind the scheme", header(b"Bearer"), "IR"),
    Scenario("another scheme", header(b"Basic dTpw"), "E401"),
    Scenario("a scheme that begins like ours", header(b"Bearerabc"), "E401"),
    Scenario("a longer scheme", header(b"BearerX {T}"), "E401"),
    Scenario("no credentials", Exchange(), "E401", scope="read write"),
    Scenario("proxy credentials", Exchange(headers=((b"proxy-authorization", b"Bearer {T}"),)), "E401"),
    Scenario("a cookie", Exchange(headers=((b"cookie", b"access_token={T}"),)), "E401"),
    Scenario("a forwarded header", Exchange(headers=((b"x-forwarded-authorization", b"Bearer {T}"),)), "E401"),
    Scenario("an original URL", Exchange(headers=((b"x-original-url", b"/public"),)), "E401"),
    Scenario("a method override", bearer("{READ}", method="POST", body=b"x"), "IS", scope="read write"),
    Scenario(
        "an overriding header",
        Exchange(method="POST", headers=((b"x-http-method-override", b"GET"),), body=b"x"),
        "E401",
    ),
    Scenario("two equal headers", Exchange(headers=(AUTHORIZED, AUTHORIZED)), "IR"),
    Scenario("two different headers", Exchange(headers=(AUTHORIZED, (b"authorization", b"Bearer {READ}"))), "IR"),
    Scenario("Basic before Bearer", Exchange(headers=((b"authorization", b"Basic dTpw"), AUTHORIZED)), "IR"),
    Scenario("joined by a comma", header(b"Bearer {T}, Bearer {T}"), "IR"),
    Scenario("a token of 17 KB", header(b"Bearer " + b"a" * 17_000), "IR"),
    Scenario("an opaque word", header(b"Bearer abc=="), "IT"),
    # the token
    Scenario("an expired token", bearer("{EXPIRED}"), "IT"),
    Scenario("an expired token without the scope", bearer("{EXPIRED_READ}"), "IT"),
    Scenario("another audience", bearer("{OTHER_AUDIENCE}"), "IT"),
    Scenario("another issuer", bearer("{OTHER_ISSUER}"), "IT"),
    Scenario("another key", bearer("{OTHER_KEY}"), "IT"),
    Scenario("no signature", bearer("{UNSIGNED}"), "IT"),
    Scenario("a bound token", bearer("{BOUND}"), "IT"),
    # scopes
    Scenario("a scope missing", bearer("{READ}"), "IS", scope="read write"),
    Scenario("no scope claim", bearer("{NO_SCOPE}"), "IS", scope="read write"),
    Scenario("scopes in other case", bearer("{CASE}"), "IS", scope="read write"),
    Scenario("scopes that begin alike", bearer("{ALIKE}"), "IS", scope="read write"),
    Scenario("one alternative of two", bearer("{ADMIN}", "/any"), "PASS"),
    Scenario("the other alternative", bearer("{T}", "/any"), "PASS"),
    Scenario("neither alternative", bearer("{READ}", "/any"), "IS", scope="admin"),
    Scenario("no scope needed", bearer("{NO_SCOPE}", "/none"), "PASS"),
    # the sign-in of the user (RFC 9470)
    Scenario("a strong and recent sign-in", bearer("{GOLD}", "/gold"), "PASS"),
    Scenario("a weak sign-in", bearer("{READ}", "/gold"), "SU"),
    Scenario("a sign-in too long ago", bearer("{STALE}", "/gold"), "SU"),
    Scenario("a weak sign-in and a scope missing", bearer("{ADMIN}", "/gold"), "SU", scope="read"),
    Scenario("a strong sign-in and a scope missing", bearer("{GOLD_ADMIN}", "/gold"), "IS", scope="read"),
    Scenario("an expired token where a sign-in is needed", bearer("{EXPIRED}", "/gold"), "IT"),
    # HEAD, other methods, other paths
    Scenario("HEAD without a token", Exchange(method="HEAD"), "E401"),
    Scenario("HEAD without the scope", bearer("{READ}", method="HEAD"), "IS", scope="read write"),
    Scenario("an unknown path without a token", Exchange(target="/nowhere"), "E401"),
    Scenario("an unknown method without a token", Exchange(method="DELETE"), "E401"),
    Scenario("OPTIONS without a token", Exchange(method="OPTIONS"), "E401"),
    Scenario("the public path", Exchange(target="/public"), "PASS", {"client": None}),
    Scenario("the public path with a bad token", bearer("{EXPIRED}", "/public"), "PASS", {"client": None}),
    Scenario("behind the public path", Exchange(target="/publicity"), "E401"),
    Scenario("below the public path", Exchange(target="/public/x"), "E401"),
    Scenario("dots out of the public path", Exchange(target="/public/../both"), "E401"),
    Scenario("optional, nothing sent", Exchange(target="/optional"), "PASS", {"client": None}),
    Scenario("optional, a valid token", bearer("{T}", "/optional"), "PASS", {"client": "client"}),
    Scenario("optional, an expired token", bearer("{EXPIRED}", "/optional"), "IT"),
    Scenario("optional, a malformed header", header(b"Bearer", "/optional"), "IR"),
    Scenario("optional, another scheme", header(b"Basic dTpw", "/optional"), "E401"),
    Scenario("optional, a bound token", bearer("{BOUND}", "/optional"), "IT"),
    # the query
    Scenario("query off, token there", Exchange(target="/none?access_token={T}"), "E401"),
    Scenario("query off, another in the header", bearer("{T}", "/none?access_token=zzz"), "PASS"),
    Scenario("query", Exchange(target="/query?a=1&access_token={T}&b=2"), "PASS", {"query": "a=1&b=2"}),
    Scenario("query alone", Exchange(target="/query?access_token={T}"), "PASS", {"query": ""}),
    Scenario("query, name escaped", Exchange(target="/query?access%5Ftoken={T}&b=2"), "PASS", {"query": "b=2"}),
    Scenario("query, expired", Exchange(target="/query?access_token={EXPIRED}"), "IT"),
    Scenario("query and header", bearer("{T}", "/query?access_token={T}"), "IR"),
    Scenario("query, repeated", Exchange(target="/query?access_token={T}&access_token={T}"), "IR"),
    Scenario("query, empty", Exchange(target="/query?access_token="), "IR"),
    Scenario("query, empty, and header", bearer("{T}", "/query?access_token="), "IR"),
    Scenario("query, other case", Exchange(target="/query?Access_Token={T}"), "E401"),
    Scenario("query, semicolon", Exchange(target="/query?x=1;access_token={T}"), "E401"),
    Scenario("query, plus is a space", Exchange(target="/query?access_token=a+b"), "IR"),
    Scenario("query, bound token", Exchange(target="/query?access_token={BOUND}"), "IT"),
    Scenario("query, 1200 parameters", Exchange(target="/query?" + "&".join(f"p{i}=" for i in range(1200))), "IR"),
    # the form
    Scenario("form", form(b"a=1&access_token={T}"), "PASS", {"client": "client", "body": "a=1&access_token={T}"}),
    Scenario("form off", form(b"access_token={T}", "/none"), "E401"),
    Scenario(
        "form off, body untouched", form(b"access_token=zzz", "/none", AUTHORIZED), "PASS", {"body": "access_token=zzz"}
    ),
    Scenario(
        "form, media type", form(b"access_token={T}", kind=b"Application/X-WWW-Form-Urlencoded; charset=UTF-8"), "PASS"
    ),
    Scenario("form, GET", Exchange(target="/form", headers=(FORM,), body=b"access_token={T}"), "E401"),
    Scenario("form, JSON", form(b'{"access_token": "{T}"}', kind=b"application/json"), "E401"),
    Scenario("form, multipart", form(b"access_token={T}", kind=b"multipart/form-data; boundary=x"), "E401"),
    Scenario("form, not ASCII", form(b"access_token={T}&a=\xe9"), "IR"),
    Scenario("form, repeated", form(b"access_token={T}&access_token={T}"), "IR"),
    Scenario("form, empty", form(b"access_token="), "IR"),
    Scenario("form and header", form(b"access_token={T}", "/form", AUTHORIZED), "IR"),
    Scenario("form, header instead", form(b"a=1", "/form", AUTHORIZED), "PASS", {"body": "a=1"}),
    Scenario("form and query", form(b"access_token={T}", "/both-places?access_token={T}"), "IR"),
    Scenario("form, escaped", form(b"access_token=a%2Bb"), "IT"),
    Scenario("form, plus is a space", form(b"access_token=a+b"), "IR"),
    Scenario("form, 65 KB", form(b"a=" + b"x" * 66_000), "413"),
    Scenario("form, expired", form(b"access_token={EXPIRED}"), "IT"),
)


def tokens(authority: FakeAuthority) -> dict[str, str]:
    """The tokens that scenarios name."""
    stranger = FakeAuthority("https://other.test", authority.audience, clock=authority.clock)
    good = authority.mint("read write")
    now = int(authority.clock.wall())
    return {
        "T": good,
        "READ": authority.mint("read"),
        "ADMIN": authority.mint("admin"),
        "GOLD": authority.mint("read", claims={"acr": "gold", "auth_time": now - 200}),
        "GOLD_ADMIN": authority.mint("admin", claims={"acr": "gold", "auth_time": now - 200}),
        "STALE": authority.mint("read", claims={"acr": "gold", "auth_time": now - 400}),
        "NO_SCOPE": authority.mint(),
        "CASE": authority.mint("Read Write"),
        "ALIKE": authority.mint("read:all readonly write"),
        "EXPIRED": authority.mint("read write", expires_in=-3600, claims={"iat": int(authority.clock.wall()) - 7200}),
        "EXPIRED_READ": authority.mint("read", expires_in=-3600),
        "OTHER_AUDIENCE": authority.mint("read write", audience="https://other-api.test"),
        "OTHER_ISSUER": stranger.mint("read write"),
        "OTHER_KEY": authority.mint("read write", key=stranger.key()),
        "UNSIGNED": good.rpartition(".")[0] + ".",
        "BOUND": authority.mint("read write", claims={"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}),
    }


def _fill(text: str, filled: Mapping[str, str]) -> str:
    for place, token in filled.items():
        text = text.replace("{" + place + "}", token)
    return text


def verify(
    scenario: Scenario, answer: Answered, filled: Mapping[str, str], *, knows_route: bool = True, saw: bool = True
) -> None:
    """Assert that *answer* is what the checklist means by the code that *scenario* expects.

    *knows_route*: the door knows the scopes of the route even where nothing was sent. *saw*: there is an app behind it.
    """
    code = scenario.expects
    for token in filled.values():
        if code != "PASS":
            assert token.encode() not in answer.body
        assert not any(token in value for _, value in answer.headers)
    if code == "PASS":
        assert answer.status == 200, answer
        if not saw:
            return
        for name, wanted in scenario.saw.items():
            assert answer.json[name] == (_fill(wanted, filled) if isinstance(wanted, str) else wanted)
        if "access_token=" in scenario.send.target and scenario.send.target.startswith("/query"):
            assert "private" in answer.all("cache-control")[0]
            assert answer.all("referrer-policy") == ["no-referrer"]
        if scenario.send.target == "/optional":
            assert any("authorization" in value.lower() for value in answer.all("vary"))
        return
    statuses = {"E401": 401, "SU": 401, "IT": 401, "IR": 400, "IS": 403, "413": 413}
    errors = {
        "SU": "insufficient_user_authentication",
        "IT": "invalid_token",
        "IR": "invalid_request",
        "IS": "insufficient_scope",
        "413": "invalid_request",
    }
    assert answer.status == statuses[code], answer
    assert answer.all("cache-control") == ["no-store"]
    (challenge,) = answer.all("www-authenticate")
    assert challenge.startswith('Bearer realm="table \\\\ \\"of\\" scenarios"')
    if code == "E401":
        assert "error" not in challenge
    else:
        assert f'error="{errors[code]}"' in challenge
    assert ('acr_values="gold", max_age="300"' in challenge) is (code == "SU")
    if code == "SU" and scenario.scope is None:
        assert "scope=" not in challenge
    if scenario.scope is not None and (knows_route or code in ("IS", "SU")):
        assert f'scope="{scenario.scope}"' in challenge
    if scenario.send.method == "HEAD":
        assert answer.body == b""
    else:
        assert answer.all("content-type") == ["application/problem+json"]
        assert answer.json["status"] == answer.status
        assert answer.json.get("error") == errors.get(code)
