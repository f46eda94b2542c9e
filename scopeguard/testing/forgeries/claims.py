"""Genuine signatures over invalid claims: times, audiences, issuers, scopes and types."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from scopeguard.testing.forgeries.token_parts import ATTACKER, Corpus, Forge

_WRONG_DATES: Final[tuple[tuple[str, Any], ...]] = (
    ("string", "4102444800"),
    ("true", True),
    ("null", None),
    ("list", [4102444800]),
    ("object", {"seconds": 4102444800}),
)
_NOT_STRINGS: Final[tuple[tuple[str, Any], ...]] = (("number", 7), ("list", ["alice"]), ("object", {}), ("null", None))


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    _missing(forge, corpus)
    _dates(forge, corpus)
    _overflowing_dates(forge, corpus)
    _audiences(forge, corpus)
    _issuers(forge, corpus)
    _strings(forge, corpus)
    _scopes(forge, corpus)
    _sender_constrained(forge, corpus)


def _claims(forge: Forge, corpus: Corpus, name: str, why: str, *rules: str, **overrides: Any) -> None:
    corpus.bad(f"claim-{name}", forge.sign(claims=forge.claims(**overrides)), why, *rules)


def _missing(forge: Forge, corpus: Corpus) -> None:
    for name in ("iss", "exp", "aud", "sub", "client_id", "iat", "jti"):
        rules = ("P-09", "X-36") if name == "exp" else ("P-09", "P-06") if name == "aud" else ("P-09",)
        corpus.bad(
            f"claim-{name}-missing",
            forge.sign(claims=forge.claims(name)),
            f"RFC 9068 section 2.2 requires {name}; without it, a check of {name} must not be skipped",
            *rules,
        )
    corpus.bad("claim-all-missing", forge.sign(claims={}), "there are no claims", "P-09")


def _dates(forge: Forge, corpus: Corpus) -> None:
    now, leeway = forge.now, forge.leeway
    _claims(forge, corpus, "exp-past", "expired an hour ago", "J-52", "P-08", exp=now - 3600)
    _claims(
        forge,
        corpus,
        "exp-at-leeway",
        "expired, and the leeway has just ended",
        *("J-52", "J-53", "P-08", "X-35"),
        exp=now - leeway,
    )
    _claims(forge, corpus, "exp-zero", "zero is a time in 1970 and must not count as absent", "J-52", "X-34", exp=0)
    _claims(forge, corpus, "exp-negative", "a time before 1970 is past", "J-58", "X-34", exp=-1)
    _claims(forge, corpus, "exp-fraction-past", "a time may have a fraction", "J-56", exp=now - leeway - 0.5)
    _claims(forge, corpus, "nbf-future", "not valid yet", "J-54", nbf=now + leeway + 1)
    _claims(forge, corpus, "nbf-far-future", "not valid before the distant future", "J-54", "J-58", "X-34", nbf=10**30)
    _claims(forge, corpus, "iat-future", "issued an hour in the future", "J-55", iat=now + 3600)
    _claims(forge, corpus, "iat-far-future", "issued in the distant future", "J-55", "J-58", "X-34", iat=10**30)
    for kind, value in (("integer", 10**30), ("float", 1e308)):
        _claims(
            forge,
            corpus,
            f"exp-huge-{kind}",
            "too large for a time: computing with it overflows or loses digits",
            *("J-58", "X-34"),
            exp=value,
        )
    for claim in ("exp", "nbf", "iat"):
        for kind, value in _WRONG_DATES:
            _claims(
                forge, corpus, f"{claim}-{kind}", f"{claim} must be a JSON number (RFC 7519 section 2)", "J-56", "X-34",
                **{claim: value},
            )  # fmt: skip


def _overflowing_dates(forge: Forge, corpus: Corpus) -> None:
    for claim in ("exp", "nbf", "iat"):
        for kind, text in (("nan", "NaN"), ("infinity", "Infinity"), ("minus-infinity", "-Infinity")):
            corpus.bad(
                f"claim-{claim}-{kind}",
                forge.sign(claims=forge.raw_claims(**{claim: text})),
                "not JSON (RFC 8259 section 6), and its comparisons with times are meaningless",
                "J-57", "X-34",
            )  # fmt: skip
        for kind, text in (("1e400", "1e400"), ("minus-1e400", "-1e400")):
            corpus.bad(
                f"claim-{claim}-{kind}",
                forge.sign(claims=forge.raw_claims(**{claim: text})),
                "a number that overflows to infinity: the token never expires, or int() raises",
                "J-57", "X-27", "X-34",
            )  # fmt: skip
    corpus.bad(
        "claim-exp-5000-digits",
        forge.sign(claims=forge.raw_claims(exp="9" * 5000)),
        "more digits than Python converts: int() raises ValueError",
        "J-58", "X-27",
    )  # fmt: skip
    corpus.bad(
        "claim-unknown-1e400",
        forge.sign(claims=forge.raw_claims(extra='{"a":[1e400]}')),
        "an infinity in an unknown claim, which an app cannot write as JSON again",
        "J-57", "X-27",
    )  # fmt: skip


def _audiences(forge: Forge, corpus: Corpus) -> None:
    audience = forge.authority.audience
    host = urlsplit(audience).netloc or audience
    near: tuple[tuple[str, str], ...] = (
        ("other", "https://other-api.test"),
        ("wildcard", "*"),
        ("wildcard-path", f"{audience}/*"),
        ("trailing-slash", audience[:-1] if audience.endswith("/") else f"{audience}/"),
        ("dot-segments", f"{audience}/x/.."),
        ("query", f"{audience}?"),
        ("fragment", f"{audience}#"),
        ("upper-case", audience.upper()),
        ("longer-host", audience.replace(host, f"{host}.attacker.test")),
        ("prefix", audience[:-1]),
        ("userinfo", audience.replace(host, f"x@{host}")),
        ("port", audience.replace(host, f"{host}:443")),
        ("space", f"{audience} "),
        ("nul", f"{audience}\x00"),
        ("list-in-a-string", f'["{audience}"]'),
        ("joined", f"https://other-api.test {audience}"),
        ("the-issuer", forge.authority.url),
        ("the-client", "client"),
    )
    for name, value in near:
        if value == audience:
            continue
        _claims(
            forge,
            corpus,
            f"aud-{name}",
            "for another API; audiences must match exactly",
            *("P-06", "J-59", "X-38", "X-50"),
            aud=value,
        )
    shapes: tuple[tuple[str, Any], ...] = (
        ("empty-list", []),
        ("empty-string", ""),
        ("null", None),
        ("object", {audience: True}),
        ("number", 7),
        ("true", True),
        ("list-with-number", [audience, 1]),
        ("list-with-null", [None, audience]),
        ("list-in-list", [[audience]]),
        ("list-of-empty", [""]),
    )
    for name, value in shapes:
        _claims(forge, corpus, f"aud-{name}", "aud must be a string or a list of strings", "J-60", aud=value)
    _claims(forge, corpus, "aud-list-of-others", "this API is not among the audiences", "J-59", "P-06", aud=["a", "b"])


def _issuers(forge: Forge, corpus: Corpus) -> None:
    url = forge.authority.url
    host = urlsplit(url).netloc
    near: tuple[tuple[str, Any], ...] = (
        ("attacker", ATTACKER),
        ("trailing-slash", url[:-1] if url.endswith("/") else f"{url}/"),
        ("host-case", url.replace(host, host.upper())),
        ("scheme-case", url.replace("https:", "HTTPS:").replace("http:", "HTTP:")),
        ("default-port", url.replace(host, f"{host}:443")),
        ("http", url.replace("https:", "http:") if url.startswith("https:") else url.replace("http:", "https:")),
        ("prefix", url[:-1]),
        ("longer-host", url.replace(host, f"{host}.attacker.test")),
        ("userinfo", url.replace(host, f"{host}@attacker.test")),
        ("punycode", url.replace(host, f"xn--{host}-9za")),
        ("homograph", url.replace("a", "\u0430")),
        ("percent-encoded", url.replace(host, "%61" + host[1:])),
        ("nul", f"{url}\x00"),
        ("line-end", f"{url}\n"),
        ("space", f" {url}"),
        ("query", f"{url}?"),
        ("empty", ""),
        ("list", [url]),
        ("object", {url: True}),
        ("null", None),
        ("number", 7),
    )
    for name, value in near:
        if value != url:
            _claims(
                forge,
                corpus,
                f"iss-{name}",
                "another issuer; issuers must match exactly (RFC 9068 section 4)",
                *("P-05", "P-18", "X-39"),
                iss=value,
            )


def _strings(forge: Forge, corpus: Corpus) -> None:
    for claim in ("sub", "jti", "client_id"):
        for kind, value in _NOT_STRINGS:
            _claims(
                forge,
                corpus,
                f"{claim}-{kind}",
                f"{claim} must be a string (RFC 7519 section 4.1, RFC 9068 section 2.2)",
                "J-62",
                **{claim: value},
            )
    for claim in ("sub", "client_id", "scope"):
        corpus.bad(
            f"claim-{claim}-surrogate",
            forge.sign(claims=forge.raw_claims(**{claim: '"a\\ud800b"'})),
            "a lone surrogate: JSON parsers accept it, but it cannot be encoded as UTF-8",
            "X-21",
        )


def _scopes(forge: Forge, corpus: Corpus) -> None:
    shapes: tuple[tuple[str, Any], ...] = (
        ("number", 7),
        ("object", {"read": True}),
        ("null", None),
        ("true", True),
        ("list-with-number", ["read", 7]),
    )
    for name, value in shapes:
        _claims(forge, corpus, f"scope-{name}", "scope must be a string (RFC 8693 section 4.2)", "G-10", scope=value)
    _claims(
        forge,
        corpus,
        "scope-list",
        "scope may be a list only if the issuer is configured for it",
        "G-08",
        scope=["read", "write"],
    )
    for name, value in (("number", 7), ("list-with-number", ["read", 7])):
        token = forge.sign(claims=forge.claims("scope", scp=value))
        corpus.bad(f"claim-scp-{name}", token, "scp must be a string or a list of strings", "G-10")


def _sender_constrained(forge: Forge, corpus: Corpus) -> None:
    shapes: tuple[tuple[str, Any], ...] = (
        ("jkt", {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        ("x5t", {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}),
        ("both", {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", "x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64Sqzm"}),
        ("unknown-method", {"kid": "x"}),
        ("empty", {}),
        ("list", []),
        ("string", "x"),
        ("null", None),
    )
    for name, value in shapes:
        _claims(
            forge,
            corpus,
            f"cnf-{name}",
            "bound to a key whose possession the request does not prove, so it may be stolen",
            "X-53",
            cnf=value,
        )
