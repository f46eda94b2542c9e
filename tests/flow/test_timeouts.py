"""The longest time a request waits: the sum of the time limits of all exchanges that may be needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard import Introspection, Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.flow.introspection import longest_introspection
from scopeguard.flow.keys import longest_fetch
from scopeguard.flow.waiting_times import HOOK_TIMEOUT, LONGEST_RETRY_PAUSE, QUEUE_TIMEOUT

KEY_SET = KeySetPolicy(timeout=7.0)
ISSUER = Issuer("https://as.test", audience="x", key_set=KEY_SET)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"jwks_uri": "https://as.test/jwks"}, QUEUE_TIMEOUT + 7),
        ({"jwks_file": "keys.json"}, QUEUE_TIMEOUT + 7),
        ({"metadata_url": "https://as.test/metadata"}, QUEUE_TIMEOUT + 2 * 7),
        ({}, QUEUE_TIMEOUT + 3 * 7),  # Two well-known URLs.
    ],
)
def test_key_set_fetch_may_take_the_sum_of_its_exchanges(options: Any, seconds: float):
    assert longest_fetch(replace(ISSUER, **options)) == seconds


BASE = {"client_id": "api", "endpoint": "https://as.test/i", "timeout": 30.0, "retries": 0}
SECRET = {"client_secret": "sg-secret-of-the-api"}


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (SECRET, QUEUE_TIMEOUT + 30),
        (SECRET | {"retries": 2}, QUEUE_TIMEOUT + 3 * 30 + 2 * LONGEST_RETRY_PAUSE),
        (SECRET | {"endpoint": None}, QUEUE_TIMEOUT + 30 + 2 * 7),
        (SECRET | {"signed": True}, QUEUE_TIMEOUT + 30 + QUEUE_TIMEOUT + 3 * 7),
        ({"auth": "bearer", "bearer_token": lambda: "t"}, QUEUE_TIMEOUT + 2 * 30 + 2 * HOOK_TIMEOUT),
        ({"auth": "bearer", "bearer_token": "t"}, QUEUE_TIMEOUT + 30),
    ],
)
def test_introspection_may_take_the_sum_of_its_exchanges(options: Any, seconds: float):
    assert longest_introspection(ISSUER, Introspection(**{**BASE, **options})) == seconds
