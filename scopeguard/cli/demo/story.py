"""The steps of the demo, with the expected response of each exchange.

A different response ends the demo with :class:`StepFailed`, which names the step.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from scopeguard.cli.demo.api import INSERT, READ
from scopeguard.cli.demo.show import Screen
from scopeguard.cli.demo.world import World
from scopeguard.client import ClientCredentials, DPoPKey, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.devserver.lifetimes import TOKEN_LIFETIME
from scopeguard.spec.challenge_parser import parse_challenges

ROWS: Final = "/tables/trips/rows"
EXPORT: Final = "/tables/trips/export"


class StepFailed(Exception):
    """A step got an unexpected response."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected result of an exchange.

    * ``status``; ``error``: the error code of the challenge, ``None`` for no code.
    * ``body``: members that the JSON body of a successful response must contain.
    * ``authority_requests``: requests that the authorization server must have received, in any order. With ``None``
      they are not checked.
    """

    status: int
    error: str | None = None
    body: tuple[tuple[str, object], ...] = ()
    authority_requests: tuple[str, ...] | None = None


class Story:
    """Runs the steps and prints them on *screen*."""

    def __init__(self, world: World, screen: Screen) -> None:
        self.world = world
        self.screen = screen
        self.loader: ClientCredentials = world.client("loader")
        self.reader: ClientCredentials = world.client("reader")
        self.wait: float = 0.0  # seconds, from the last Retry-After
        self._step = 0
        self._title = ""

    def run(self) -> int:
        """Run all steps and return their number. Raises :class:`StepFailed`."""
        for step in STEPS:
            try:
                step(self)
            except (httpx.HTTPError, TokenEndpointError, TokenEndpointUnavailable) as failure:
                raise self._failure(f"{type(failure).__name__} instead of a response") from failure
        return self._step

    def _failure(self, problem: str) -> StepFailed:
        return StepFailed(f"step {self._step}, {self._title!r}: {problem}")

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self._title = title
        self.screen.title(self._step, title)

    def exchange(
        self,
        method: str,
        path: str,
        expected: Expected,
        *,
        auth: ClientCredentials | None = None,
        token: str = "",
        query: str = "",
        shown: str = "",
        base: str = "",
        scheme: str = "Bearer",
        proof: str = "",
    ) -> httpx.Response:
        """Send one request, print the exchange, and compare the response with *expected*.

        The token comes from *auth*, from *token* with *scheme* and *proof*, or from the end of *query*. It is printed
        as *shown*. *base* is the URL of another process of the API.
        """
        world = self.world
        url = (base or world.api) + path
        target = path
        if query:
            visible, parameter, _ = query.partition("access_token=")
            url, target = f"{url}?{query}", f"{path}?{visible}{parameter}{shown}"
        self.screen.request(method, target, f"Authorization: {scheme} {shown}" if token or auth else "")
        headers = {"Authorization": f"{scheme} {token}"} if token else {}
        if proof:
            headers["DPoP"] = proof
        response = world.http.request(method, url, headers=headers, auth=auth)
        reason, requests = world.new_reason(), world.new_requests()
        self.screen.response(response, reason)
        self.screen.authority_requests(requests)
        self._check(response, requests, expected)
        return response

    def _check(self, response: httpx.Response, requests: list[str], expected: Expected) -> None:
        problems: list[str] = []
        if response.status_code != expected.status:
            problems.append(f"expected status {expected.status}, got {response.status_code}")
        challenges = parse_challenges(response.headers.get_list("www-authenticate"))
        errors = (challenge.parameters.get("error") for challenge in challenges)
        error = next((error for error in errors if error is not None), None)
        if error != expected.error:
            problems.append(f"expected error code {expected.error}, got {error}")
        if response.status_code in (401, 403) and not challenges:
            problems.append("expected a challenge, got none")
        if response.status_code == 503 and "retry-after" not in response.headers:
            problems.append("expected Retry-After, got none")
        if response.is_success:
            body: dict[str, Any] = response.json()
            problems += [
                f"{name}: expected {wanted!r}, got {body.get(name)!r}"
                for name, wanted in expected.body
                if body.get(name) != wanted
            ]
        if expected.authority_requests is not None and sorted(expected.authority_requests) != sorted(requests):
            problems.append(
                f"requests to the authorization server: expected {list(expected.authority_requests)}, got {requests}"
            )
        if problems:
            raise self._failure("; ".join(problems))


def token_of(client: str, scope: str) -> str:
    """Return the text that is printed instead of a token."""
    return f"<{client}'s token, {scope}>"


LOADER: Final = token_of("loader", INSERT)
READER: Final = token_of("reader", READ)
TOKEN: Final = "POST /token"
KEYS: Final = ("GET /.well-known/oauth-authorization-server", "GET /jwks")


def no_token(story: Story) -> None:
    story.step("Without a token, only public routes can be called")
    story.exchange("GET", "/healthz", Expected(200, authority_requests=()))
    story.exchange("GET", ROWS, Expected(401, authority_requests=()))
    story.screen.explanation("A missing token is not an error, so the challenge has no error code. It names the scope.")


def wrong_scope(story: Story) -> None:
    story.step("A valid token without the required scope")
    story.exchange(
        "POST",
        ROWS,
        Expected(403, "insufficient_scope", authority_requests=(TOKEN, *KEYS)),
        auth=story.reader,
        shown=READER,
    )
    story.screen.explanation(
        "The client fetched a token. The guard fetched the keys and verified the token, which lacks the scope that the "
        "challenge names."
    )


def right_scope(story: Story) -> None:
    story.step("A token with the required scope")
    story.exchange(
        "POST",
        ROWS,
        Expected(200, body=(("by", "loader"),), authority_requests=(TOKEN,)),
        auth=story.loader,
        shown=LOADER,
    )
    story.screen.explanation("The guard has cached the keys: only the client called the authorization server.")


def two_tokens(story: Story) -> None:
    story.step("Two tokens in one request")
    token = story.reader.token().access_token
    story.exchange(
        "GET", EXPORT, Expected(400, "invalid_request", authority_requests=()),
        token=token, query=f"access_token={token}", shown=READER,
    )  # fmt: skip
    story.screen.explanation("RFC 6750 allows one method for each request. The guard does not choose between tokens.")


def query_token(story: Story) -> None:
    story.step("A token in the query string")
    token = story.reader.token().access_token
    query = f"format=csv&access_token={token}"
    story.exchange(
        "GET",
        EXPORT,
        Expected(200, body=(("query_the_app_sees", "format=csv"),), authority_requests=()),
        query=query,
        shown=READER,
    )
    story.exchange("GET", ROWS, Expected(401, authority_requests=()), query=query, shown=READER)
    story.screen.explanation(
        "Only the export route accepts a token there, and the guard hides it from the app. Other routes ignore it."
    )


def bad_tokens(story: Story) -> None:
    story.step("Invalid tokens: an altered one, and one for another API")
    tampered = with_scope(story.reader.token().access_token, INSERT)
    story.exchange(
        "POST",
        ROWS,
        Expected(401, "invalid_token", authority_requests=("GET /jwks",)),
        token=tampered,
        shown=f"<reader's token, scope changed to {INSERT}>",
    )
    foreign = story.world.client("biller").token().access_token
    story.exchange(
        "POST",
        ROWS,
        Expected(401, "invalid_token", authority_requests=(TOKEN,)),
        token=foreign,
        shown="<biller's token, for another API>",
    )
    story.screen.explanation(
        "Callers are not told which check failed; the API's log says it. After the bad signature, the guard looked "
        "for newer keys once."
    )


def with_scope(token: str, scope: str) -> str:
    """Return *token* with another scope and the old signature, as an attacker without the key could make it."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    changed = json.dumps({**claims, "scope": scope}, separators=(",", ":")).encode()
    return f"{header}.{base64.urlsafe_b64encode(changed).decode().rstrip('=')}.{signature}"


def expiry(story: Story) -> None:
    story.step("After an hour, the tokens expire")
    old = story.loader.token().access_token
    story.world.clock.advance(TOKEN_LIFETIME + 60)
    story.exchange(
        "POST", ROWS, Expected(401, "invalid_token", authority_requests=()), token=old, shown="<loader's expired token>"
    )
    story.exchange(
        "POST",
        ROWS,
        Expected(200, body=(("by", "loader"),), authority_requests=(TOKEN, *KEYS)),
        auth=story.loader,
        shown=LOADER,
    )
    story.screen.explanation(
        "The demo moved its clock forward. The client fetched a new token, and the guard fetched the keys again."
    )


def rotation(story: Story) -> None:
    story.step("The authorization server rotates its signing key")
    story.world.authority.rotate()
    story.exchange(
        "POST", ROWS, Expected(200, authority_requests=()), auth=story.loader, shown="<token signed with the old key>"
    )
    story.exchange(
        "POST", ROWS, Expected(200, authority_requests=(TOKEN, "GET /jwks")),
        auth=story.world.client("loader"), shown="<token signed with the new key>",
    )  # fmt: skip
    story.screen.explanation(
        "Tokens signed with either key are accepted. The guard fetched the key set once, to find the new key."
    )


def thief(story: Story) -> None:
    story.step("A thief has a token that is bound to the key of its client (DPoP)")
    base, bound = story.world.process_with_proofs, "<loader's token, bound to its key>"
    granted = story.exchange(
        "POST",
        ROWS,
        Expected(200, body=(("by", "loader"),), authority_requests=(TOKEN, *KEYS)),
        auth=story.world.client("loader", DPoPKey()),
        shown=f"{bound}   DPoP: <its proof>",
        base=base,
        scheme="DPoP",
    )
    sent = granted.request.headers
    token, own = sent["authorization"].removeprefix("DPoP "), DPoPKey()
    forged = own.proof("POST", base + ROWS, token=token, now=story.world.clock.wall())
    for scheme, proof, shown, error in (
        ("Bearer", "", "", "invalid_token"),
        ("DPoP", forged, "   DPoP: <a proof by the thief's key>", "invalid_token"),
        ("DPoP", sent["dpop"], "   DPoP: <the proof above, recorded>", "invalid_dpop_proof"),
    ):
        story.exchange(
            "POST", ROWS, Expected(401, error, authority_requests=()),
            token=token, scheme=scheme, proof=proof, shown=bound + shown, base=base,
        )  # fmt: skip
    story.screen.explanation(
        "A bound token needs a proof, the thief cannot sign one with the client's key, and a proof is accepted once."
    )


def outage(story: Story) -> None:
    story.step("The authorization server goes down")
    story.world.stop_authority()
    story.exchange("POST", ROWS, Expected(200, authority_requests=()), auth=story.loader, shown=LOADER)
    refused = story.exchange(
        "POST", ROWS, Expected(503, authority_requests=()), auth=story.loader, shown=f"{LOADER} (to a new process)",
        base=story.world.second_process,
    )  # fmt: skip
    story.wait = float(refused.headers["retry-after"])
    story.screen.explanation(
        "The running process uses its cached keys, for a day at most. The new process has no keys and cannot verify "
        "the token, so it answers 503, not 401."
    )


def recovery(story: Story) -> None:
    story.step("The authorization server is back")
    story.world.start_authority()
    story.world.clock.advance(story.wait)
    story.exchange(
        "POST", ROWS, Expected(200, authority_requests=KEYS), auth=story.loader, shown=f"{LOADER} (to the new process)",
        base=story.world.second_process,
    )  # fmt: skip
    story.screen.explanation(
        "The demo moved its clock forward by the seconds of Retry-After. The new process then fetched the keys."
    )


STEPS: Final[tuple[Callable[[Story], None], ...]] = (
    no_token, wrong_scope, right_scope, two_tokens, query_token, bad_tokens, expiry, rotation, thief, outage,
    recovery,
)  # fmt: skip
