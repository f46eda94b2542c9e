"""The development server exchanges tokens for the next API (RFC 8693), by a policy for each client."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from scopeguard.devserver import Client
from scopeguard.devserver.token_requests import Grant

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
NEXT = "https://next.example"
LAST = "https://last.example"


@pytest.fixture
def orders(bench: Any) -> Client:
    """The API at ``bench.api`` as a client, which may call NEXT."""
    client = Client(
        client_id="orders", secret="sg-secret-orders", scopes=["read", "stock"], introspects=[bench.api],
        exchanges_for=[NEXT], lifetime=900,
    )  # fmt: skip
    bench.authority.registry.add_client(client)
    return client


@pytest.fixture
def stock(bench: Any) -> Client:
    """The API at NEXT, which may call LAST."""
    client = Client(
        client_id="stock", secret="sg-secret-stock", scopes=["stock"], introspects=[NEXT], exchanges_for=[LAST]
    )
    bench.authority.registry.add_client(client)
    return client


def user_token(bench: Any, *, scopes: tuple[str, ...] = ("read", "stock", "write"), lifetime: int = 600) -> str:
    """A token of alice for ``bench.api``, from a client that signed her in."""
    grant = Grant(
        client_id="robot", subject="alice", scopes=scopes, audiences=(bench.api,), token_format="jwt", lifetime=lifetime
    )
    token: str = bench.authority.issue(grant).token
    return token


def exchange(bench: Any, client: Client, token: str, /, **form: Any) -> Any:
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, **form}
    return bench.post("/token", client, **{name: value for name, value in form.items() if value is not None})


def claims_of(bench: Any, answer: Any) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return jwt.decode(bench.read(answer)["access_token"], options={"verify_signature": False})


@pytest.mark.rule("G-29")
def test_the_new_token_is_about_the_user_for_the_next_api_with_the_client_as_actor(bench, orders):
    answer = exchange(bench, orders, user_token(bench))
    members = bench.read(answer)
    assert {name: members[name] for name in members if name != "access_token"} == {
        "token_type": "Bearer",
        "issued_token_type": ACCESS_TOKEN,
        "expires_in": 600,
        "scope": "read stock",
    }
    claims = claims_of(bench, answer)
    assert (claims["sub"], claims["aud"], claims["client_id"]) == ("alice", NEXT, "orders")
    assert claims["act"] == {"sub": "orders"}
    assert claims["scope"] == "read stock", "what both the user's token and the client have"
    assert claims["exp"] == bench.now + 600, "no longer than the token that was exchanged"


def test_actors_form_a_chain(bench, orders, stock):
    first = bench.read(exchange(bench, orders, user_token(bench), scope="stock"))["access_token"]
    assert claims_of(bench, exchange(bench, stock, first))["act"] == {"sub": "stock", "act": {"sub": "orders"}}


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JWT, None])
def test_the_requested_type_may_be_an_access_token(bench, orders, kind):
    answer = exchange(bench, orders, user_token(bench), requested_token_type=kind, subject_token_type=JWT)
    assert bench.read(answer)["issued_token_type"] == ACCESS_TOKEN


def test_scopes_are_narrowed_and_never_widened(bench, orders):
    assert claims_of(bench, exchange(bench, orders, user_token(bench), scope="stock"))["scope"] == "stock"
    for scope in ("write", "stock write", "admin"):  # the client lacks "write", and both lack "admin"
        assert bench.error(exchange(bench, orders, user_token(bench), scope=scope)) == (400, "invalid_scope")
    assert (
        bench.error(exchange(bench, orders, user_token(bench, scopes=("read",)), scope="stock"))[1] == "invalid_scope"
    )
    assert "scope" not in claims_of(bench, exchange(bench, orders, user_token(bench, scopes=())))


def test_only_audiences_of_the_policy_are_granted(bench, orders):
    good: list[dict[str, Any]] = [{"audience": NEXT}, {"resource": NEXT}, {"audience": NEXT, "resource": [NEXT]}]
    bad: list[dict[str, Any]] = [{"audience": LAST}, {"resource": bench.api}, {"audience": [NEXT, LAST]}]
    for form in good:
        assert claims_of(bench, exchange(bench, orders, user_token(bench), **form))["aud"] == NEXT
    for form in bad:
        assert bench.error(exchange(bench, orders, user_token(bench), **form)) == (400, "invalid_target")


def test_a_client_exchanges_tokens_that_it_received_or_owns_only(bench, orders, stock):
    assert bench.error(exchange(bench, stock, user_token(bench))) == (400, "invalid_request")
    own = bench.token(orders)
    assert claims_of(bench, exchange(bench, orders, own))["sub"] == "orders"


def test_clients_without_the_policy_may_not_exchange(bench):
    assert bench.error(exchange(bench, bench.resource, user_token(bench))) == (400, "unauthorized_client")
    wrong = Client(client_id="api", secret="sg-secret-wrong")
    assert bench.error(exchange(bench, wrong, user_token(bench))) == (401, "invalid_client")


def test_an_opaque_token_can_be_exchanged_and_issued(bench):
    client = Client(
        client_id="mirror", secret="sg-secret-mirror", scopes=["read"], introspects=[bench.api], exchanges_for=[NEXT],
        token_format="opaque",
    )  # fmt: skip
    bench.authority.registry.add_client(client)
    answer = exchange(bench, client, bench.token(bench.opaque))
    issued = bench.authority.tokens.find(bench.read(answer)["access_token"])
    assert issued.claims["act"] == {"sub": "mirror"}


def _revoked_token(bench: Any) -> str:
    token = user_token(bench)
    bench.authority.tokens.revoke(token)
    return token


def _expired_token(bench: Any) -> str:
    token = user_token(bench, lifetime=1)
    bench.clock.advance(2)
    return token


def _without_subject(bench: Any) -> str:
    """Tests may issue such a token."""
    claims = {"aud": bench.api, "exp": bench.now + 60, "client_id": "robot", "scope": None}
    bench.authority.tokens.add("sg-opaque-x", claims, bench.now)
    return "sg-opaque-x"


SUBJECTS = {
    "without a subject": _without_subject,
    "unknown": lambda bench: "sg-opaque-unknown",
    "revoked": _revoked_token,
    "expired": _expired_token,
    "forged": lambda bench: user_token(bench)[:-4] + "AAAA",
}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_a_token_that_is_not_valid_is_refused_by_the_code_of_the_rfc(bench, orders, kind):
    assert bench.error(exchange(bench, orders, SUBJECTS[kind](bench))) == (400, "invalid_request")


@pytest.mark.parametrize(
    "form",
    [
        {"subject_token": None},
        {"subject_token_type": None},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        {"actor_token_type": ACCESS_TOKEN},
        {"actor_token": "sg-opaque-unknown", "actor_token_type": ACCESS_TOKEN},
        {"actor_token": "sg-opaque-unknown"},
    ],
    ids=" ".join,
)
def test_a_request_that_lacks_something_is_refused(bench, orders, form):
    assert bench.error(exchange(bench, orders, user_token(bench), **form)) == (400, "invalid_request")


def test_the_actor_is_the_subject_of_the_actor_token_of_the_same_client(bench, orders):
    actor = {"actor_token": bench.token(orders), "actor_token_type": ACCESS_TOKEN}
    assert claims_of(bench, exchange(bench, orders, user_token(bench), **actor))["act"] == {"sub": "orders"}
    actor["actor_token"] = bench.token(bench.robot)
    assert bench.error(exchange(bench, orders, user_token(bench), **actor)) == (400, "invalid_request")
