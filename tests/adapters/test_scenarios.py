"""All scenarios through each door: sync and async, protocols and frameworks answer alike."""

from __future__ import annotations

import pytest

from doors import DOORS, Api, apis
from scenarios import SCENARIOS, Exchange

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

TABLE = [
    pytest.param("a valid token", marks=pytest.mark.rule("B-01")),
    pytest.param("scheme in lower case", marks=pytest.mark.rule("B-02")),
    pytest.param("scheme in mixed case", marks=pytest.mark.rule("B-02", "H-13")),
    pytest.param("several spaces", marks=pytest.mark.rule("B-03")),
    pytest.param("a tab behind the scheme", marks=pytest.mark.rule("B-04")),
    pytest.param("two words", marks=pytest.mark.rule("B-05")),
    pytest.param("a quoted token", marks=pytest.mark.rule("B-05")),
    pytest.param("an auth-param", marks=pytest.mark.rule("B-60")),
    pytest.param("padding inside", marks=pytest.mark.rule("B-06")),
    pytest.param("a colon", marks=pytest.mark.rule("B-05")),
    pytest.param("percent escapes", marks=pytest.mark.rule("X-30")),
    pytest.param("no token behind the scheme", marks=pytest.mark.rule("B-08")),
    pytest.param("another scheme", marks=pytest.mark.rule("B-09")),
    pytest.param("a scheme that begins like ours", marks=pytest.mark.rule("B-10")),
    pytest.param("a longer scheme", marks=pytest.mark.rule("B-10")),
    pytest.param("no credentials", marks=pytest.mark.rule("B-11", "B-33", "B-34")),
    pytest.param("proxy credentials", marks=pytest.mark.rule("B-59")),
    pytest.param("a cookie", marks=pytest.mark.rule("B-32")),
    pytest.param("a forwarded header", marks=pytest.mark.rule("X-72")),
    pytest.param("an original URL", marks=pytest.mark.rule("X-72")),
    pytest.param("a method override", marks=pytest.mark.rule("H-10")),
    pytest.param("an overriding header", marks=pytest.mark.rule("H-10")),
    pytest.param("two equal headers", marks=pytest.mark.rule("B-12", "X-71")),
    pytest.param("two different headers", marks=pytest.mark.rule("B-12", "X-71")),
    pytest.param("Basic before Bearer", marks=pytest.mark.rule("B-12")),
    pytest.param("joined by a comma", marks=pytest.mark.rule("B-12")),
    pytest.param("a token of 17 KB", marks=pytest.mark.rule("X-25")),
    pytest.param("an opaque word", marks=pytest.mark.rule("B-06", "J-01")),
    pytest.param("an expired token", marks=pytest.mark.rule("B-41", "B-42", "G-01")),
    pytest.param("an expired token without the scope", marks=pytest.mark.rule("B-47")),
    pytest.param("another audience", marks=pytest.mark.rule("P-06", "P-10")),
    pytest.param("another issuer", marks=pytest.mark.rule("P-18")),
    pytest.param("another key", marks=pytest.mark.rule("P-07")),
    pytest.param("no signature", marks=pytest.mark.rule("X-03")),
    pytest.param("a bound token", marks=pytest.mark.rule("X-53")),
    pytest.param("a scope missing", marks=pytest.mark.rule("B-42", "B-43", "B-44", "G-13")),
    pytest.param("no scope claim", marks=pytest.mark.rule("G-09")),
    pytest.param("scopes in other case", marks=pytest.mark.rule("G-02")),
    pytest.param("scopes that begin alike", marks=pytest.mark.rule("G-04")),
    pytest.param("one alternative of two", marks=pytest.mark.rule("G-11")),
    pytest.param("the other alternative", marks=pytest.mark.rule("G-11")),
    pytest.param("neither alternative", marks=pytest.mark.rule("G-11")),
    pytest.param("no scope needed", marks=pytest.mark.rule("G-09")),
    pytest.param("a strong and recent sign-in", marks=pytest.mark.rule("S-05", "S-07")),
    pytest.param("a weak sign-in", marks=pytest.mark.rule("S-01", "S-02")),
    pytest.param("a sign-in too long ago", marks=pytest.mark.rule("S-03")),
    pytest.param("a weak sign-in and a scope missing", marks=pytest.mark.rule("S-09")),
    pytest.param("a strong sign-in and a scope missing", marks=pytest.mark.rule("S-09")),
    pytest.param("an expired token where a sign-in is needed", marks=pytest.mark.rule("S-10")),
    pytest.param("HEAD without a token", marks=pytest.mark.rule("B-52", "H-09")),
    pytest.param("HEAD without the scope", marks=pytest.mark.rule("B-52")),
    pytest.param("an unknown path without a token", marks=pytest.mark.rule("H-07")),
    pytest.param("an unknown method without a token", marks=pytest.mark.rule("B-61")),
    pytest.param("OPTIONS without a token", marks=pytest.mark.rule("B-61")),
    pytest.param("the public path"),
    pytest.param("the public path with a bad token"),
    pytest.param("behind the public path", marks=pytest.mark.rule("H-08")),
    pytest.param("below the public path", marks=pytest.mark.rule("H-08")),
    pytest.param("dots out of the public path", marks=pytest.mark.rule("H-06", "H-08")),
    pytest.param("optional, nothing sent", marks=pytest.mark.rule("B-54", "B-55")),
    pytest.param("optional, a valid token", marks=pytest.mark.rule("B-54")),
    pytest.param("optional, an expired token", marks=pytest.mark.rule("B-55")),
    pytest.param("optional, a malformed header"),
    pytest.param("optional, another scheme"),
    pytest.param("optional, a bound token", marks=pytest.mark.rule("X-53")),
    pytest.param("query off, token there", marks=pytest.mark.rule("B-14")),
    pytest.param("query off, another in the header", marks=pytest.mark.rule("B-14")),
    pytest.param("query", marks=pytest.mark.rule("B-28", "B-29", "B-30", "B-31")),
    pytest.param("query alone"),
    pytest.param("query, name escaped"),
    pytest.param("query, expired"),
    pytest.param("query and header", marks=pytest.mark.rule("B-13", "B-48")),
    pytest.param("query, repeated", marks=pytest.mark.rule("B-21")),
    pytest.param("query, empty", marks=pytest.mark.rule("B-22")),
    pytest.param("query, empty, and header", marks=pytest.mark.rule("B-22")),
    pytest.param("query, other case", marks=pytest.mark.rule("B-25")),
    pytest.param("query, semicolon", marks=pytest.mark.rule("B-24")),
    pytest.param("query, plus is a space", marks=pytest.mark.rule("B-23")),
    pytest.param("query, bound token", marks=pytest.mark.rule("X-53")),
    pytest.param("query, 1200 parameters", marks=pytest.mark.rule("X-32")),
    pytest.param("form", marks=pytest.mark.rule("B-16", "B-27")),
    pytest.param("form off", marks=pytest.mark.rule("B-16")),
    pytest.param("form off, body untouched", marks=pytest.mark.rule("B-16")),
    pytest.param("form, media type", marks=pytest.mark.rule("B-17")),
    pytest.param("form, GET", marks=pytest.mark.rule("B-18")),
    pytest.param("form, JSON", marks=pytest.mark.rule("B-19")),
    pytest.param("form, multipart", marks=pytest.mark.rule("B-19")),
    pytest.param("form, not ASCII", marks=pytest.mark.rule("B-20")),
    pytest.param("form, repeated", marks=pytest.mark.rule("B-21")),
    pytest.param("form, empty", marks=pytest.mark.rule("B-22")),
    pytest.param("form and header", marks=pytest.mark.rule("B-13")),
    pytest.param("form, header instead"),
    pytest.param("form and query", marks=pytest.mark.rule("B-13")),
    pytest.param("form, escaped", marks=pytest.mark.rule("B-23")),
    pytest.param("form, plus is a space", marks=pytest.mark.rule("B-23")),
    pytest.param("form, 65 KB", marks=pytest.mark.rule("B-26")),
    pytest.param("form, expired"),
]


APIS = apis(DOORS)


@pytest.fixture(scope="module", params=APIS.values(), ids=list(APIS))
def api(request: pytest.FixtureRequest) -> Api:
    door, remembers = request.param
    return Api(door, remembers=remembers)


def test_table_has_each_scenario_once():
    assert [row.values[0] for row in TABLE] == [scenario.name for scenario in SCENARIOS]
    assert len(BY_NAME) == len(SCENARIOS)


@pytest.mark.parametrize("name", TABLE)
def test_each_adapter_answers_alike(api: Api, name: str):
    api.run(BY_NAME[name])


def test_omitted_scenarios_of_a_door_exist(api: Api):
    assert api.door.without.keys() <= BY_NAME.keys()


@pytest.mark.rule("B-49", "X-81")
def test_response_does_not_show_which_check_failed(api: Api):
    answers = [
        api.send(Exchange(headers=((b"authorization", b"Bearer " + api.tokens[name].encode()),)))
        for name in ("OTHER_AUDIENCE", "OTHER_ISSUER", "OTHER_KEY", "UNSIGNED", "BOUND")
    ]
    assert len({(answer.status, answer.headers, answer.body) for answer in answers}) == 1


@pytest.mark.rule("G-03", "X-84")
def test_denial_does_not_affect_the_next_request(api: Api):
    good = Exchange(headers=((b"authorization", b"Bearer " + api.tokens["T"].encode()),))
    for expected in (401, 200, 401, 200):
        answer = api.send(good if expected == 200 else Exchange())
        assert answer.status == expected
