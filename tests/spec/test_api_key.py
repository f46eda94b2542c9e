"""API keys: the form, the checks and the file. The kind of fault: a text that is almost a key counts as one."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard import ApiKey, InvalidApiKey, InvalidRequest, Reason
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.spec.api_key import (
    Grantor,
    MalformedKeyFile,
    check_key,
    checksum,
    id_of,
    key_from_field,
    make_key,
    read_keys,
)

ID, TEXT, DIGEST = make_key("acme", lambda size: bytes(range(size)))
KEY = ApiKey(id=ID, sha256=DIGEST, subject="alice", scopes=["rows.read"], expires_at=2000.0)


def parse(*values: bytes, prefix: str = "acme") -> str:
    return key_from_field(values, prefix)


# -- the form


def test_made_key_has_the_documented_form():
    assert TEXT.startswith(f"acme_{ID}_")
    assert (len(ID), len(TEXT)) == (16, len("acme") + 1 + 16 + 1 + 43 + 6)
    assert sha256(TEXT.encode()).hexdigest() == DIGEST
    assert parse(TEXT.encode()) == TEXT
    assert id_of(TEXT) == ID


@given(st.binary(min_size=48, max_size=48), st.from_regex(r"[a-z][a-z0-9]{0,5}(?:_[a-z0-9]{1,5}){0,2}", fullmatch=True))
def test_each_made_key_is_read_again(random: bytes, prefix: str):
    parts = [random[:16], random[16:]]
    identifier, text, _ = make_key(prefix, lambda size: parts.pop(0)[:size])
    assert parse(b" \t" + text.encode() + b" ", prefix=prefix) == text
    assert id_of(text) == identifier


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_other_bytes_are_a_key(value: bytes):
    with pytest.raises(InvalidApiKey) as caught:
        parse(value)
    assert caught.value.reason is Reason.API_KEY_MALFORMED
    assert value == b"" or len(value) < 4 or value.decode("latin-1") not in str(caught.value)


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 127))
def test_key_with_one_other_byte_is_refused(at: int, difference: int):
    changed = bytearray(TEXT.encode())
    changed[at] = (changed[at] + difference) % 128
    if bytes(changed).strip(b" \t") != TEXT.encode():
        with pytest.raises(InvalidApiKey):
            parse(bytes(changed))


@pytest.mark.parametrize(
    "text",
    [
        TEXT[:-1],
        TEXT + "A",
        TEXT + "\n",
        TEXT + "\x00",
        TEXT.upper(),
        "ACME" + TEXT[4:],
        "acmf" + TEXT[4:],
        f"Bearer {TEXT}",
        f"{TEXT},{TEXT}",  # two lines that a WSGI server has joined
        f'"{TEXT}"',
        TEXT.replace("_", "-"),
        TEXT.replace(ID, ID[:-1] + "é"),
        "acme_" + "0" * 10_000,
        "acme_" + "_".join(["0" * 16] * 100),
        TEXT.translate({ord("0"): "\N{FULLWIDTH DIGIT ZERO}"}),
        "",
    ],
)
def test_almost_a_key_is_refused(text: str):
    with pytest.raises(InvalidApiKey):
        parse(text.encode())


def test_second_line_is_refused_even_if_it_is_equal():
    with pytest.raises(InvalidRequest) as caught:
        parse(TEXT.encode(), TEXT.encode())
    assert caught.value.reason is Reason.REPEATED_API_KEY


def test_key_of_another_prefix_is_refused_also_if_the_prefix_begins_alike():
    for prefix in ("acm", "acme_live", "other"):
        with pytest.raises(InvalidApiKey):
            parse(TEXT.encode(), prefix=prefix)


def test_checksum_is_that_of_everything_before_it():
    assert checksum("") == "000000"
    assert checksum(TEXT[:-6]) == TEXT[-6:]


def test_keyed_checksum_needs_the_secret():
    secret = b"a secret of the API"
    _, text, _ = make_key("acme", lambda size: bytes(range(size)), secret)
    assert text[:-6] == TEXT[:-6]
    assert key_from_field([text.encode()], "acme", secret) == text
    for value, other in ((text, None), (TEXT, secret), (text, b"another secret")):
        with pytest.raises(InvalidApiKey) as caught:
            key_from_field([value.encode()], "acme", other)
        assert caught.value.reason is Reason.API_KEY_MALFORMED


# -- the checks


@pytest.mark.parametrize(
    ("key", "now", "reason"),
    [
        (None, 1000.0, Reason.API_KEY_UNKNOWN),
        (replace(KEY, sha256="0" * 64), 1000.0, Reason.API_KEY_MISMATCH),
        (replace(KEY, revoked=True), 1000.0, Reason.API_KEY_REVOKED),
        (KEY, 2000.0, Reason.API_KEY_EXPIRED),
        (KEY, 1e300, Reason.API_KEY_EXPIRED),
        (replace(KEY, sha256="0" * 64, revoked=True), 3000.0, Reason.API_KEY_MISMATCH),  # a guess learns nothing
    ],
)
def test_unusable_key_is_refused(key: ApiKey | None, now: float, reason: Reason):
    with pytest.raises(InvalidApiKey) as caught:
        check_key(key, TEXT, now)
    assert caught.value.reason is reason
    assert caught.value.description == "The API key is not valid for this API"
    assert TEXT not in str(caught.value)


@pytest.mark.parametrize(("expires_at", "now"), [(2000.0, 1999.9), (None, 1e300)])
def test_usable_key_is_returned(expires_at: float | None, now: float):
    key = replace(KEY, expires_at=expires_at)
    assert check_key(key, TEXT, now) is key


def test_access_token_has_what_the_key_says():
    grantor = Grantor(
        issuer="https://api.test/keys",
        audience="https://api.test",
        vocabulary=ScopeVocabulary(implies={"rows.write": ["rows.read"]}),
    )
    key = replace(KEY, client_id="reports", scopes=["rows.write"], issued_at=1000.0, claims={"tenant": ["a"]})
    token = grantor.grant(key)
    assert token.identity == ("https://api.test/keys", "alice")
    assert (token.client_id, token.audience, token.machine) == ("reports", ("https://api.test",), None)
    assert token.scopes == {"rows.write", "rows.read"}
    assert token.granted_scopes == ("rows.write",)
    assert (token.issued_at, token.expires_at, token.fingerprint) == (1000.0, 2000.0, DIGEST[:12])
    assert token.claims == {
        "iss": "https://api.test/keys", "sub": "alice", "aud": "https://api.test", "client_id": "reports",
        "jti": ID, "scope": "rows.write", "iat": 1000.0, "exp": 2000.0, "tenant": ("a",),
    }  # fmt: skip


def test_key_of_a_client_is_that_of_a_machine_and_lacks_what_the_key_lacks():
    grantor = Grantor(issuer="https://api.test", audience="https://api.test", vocabulary=ScopeVocabulary())
    token = grantor.grant(ApiKey(id=ID, sha256=DIGEST, client_id="reports", expires_at=None))
    assert (token.subject, token.machine, token.expires_at) == (None, True, None)
    assert set(token.claims) == {"iss", "aud", "jti", "scope", "client_id"}


# -- the file

ENTRY = f"""
[[keys]]
id = "{ID}"
sha256 = "{DIGEST}"
subject = "alice"
scopes = ["rows.read"]
expires_at = 1970-01-01T00:33:20Z
"""


def test_file_is_read():
    never = "\n" + ENTRY.replace(ID, "b" * 16).replace("1970-01-01T00:33:20Z", '"never"') + "revoked = true\n"
    found = read_keys((ENTRY + never + 'claims = { tenant = "a" }\nissued_at = 1970-01-01T01:00:00+01:00').encode())
    assert found[ID] == KEY
    other = found["b" * 16]
    assert (other.expires_at, other.revoked, other.claims, other.issued_at) == (None, True, {"tenant": "a"}, 0.0)


@pytest.mark.parametrize("content", ["", "# none yet\n", "keys = []\n"])
def test_file_without_keys_is_read(content: str):
    assert read_keys(content.encode()) == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff", "not UTF-8"),
        (b"[[keys]", "not TOML"),
        (b"keys = 3", r"\[\[keys\]\] tables only"),
        (b"keys = [3]", r"\[\[keys\]\] tables only"),
        (b"key = []", r"\[\[keys\]\] tables only"),
        (ENTRY.replace("expires_at", "expire_at").encode(), "'expire_at' is not a key"),
        (ENTRY.replace("subject", "revocked").encode(), "'revocked' is not a key"),
        (ENTRY.replace(f'id = "{ID}"\n', "").encode(), "id is missing"),
        ("\n".join(ENTRY.splitlines()[:-1]).encode(), "expires_at is missing"),
        ((ENTRY + ENTRY).encode(), "given twice"),
        (ENTRY.replace("1970-01-01T00:33:20Z", "1970-01-01T00:33:20").encode(), "expires_at: must be a time with"),
        (ENTRY.replace("1970-01-01T00:33:20Z", "1970-01-01").encode(), "expires_at: must be a time with"),
        (ENTRY.replace("1970-01-01T00:33:20Z", "2000").encode(), "expires_at: must be a time with"),
        (ENTRY.replace("1970-01-01T00:33:20Z", '"2030"').encode(), "expires_at: must be a time with"),
        ((ENTRY + "issued_at = 5").encode(), "issued_at: must be a time with"),
        ((ENTRY + 'revoked = "false"').encode(), "revoked: must be true or false"),
        (ENTRY.replace(DIGEST, DIGEST.upper()).encode(), "sha256: must be 64"),
        (ENTRY.replace("subject", "client_id").replace('"alice"', '""').encode(), "client_id: must not be empty"),
        ((ENTRY + "claims = { sub = 'root' }").encode(), "sub cannot be set here"),
        ((ENTRY + "claims = { at = 1970-01-01 }").encode(), "every value must be one that JSON has"),
        # Fault: exceptions of a parser that are not those of its documentation.
        (b"a = " + b"9" * 5000, "it is not TOML"),
        (b"a = " + b"[" * 20_000, "it is not TOML"),
    ],
)
def test_file_with_a_mistake_is_not_used_at_all(content: bytes, problem: str):
    with pytest.raises(MalformedKeyFile, match=problem) as caught:
        read_keys(content)
    assert DIGEST not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_content_is_a_file_of_keys_or_malformed(content: bytes):
    try:
        read_keys(content)
    except MalformedKeyFile:
        pass


def test_repr_shows_no_digest():
    shown: Any = repr(KEY)
    assert DIGEST not in shown
