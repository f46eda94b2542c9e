"""Key sets as some servers publish them: a content type that is not JSON, numbers with padding."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scopeguard import Granted, Guard, KeySetPolicy, Unavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.testing import FakeAuthority
from storms import request_with


class Odd:
    """The network of *authority*, whose key set comes with another *content_type*, and *padded*."""

    def __init__(
        self, authority: FakeAuthority, content_type: str = "application/json", *, padded: bool = False
    ) -> None:
        self._transport, self._content_type, self._padded = authority.transport, content_type, padded

    def send(self, request: Send, /) -> Answer:
        answer = self._transport.send(request)
        document = json.loads(answer.body)
        if "keys" not in document:
            return answer
        for key in document["keys"] if self._padded else ():
            for name in {"n", "e", "x", "y"} & set(key):
                key[name] += "=" * (-len(key[name]) % 4)
        return Answer(200, json.dumps(document).encode(), {"content-type": self._content_type})

    def close(self) -> None:
        pass


def decide(authority: FakeAuthority, transport: Odd, **settings: Any) -> Any:
    issuer = replace(authority.issuer, key_set=KeySetPolicy(**settings))
    return Guard(issuer, transport=transport, clock=authority.clock).check(request_with(authority.mint("read")))


@pytest.mark.rule("A-14")
@pytest.mark.parametrize(
    "sent", ["application/octet-stream", "text/plain; charset=utf-8", "binary/octet-stream", "Text/Plain"]
)
def test_key_set_of_another_content_type_is_an_outage_unless_configured(sent: str):
    authority = FakeAuthority()
    refused = decide(authority, Odd(authority, sent))
    assert isinstance(refused, Unavailable)
    assert "key_set.content_types accepts further types" in refused.error.detail["problem"]
    name = sent.partition(";")[0]
    assert isinstance(decide(authority, Odd(authority, sent), content_types=("image/png", name)), Granted)
    assert isinstance(decide(authority, Odd(authority, "text/html"), content_types=(name,)), Unavailable)


def test_key_with_padding_is_an_outage_unless_configured():
    authority = FakeAuthority()
    refused = decide(authority, Odd(authority, padded=True))
    assert isinstance(refused, Unavailable)
    assert "key_set.padded = true accepts padding" in refused.error.detail["problem"]
    assert isinstance(decide(authority, Odd(authority, padded=True), padded=True), Granted)
