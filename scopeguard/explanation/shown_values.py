"""The texts of an explanation: what was found in a token, and what the configuration demands.

Only the claims that a check reads are shown, escaped and cut, because a stranger may have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from scopeguard.config.issuer import AudienceOptOut
from scopeguard.explanation.probes import DATES, Content
from scopeguard.log_values import printable
from scopeguard.spec.jwt import RFC9068_CLAIMS
from scopeguard.spec.sender_constraint import accepts_proofs

_MOST_OF_A_VALUE: Final = 120
_MOST_CHARACTERS: Final = 400
_MOST_LISTED: Final = 6
_ABSENT: Final = "absent"
_PARAMETERS: Final = ("crit", "b64", "zip", "cty", "kid")
_KINDS: Final = ("token_type", "token_use", "typ", "type", "tokenName", "purpose", "nonce", "at_hash", "events")


def show(value: object) -> str:
    """Return *value*, which may come from a token, as a short line of printable characters."""
    return printable(value, _MOST_OF_A_VALUE)


def list_values(values: Iterable[object], between: str = ", ") -> str:
    """Return *values* in one line, without the end of a long list."""
    texts = [show(value) for value in values]
    more = len(texts) - _MOST_LISTED
    line = between.join(texts[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "..."


def member(members: Mapping[str, Any], name: str) -> str:
    """Return the member *name* and its value as text, or the text that it is absent."""
    return f"{show(name)} {_ABSENT}" if name not in members else f"{show(name)}={show(members[name])}"


def duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that fits."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"


def moment(value: object, now: float) -> str:
    """Return the date *value* for people, with its distance from *now*; both are in seconds since the epoch."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return show(value)
    try:
        text = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return show(value)
    away = value - now
    if abs(away) < 1:
        return f"{text}, now"
    return f"{text}, {duration(-away)} ago" if away < 0 else f"{text}, in {duration(away)}"


def _audience(content: Content) -> str:
    found: list[str] = []
    for name in content.issuer.audience_claims:
        header = name.removeprefix("header:")
        members = content.claims if header == name else content.header
        value = members.get(header)
        if isinstance(value, list):
            found.append(f"{show(name)}={list_values(value)}")
        else:
            found.append(member(members, header))
    return ", ".join(found)


def _wanted_audience(content: Content) -> str:
    accepted = content.issuer.audiences
    if accepted is None or isinstance(content.issuer.audience, AudienceOptOut):
        return "any audience"
    only = ", and no other" if content.issuer.single_audience else ""
    return list_values(sorted(accepted), " or ") + only


def _list_expected(values: Mapping[str, Iterable[object]], what: str = "") -> list[str]:
    return [f"{show(name)}={what}{' or '.join(sorted(map(show, each)))}" for name, each in values.items()]


def _list_forbidden(names: Iterable[str]) -> list[str]:
    return [f"no {show(name)}" for name in names]


def _expected_claims(content: Content) -> str:
    issuer = content.issuer
    names = (*issuer.expected_claims, *issuer.claim_prefixes, *issuer.forbidden_claims)
    return list_values(member(content.claims, name) for name in dict.fromkeys(names))


def _wanted_claims(content: Content) -> str:
    issuer = content.issuer
    prefixes = _list_expected(issuer.claim_prefixes, "a value that begins with ")
    wanted = [*_list_expected(issuer.expected_claims), *prefixes, *_list_forbidden(issuer.forbidden_claims)]
    return list_values(wanted) or "the same values in the header and in the claims"


def _wanted_headers(content: Content) -> str:
    issuer = content.issuer
    return list_values([*_list_expected(issuer.expected_headers), *_list_forbidden(issuer.forbidden_headers)])


def _required_names(content: Content) -> tuple[str, ...]:
    issuer = content.issuer
    if issuer.required_claims is not None:
        return issuer.required_claims
    return RFC9068_CLAIMS if content.is_rfc9068 else ()


def _required_claims(content: Content) -> str:
    names = (*_required_names(content), *content.issuer.any_claims)
    lacking = [show(name) for name in dict.fromkeys(names) if content.claims.get(name, "") == ""]
    return f"{list_values(lacking)} {_ABSENT}" if lacking else "all present"


def _wanted_presence(content: Content) -> str:
    required, alternatives = _required_names(content), content.issuer.any_claims
    parts = [", ".join(map(show, required))] if required else []
    parts += [f"one of {list_values(alternatives)}"] if alternatives else []
    return "; ".join(parts) or "none; sub, jti and client_id are strings"


def _kind(content: Content) -> str:
    found = [member(content.claims, name) for name in _KINDS if name in content.claims]
    return list_values(found) or _shows_access(content)


def _shows_access(content: Content) -> str:
    if content.is_rfc9068:
        return "typ at+jwt"
    names = [*content.issuer.client_id_claims, *(source.claim for source in content.issuer.scope_claims)]
    found = [name for name in names if name in content.claims]
    return f"it has {list_values(found)}" if found else "no client and no scope claim"


def _scope_claim(content: Content) -> str:
    names = [source.claim for source in content.issuer.scope_claims]
    return list_values(member(content.claims, name) for name in names if name in content.claims) or "no scope claim"


def _confirmation(content: Content) -> str:
    value = content.claims.get("cnf", _ABSENT)
    # The thumbprints themselves would not help a reader.
    return f"cnf with {list_values(value)}" if isinstance(value, Mapping) else f"cnf {show(value)}"


def _wanted_confirmation(content: Content) -> str:
    issuer = content.issuer
    accepted = (("jkt (DPoP)", accepts_proofs(issuer)), ("x5t#S256 (a certificate)", issuer.mutual_tls))
    methods = [name for name, is_accepted in accepted if is_accepted]
    if not methods:
        return "no cnf: this guard checks no proofs"
    needed = "a cnf" if issuer.require_sender_constraint else "no cnf, or one"
    return f"{needed} with {' or '.join(methods)}"


def _leeway(content: Content) -> str:
    return f"{content.issuer.leeway:g} s leeway"


def _lifetime(content: Content) -> str:
    expires: Any = content.claims.get("exp")
    issued: Any = content.claims.get("iat", content.now)
    try:
        return f"{expires - issued:.0f} seconds"
    except (TypeError, ValueError, OverflowError):
        return "not known"


Text = Callable[[Content], str]

TEXTS: Final[Mapping[str, tuple[Text, Text]]] = MappingProxyType(
    {
        "algorithm": (
            lambda content: member(content.header, "alg"),
            lambda content: ", ".join(content.issuer.algorithms),
        ),
        "header": (
            lambda content: (
                list_values(member(content.header, name) for name in _PARAMETERS if name in content.header)
                or "no special parameter"
            ),
            lambda content: "no crit, b64, zip or nested JWT (cty)",
        ),
        "type": (
            lambda content: member(content.header, "typ"),
            lambda content: list_values(sorted(typ or "no typ" for typ in content.issuer.types), " or "),
        ),
        "issuer_claim": (
            lambda content: list_values(
                member(content.claims, name)
                for name in dict.fromkeys(("iss", *(c for of in content.issuer.aliases.values() for c in of)))
            ),
            lambda content: list_values((content.issuer.url, *content.issuer.aliases), " or "),
        ),
        "expected_headers": (
            lambda content: list_values(
                member(content.header, name)
                for name in (*content.issuer.expected_headers, *content.issuer.forbidden_headers)
            ),
            _wanted_headers,
        ),
        "expected_claims": (_expected_claims, _wanted_claims),
        "audience": (_audience, _wanted_audience),
        "dates": (
            lambda content: (
                # repr() tells a string from a number.
                list_values(f"{name}={content.claims[name]!r}" for name in DATES if name in content.claims)
                or "no dates"
            ),
            lambda content: "numbers (seconds since 1970)",
        ),
        "expiry": (
            lambda content: f"exp {moment(content.claims.get('exp', _ABSENT), content.now)}",
            lambda content: f"in the future ({_leeway(content)})",
        ),
        "not_before": (
            lambda content: f"nbf {moment(content.claims.get('nbf', _ABSENT), content.now)}",
            lambda content: f"not in the future ({_leeway(content)})",
        ),
        "issued_at": (
            lambda content: ", ".join(
                f"{show(name)} {moment(content.claims[name], content.now)}"
                for name in ("iat", *content.issuer.past_claims)
                if name in content.claims
            ),
            lambda content: f"not in the future ({_leeway(content)})",
        ),
        "lifetime": (_lifetime, lambda content: f"at most {content.issuer.max_lifetime or 0:g} seconds"),
        "required_claims": (_required_claims, _wanted_presence),
        "token_kind": (_kind, lambda content: "an access token"),
        "scope_claim": (
            _scope_claim,
            lambda content: list_values(
                (f"{source.claim} ({source.form.value})" for source in content.issuer.scope_claims), " or "
            ),
        ),
        "confirmation": (_confirmation, _wanted_confirmation),
    }
)
"""Two functions for each check of the content of a token: what was found, and what is wanted."""
