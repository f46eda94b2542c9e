"""Facts about versions: known advisories of the libraries that scopeguard uses, and the ends of Python versions.

The tables have the facts that were known at their date, which the output names. A scanner of dependencies in CI has
newer ones. Sources: the CVE records, the PyPA advisory database and the release notes of each project; the release
schedules of Python (PEP 664, 693, 719, 745).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

DATE: Final = date(2026, 11, 29)
"""The day on which the tables were last compared with their sources."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A published vulnerability of *package* in all versions that scopeguard allows and that are below *fixed*."""

    package: str
    fixed: str
    identifier: str
    text: str


ADVISORIES: Final = (
    Advisory("cryptography", "44.0.1", "CVE-2024-12797", "its OpenSSL does not verify raw public keys of TLS servers"),
    Advisory("cryptography", "46.0.5", "CVE-2026-26007", "public keys on binary curves are not validated"),
    Advisory(
        "cryptography", "46.0.6", "CVE-2026-34073", "name constraints of certificates are not applied to all names"
    ),
    Advisory("h11", "0.16.0", "CVE-2025-43859", "malformed chunked bodies are accepted: requests can be smuggled"),
    Advisory("idna", "3.7", "CVE-2024-3651", "a crafted host name takes a long time to encode"),
    Advisory("pyjwt", "2.12.0", "CVE-2026-32597", "unknown critical header parameters of tokens are accepted"),
    Advisory("pyjwt", "2.13.0", "CVE-2026-48523", "the list of allowed algorithms does not bind a key with its own"),
    Advisory("starlette", "0.49.1", "CVE-2025-62727", "a crafted Range header takes quadratic time in file responses"),
    Advisory("starlette", "1.0.1", "CVE-2026-48710", "a crafted Host header changes the path in request.url"),
    Advisory("starlette", "1.3.0", "PYSEC-2026-248", "a crafted path changes the host in request.url"),
    Advisory("starlette", "1.3.1", "PYSEC-2026-249", "the limits of request.form() do not bound urlencoded forms"),
    Advisory("waitress", "3.0.1", "CVE-2024-49769", "a client that disconnects early can cause a busy loop"),
)

PYTHON_ENDS: Final[Mapping[tuple[int, int], date]] = {
    (3, 11): date(2027, 10, 31),
    (3, 12): date(2028, 10, 31),
    (3, 13): date(2029, 10, 31),
    (3, 14): date(2030, 10, 31),
}
"""The end of the month in which each version of Python gets its last security fixes."""

TESTED: Final = ((3, 11), (3, 12), (3, 13))
"""The versions of Python that scopeguard is tested with."""


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of *version*, as in ``(2, 13, 0)`` for ``"2.13.0"``. What follows them is ignored."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return () if match is None else tuple(int(number) for number in match[0].split("."))


def known_advisories(package: str, version: str, advisories: Iterable[Advisory] = ADVISORIES) -> list[Advisory]:
    """Return the *advisories* that apply to *version* of *package*."""
    own = release(version)
    return [each for each in advisories if each.package == package and own < release(each.fixed)]
