"""Cache lifetimes of responses and ``Retry-After``."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.answers import is_json, lifetime, time_left
from scopeguard.spec.retry_after import read_retry_after

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        (None, None),
        ("", None),
        ("public", None),
        ("max-age=600", 600.0),
        ("public, max-age=600, must-revalidate", 600.0),
        ("Max-Age=600", 600.0),
        ('max-age="600"', 600.0),
        ("max-age = 600", 600.0),
        ("max-age=0", 0.0),
        ("max-age=9999999999999", 9999999999.0),
        ("max-age=-1", None),
        ("max-age=x", None),
        ("max-age", None),
        ("max-age=\u0661\u0662", None),
        ("s-maxage=600", None),
        ("x-max-age=1, max-age=600", 600.0),
        ("max-age=600, max-age=1", 600.0),
        ("no-store", 0.0),
        ("NO-CACHE, max-age=600", 0.0),
        ("max-age=600, no-store", 0.0),
        ("stale-while-revalidate=600", None),
    ],
)
def test_lifetime_of_a_response_follows_its_headers(cache_control, seconds):
    assert lifetime({} if cache_control is None else {"cache-control": cache_control}) == seconds


@given(st.text() | st.lists(st.sampled_from(["max-age", "=", "600", ",", '"', " ", "no-store", "-"])).map("".join))
def test_any_header_text_gives_a_valid_lifetime(text):
    found = lifetime({"cache-control": text})
    assert found is None or 0 <= found < 1e10


@pytest.mark.parametrize(
    ("ttl", "age", "seconds"),
    [(60.0, 0.0, 60.0), (60.0, 5.0, 55.0), (5.0, 4.5, 1.0), (5.0, 8.0, 1.0), (0.5, 8.0, 0.5), (0.0, 8.0, 0.0)],
)
def test_age_of_an_answer_counts_from_its_request(ttl: float, age: float, seconds: float):
    assert time_left(ttl, age) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("12x", None),
        ("\u0661\u0662", None),
        ("99999999999", None),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120.0),
        ("Fri Jan 15 08:02:00 2027", 120.0),
        ("Fri, 15 Jan 2027 08:02:00", 120.0),
        ("Fri, 15 Jan 2027 08:02:00 -0000", 120.0),
        ("Fri, 15 Jan 2027 10:02:00 +0200", 120.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Foo 2027 07:00:00 GMT", None),
        ("Fri, 15 Jan 99999999999 07:00:00 GMT", None),
        ("tomorrow", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert read_retry_after({} if value is None else {"retry-after": value}, NOW) == seconds


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_http_dates_do_not_depend_on_the_local_time_zone(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert read_retry_after({"retry-after": "Fri, 15 Jan 2027 08:02:00"}, NOW) == 120.0
        assert read_retry_after({"retry-after": "Fri, 15 Jan 2027 08:02:00 GMT"}, NOW) == 120.0
    finally:
        monkeypatch.undo()
        time.tzset()


PARTS = st.sampled_from(
    ["Fri,", "15", "Jan", "2027", "08:02:00", "GMT", "+9999", "-0000", ":", "0", "99999999999999999999", "1e9", ","]
)


@given(st.text() | st.lists(PARTS).map(" ".join))
def test_any_retry_after_text_gives_a_valid_time_or_none(text):
    found = read_retry_after({"retry-after": text}, NOW)
    assert found is None or (found >= 0 and math.isfinite(found))


@pytest.mark.rule("A-08", "A-14")
@pytest.mark.parametrize(
    ("content_type", "is_one"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        (" application/json ;x", True),
        ("application/jwk-set+json", True),
        ("application/jwk-set+json;charset=UTF-8", True),
        ("application/problem+json", True),
        (None, False),
        ("", False),
        ("text/html", False),
        ("text/plain; application/json", False),
        ("text/x+json", False),
        ("application/jwt", False),
        ("application/jsonp", False),
        ("application/json, text/html", False),
        ("application/xjson", False),
        ("json", False),
    ],
)
def test_json_is_recognised_by_its_media_type(content_type, is_one):
    assert is_json({} if content_type is None else {"content-type": content_type}) is is_one
