"""When the client repeats token requests, and when it pauses them.

The pauses after failed fetches are in :mod:`scopeguard.state.client_token` and
:mod:`scopeguard.state.exchanged_tokens`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from scopeguard.client.settings import Policy
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Transport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Clock, Send
from scopeguard.reasons import Reason
from scopeguard.spec.outage_statuses import is_outage
from scopeguard.spec.retry_after import read_retry_after
from scopeguard.state.backoff import Backoff

BETWEEN_ATTEMPTS: Final = Backoff(first=0.25, longest=5.0)
"""The seconds between two attempts of one fetch, during which callers wait."""
LONGEST_RETRY_AFTER: Final = 300.0
"""The seconds without token requests for which a server may ask. A longer ``Retry-After`` is shortened."""
PAUSE_OF_A_REFUSED_CLIENT: Final = 60.0
"""The seconds without token requests after the server refused the client.

Only a new configuration helps, and some authorization servers lock clients that keep trying.
"""
PAUSE_OF_AN_EXCHANGE: Final = 1.0
"""The seconds after which a failed exchange may be tried again, if the server does not say."""


class RetryingTransport:
    """A transport that retries while the server is unavailable. It sleeps, and runs in a thread of its own.

    *authenticate* adds the credentials to each attempt. *closes*: close the connection after each exchange, for a
    client whose next one is usually an hour away.
    """

    def __init__(
        self,
        inner: Transport,
        authenticate: Callable[[Send], Send],
        *,
        retries: int,
        clock: Clock,
        closes: bool,
    ) -> None:
        self._inner = inner
        self._authenticate = authenticate
        self._retries = retries
        self._clock = clock
        self._closes = closes
        self._sleep: Callable[[float], None] = time.sleep

    def send(self, request: Send, /) -> Answer:
        """Return the answer of the last attempt, or raise its exception.

        A ``Retry-After`` of more than 5 seconds ends the attempts.
        """
        try:
            attempt = 0
            while True:
                final = attempt >= self._retries
                pause = 0.0
                try:
                    answer = self._inner.send(self._authenticate(request))
                except AuthorityUnavailable as error:
                    if final or error.reason is Reason.AUTHORITY_ANSWER_INVALID:
                        raise
                else:
                    pause = read_retry_after(answer.headers, self._clock.wall()) or 0.0
                    if final or pause > BETWEEN_ATTEMPTS.longest or not is_outage(answer.status):
                        return answer
                # The jitter spreads the requests of many clients after an outage. It needs no secure randomness.
                backoff = BETWEEN_ATTEMPTS.pause(attempt + 1) * random.uniform(0.5, 1)  # noqa: S311
                self._sleep(max(pause, backoff))
                attempt += 1
        finally:
            if self._closes:
                self._inner.close()

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


def make_transport(policy: Policy, authenticate: Callable[[Send], Send], *, closes: bool) -> RetryingTransport:
    """Return the transport for token requests with the settings *policy*. See :class:`RetryingTransport`."""
    inner = policy.transport or HttpxTransport()
    return RetryingTransport(
        inner,
        authenticate,
        retries=policy.retries,
        clock=policy.clock,
        closes=closes and policy.transport is None,
    )
