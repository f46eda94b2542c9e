"""Parse ``WWW-Authenticate``: RFC 9110 section 11.6.1, with the list rules of section 5.6.1.

Commas separate challenges, and also the parameters of one challenge. The text between two commas is therefore either
another parameter of the challenge before it, or the beginning of a new challenge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

MAX_CHARACTERS: Final = 16 * 1024
MAX_CHALLENGES: Final = 32
MAX_PARAMETERS: Final = 64

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 section 5.6.2: token
# Section 5.6.4. Everything above ASCII is obs-text, however the client library decoded it.
_QUOTED: Final = r'"(?:[\t\x20\x21\x23-\x5B\x5D-\x7E\x80-\U0010FFFF]|\\[\t\x20-\x7E\x80-\U0010FFFF])*+"'
_PARAMETER: Final = re.compile(rf"({_WORD})[ \t]*+=[ \t]*+(?:({_WORD})|({_QUOTED}))")
_BEGINNING: Final = re.compile(rf"({_WORD})(?: ++(.++))?", re.DOTALL)
_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]++=*+")
# The text between two commas that are not in quoted strings. A quoted string without an end extends to the end of the
# line.
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.?)*+(?:"|\Z))++', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ParsedChallenge:
    """One challenge of a server (RFC 9110 section 11.3).

    * ``scheme``: the authentication scheme, in lower case.
    * ``token68``: the value, if the challenge has this form; it then has no parameters.
    * ``parameters``: names, in lower case, and unquoted values.

    ``repr`` shows the scheme only, because the server chooses the rest.
    """

    scheme: str
    token68: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def parse_challenges(values: Iterable[str]) -> tuple[ParsedChallenge, ...]:
    """Return the challenges in *values*, the field lines of ``WWW-Authenticate`` or ``Proxy-Authenticate``, in order.

    Never raises: it omits whatever is malformed. It omits a challenge that has a malformed part, a repeated parameter
    (RFC 9110 section 11.2: "each parameter name MUST only occur once per challenge"), or more than 64 parameters. It
    also omits parameters without a challenge, field lines of more than 16 KiB, and challenges after the 32nd. The time
    is linear in the length of *values*. Not checked: whether a challenge has the parameters that its scheme requires.
    """
    found: list[ParsedChallenge] = []
    for value in values:
        if len(value) <= MAX_CHARACTERS:
            found.extend(_parse_line(value))
        if len(found) >= MAX_CHALLENGES:
            break
    return tuple(found[:MAX_CHALLENGES])


def _parse_line(value: str) -> list[ParsedChallenge]:
    found: list[ParsedChallenge | None] = [None]  # None: before the first challenge, or a malformed one
    parameters: dict[str, str] = {}
    for element in (part.strip(" \t") for part in _ELEMENT.findall(value)):
        if parameter := _PARAMETER.fullmatch(element):
            if found[-1] is not None and (found[-1].token68 is not None or not _add_parameter(parameters, parameter)):
                found[-1] = None
        elif beginning := _BEGINNING.fullmatch(element):
            parameters = {}
            found.append(_begin_challenge(beginning[1].lower(), beginning[2], parameters))
        elif element:
            found[-1] = None
    return [challenge for challenge in found if challenge is not None]


def _begin_challenge(scheme: str, rest: str | None, parameters: dict[str, str]) -> ParsedChallenge | None:
    """Return the challenge with *scheme*, or ``None`` if *rest*, the text after it, is malformed.

    A parameter in *rest* is added to *parameters*, which become those of the challenge.
    """
    if rest is None:
        return ParsedChallenge(scheme, None, MappingProxyType(parameters))
    if parameter := _PARAMETER.fullmatch(rest):
        _add_parameter(parameters, parameter)
        return ParsedChallenge(scheme, None, MappingProxyType(parameters))
    return ParsedChallenge(scheme, rest) if _TOKEN68.fullmatch(rest) else None


def _add_parameter(parameters: dict[str, str], parameter: re.Match[str]) -> bool:
    name = parameter[1].lower()
    if name in parameters or len(parameters) == MAX_PARAMETERS:
        return False
    parameters[name] = parameter[2] or _ESCAPED.sub(r"\1", parameter[3][1:-1])
    return True
