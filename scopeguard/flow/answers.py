"""Checks that every response of an authorization server has to pass before its content is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Clock
from scopeguard.log_values import printable
from scopeguard.reasons import Reason
from scopeguard.spec.answers import content_type, is_json
from scopeguard.spec.jwks import IgnoredKey
from scopeguard.spec.outage_statuses import is_outage
from scopeguard.spec.retry_after import read_retry_after


def json_body(
    answer: Answer, url: str, authority: str, clock: Clock, *, types: Collection[str] = (), setting: str = ""
) -> bytes:
    """Return the body of a 200 response whose content type is JSON or one of *types*.

    Any other response raises :class:`AuthorityUnavailable`: it says nothing about a token. *setting* names the setting
    that accepts further types.
    """
    check_status(answer, url, authority, clock)
    if is_json(answer.headers) or content_type(answer.headers) in types:
        return answer.body
    shown = repr(answer.headers.get("content-type", ""))
    hint = f"; {setting} accepts further types" if setting else ""
    raise AuthorityUnavailable(
        Reason.AUTHORITY_ANSWER_INVALID,
        authority,
        url=url,
        problem=f"the answer is not JSON: its content type is {shown}{hint}",
    )


def check_status(answer: Answer, url: str, authority: str, clock: Clock) -> None:
    """Raise :class:`AuthorityUnavailable` unless the status of *answer* is 200."""
    if answer.status != 200:
        raise AuthorityUnavailable(
            Reason.AUTHORITY_UNREACHABLE if is_outage(answer.status) else Reason.AUTHORITY_ANSWER_INVALID,
            authority,
            retry_after=read_retry_after(answer.headers, clock.wall()),
            url=url,
            status=answer.status,
        )


def describe_unused_keys(ignored: Iterable[IgnoredKey], authority: str) -> tuple[str, ...]:
    """Return lines for the log about keys of *authority* that are not used and that it should replace."""
    return tuple(
        f"a key of {authority} is not used (kid={printable(repr(key.kid))}): {key.reason}"
        for key in ignored
        if key.alarming
    )
