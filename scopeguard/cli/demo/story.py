"""What happens in the demo, step by step, and what is expected of each exchange.

An exchange that turns out otherwise ends the story with :class:`Surprise`, which names the step.
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
from scopeguard.cli.demo.world import LIFETIME, World
from scopeguard.client import ClientCredentials, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.spec.challenge_parser import parse_challenges

ROWS: Final = "/tables/trips/rows"
EXPORT: Final = "/tables/trips/export"


class Surprise(Exception):
    """A step went otherwise than expected."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The answer an exchange should get: its status, the OAuth error code of its challenge, and what *body* holds.

    ``asked`` are requests that the authorization server must have seen for it, in any order, ``None`` for anything.
    """

    status: int
    error: str | None = None
    body: tuple[tuple[str, object], ...] = ()
    asked: tuple[str, ...] | None = None


class Story:
    """The steps, told on *screen*."""

    def __init__(self, world: World, screen: Screen) -> None:
        self.world = world
        self.screen = screen
        self.loader: ClientCredentials = world.client("loader")
        self.reader: ClientCredentials = world.client("reader")
        self.wait: float = 0.0  # seconds, as the last Retry-After said
        self._step = 0
        self._title = ""

    def tell(self) -> int:
        """Tell all steps; how many there were."""
        for step in STEPS:
            try:
                step(self)
            except (httpx.HTTPError, TokenEndpointError, TokenEndpointUnavailable) as failure:
                raise self._surprise(f"{type(failure).__name__} instead of an answer") from failure
        return self._step

    def _surprise(self, problem: str) -> Surprise:
        return Surprise(f"step {self._step}, {self._title!r}: {problem}")

    def step(self, title: str) -> None:
        """A new step begins."""
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
    ) -> httpx.Response:
        """Send one request, show it, and hold the answer against *expected*.

        *auth* fetches a token and sends it by itself, *token* is sent as it is, and *query* may end with one. Whichever
        it is, it is shown as *shown*. *base*: another process of the API.
        """
        world = self.world
        url = (base or world.api) + path
        target = path
        if query:
            visible, parameter, _ = query.partition("access_token=")
            url, target = f"{url}?{query}", f"{path}?{visible}{parameter}{shown}"
        self.screen.request(method, target, f"Authorization: Bearer {shown}" if token or auth else "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = world.http.request(method, url, headers=headers, auth=auth)
        reason, asked = world.new_reason(), world.new_requests()
        self.screen.response(response, reason)
        self.screen.behind(asked)
        self._check(response, asked, expected)
        return response

    def _check(self, response: httpx.Response, asked: list[str], expected: Expected) -> None:
        problems: list[str] = []
        if response.status_code != expected.status:
            problems.append(f"status {expected.status} was expected, {response.status_code} came")
        challenges = parse_challenges(response.headers.get_list("www-authenticate"))
        error = next((challenge.parameters.get("error") for challenge in challenges), None)
        if error != expected.error:
            problems.append(f"error code {expected.error} was expected, {error} came")
        if response.status_code in (401, 403) and not challenges:
            problems.append("a challenge was expected")
        if response.status_code == 503 and "retry-after" not in response.headers:
            problems.append("Retry-After was expected")
        if response.is_success:
            body: dict[str, Any] = response.json()
            problems += [
                f"{name}: {wanted!r} expected, {body.get(name)!r} came"
                for name, wanted in expected.body
                if body.get(name) != wanted
            ]
        if expected.asked is not None and sorted(expected.asked) != sorted(asked):
            problems.append(f"requests to the authorization server: {expected.asked} expected, {asked} seen")
        if problems:
            raise self._surprise("; ".join(problems))


def token_of(client: str, scope: str) -> str:
    """How a token is shown."""
    return f"<{client}'s token, {scope}>"


LOADER: Final = token_of("loader", INSERT)
READER: Final = token_of("reader", READ)
TOKEN: Final = "POST /token"
KEYS: Final = ("GET /.well-known/oauth-authorization-server", "GET /jwks")


def no_token(story: Story) -> None:
    story.step("Without a token only what is declared public can be had")
    story.exchange("GET", "/healthz", Expected(200, asked=()))
    story.exchange("GET", ROWS, Expected(401, asked=()))
    story.screen.why("No token is no error: the challenge only says how to come back.")


def wrong_scope(story: Story) -> None:
    story.step("A good token that may not do this")
    story.exchange(
        "POST", ROWS, Expected(403, "insufficient_scope", asked=(TOKEN, *KEYS)), auth=story.reader, shown=READER
    )
    story.screen.why("Keys fetched, signature checked: a good token, which lacks the scope that the challenge names.")


def right_scope(story: Story) -> None:
    story.step("The right scope")
    story.exchange(
        "POST", ROWS, Expected(200, body=(("by", "loader"),), asked=(TOKEN,)), auth=story.loader, shown=LOADER
    )
    story.screen.why("Keys and tokens are held now: from here on nobody waits for the authorization server.")


def two_tokens(story: Story) -> None:
    story.step("Two tokens in one request")
    token = story.reader.token().access_token
    story.exchange(
        "GET", EXPORT, Expected(400, "invalid_request", asked=()),
        token=token, query=f"access_token={token}", shown=READER,
    )  # fmt: skip
    story.screen.why("One method in a request (RFC 6750): which token would count is not for the guard to guess.")


def query_token(story: Story) -> None:
    story.step("A token in the query: only where a route allows it")
    token = story.reader.token().access_token
    query = f"format=csv&access_token={token}"
    story.exchange(
        "GET", EXPORT, Expected(200, body=(("query_the_app_sees", "format=csv"),), asked=()), query=query, shown=READER
    )
    story.exchange("GET", ROWS, Expected(401, asked=()), query=query, shown=READER)
    story.screen.why("Only this route allows it, and its app never sees the token. Elsewhere it is ignored.")


def bad_tokens(story: Story) -> None:
    story.step("Tokens that are not good: one was changed, one is for another API")
    tampered = with_scope(story.reader.token().access_token, INSERT)
    story.exchange(
        "POST",
        ROWS,
        Expected(401, "invalid_token", asked=("GET /jwks",)),
        token=tampered,
        shown=f"<reader's token, scope changed to {INSERT}>",
    )
    foreign = story.world.client("biller").token().access_token
    story.exchange(
        "POST",
        ROWS,
        Expected(401, "invalid_token", asked=(TOKEN,)),
        token=foreign,
        shown="<biller's token, for another API>",
    )
    story.screen.why("The caller is not told which check failed; the log knows. A newer key was looked for, once.")


def with_scope(token: str, scope: str) -> str:
    """*token* with another scope and the old signature: what an attacker without the key can do."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    changed = json.dumps({**claims, "scope": scope}, separators=(",", ":")).encode()
    return f"{header}.{base64.urlsafe_b64encode(changed).decode().rstrip('=')}.{signature}"


def expiry(story: Story) -> None:
    story.step("An hour passes, and the tokens expire")
    old = story.loader.token().access_token
    story.world.clock.advance(LIFETIME + 60)
    story.exchange(
        "POST", ROWS, Expected(401, "invalid_token", asked=()), token=old, shown="<loader's token from before>"
    )
    story.exchange(
        "POST", ROWS, Expected(200, body=(("by", "loader"),), asked=(TOKEN, *KEYS)), auth=story.loader, shown=LOADER
    )
    story.screen.why("The demo moved its clocks on. The client replaced its token by itself, and the guard its keys.")


def rotation(story: Story) -> None:
    story.step("The authorization server changes its signing key")
    story.world.authority.rotate()
    story.exchange("POST", ROWS, Expected(200, asked=()), auth=story.loader, shown="<token signed with the old key>")
    story.exchange(
        "POST", ROWS, Expected(200, asked=(TOKEN, "GET /jwks")),
        auth=story.world.client("loader"), shown="<token signed with the new key>",
    )  # fmt: skip
    story.screen.why("A key never seen before: the guard fetched the key set once, and refused nobody.")


def outage(story: Story) -> None:
    story.step("The authorization server goes down")
    story.world.stop_authority()
    story.exchange("POST", ROWS, Expected(200, asked=()), auth=story.loader, shown=LOADER)
    refused = story.exchange(
        "POST", ROWS, Expected(503, asked=()), auth=story.loader, shown=f"{LOADER} (to a new process)",
        base=story.world.second_process,
    )  # fmt: skip
    story.wait = float(refused.headers["retry-after"])
    story.screen.why("Held keys serve on, a day at most. Without keys nothing can be judged: 503, and never 401.")


def recovery(story: Story) -> None:
    story.step("The authorization server is back")
    story.world.start_authority()
    story.world.clock.advance(story.wait)
    story.exchange(
        "POST", ROWS, Expected(200, asked=KEYS), auth=story.loader, shown=f"{LOADER} (to the new process)",
        base=story.world.second_process,
    )  # fmt: skip
    story.screen.why("Retry-After was waited for (the clocks were moved again), and all is well.")


STEPS: Final[tuple[Callable[[Story], None], ...]] = (
    no_token, wrong_scope, right_scope, two_tokens, query_token, bad_tokens, expiry, rotation, outage, recovery,
)  # fmt: skip
