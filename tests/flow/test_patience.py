"""The longest time a request waits: the sum of the time limits of all exchanges that may be needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard import Introspection, Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.flow.effects import HOOK_PATIENCE, LONGEST_RETRY_PAUSE, TURN
from scopeguard.flow.introspection import longest_introspection
from scopeguard.flow.keys import longest_fetch

KEY_SET = KeySetPolicy(timeout=7.0)
ISSUER = Issuer("https://as.test", audience="x", key_set=KEY_SET)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"jwks_uri": "https://as.test/jwks"}, TURN + 7),
        ({"jwks_file": "keys.json"}, TURN + 7),
        ({"metadata_url": "https://as.test/metadata"}, TURN + 2 * 7),
        ({}, TURN + 3 * 7),  # Two well-known URLs.
    ],
)
def test_key_set_fetch_may_take_the_sum_of_its_exchanges(options: Any, seconds: float):
    assert longest_fetch(replace(ISSUER, **options)) == seconds


BASE = {"client_id": "api", "endpoint": "https://as.test/i", "timeout": 30.0, "retries": 0}
SECRET = {"client_secret": "sg-secret-of-the-api"}


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (SECRET, TURN + 30),
        (SECRET | {"retries": 2}, TURN + 3 * 30 + 2 * LONGEST_RETRY_PAUSE),
        (SECRET | {"endpoint": None}, TURN + 30 + 2 * 7),
        (SECRET | {"signed": True}, TURN + 30 + TURN + 3 * 7),
        ({"auth": "bearer", "bearer_token": lambda: "t"}, TURN + 2 * 30 + 2 * HOOK_PATIENCE),
        ({"auth": "bearer", "bearer_token": "t"}, TURN + 30),
    ],
)
def test_introspection_may_take_the_sum_of_its_exchanges(options: Any, seconds: float):
    assert longest_introspection(ISSUER, Introspection(**{**BASE, **options})) == seconds
