"""The text of the current request's access token, held apart from the token for the call to the next API.

Only a guard with ``keep_token_for_exchange`` or ``forward_token_dangerously`` holds it, and only for the request: in
the context variable of the current token, not in the request's state, a decision, a cache or a log. An engine that has
found the text hands it to the adapter with :func:`hand_over`. The adapter makes it current together with the token. The
two are bound by identity, so that the text of another request can never stand for a token.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from scopeguard.errors import ConfigurationError
from scopeguard.tokens import AccessToken, Serving, access_token, current_serving


class InboundToken:
    """The access token of a request with its text, which :class:`scopeguard.client.TokenExchange` needs.

    Pass it to a background task that needs a token for the next API (``exchange.for_token``). ``repr`` shows no text,
    and the object cannot be pickled or copied.

    * ``access_token``: the verified token.
    """

    __slots__ = ("_forwardable", "_text", "access_token")

    def __init__(self, access_token: AccessToken, text: str, *, forwardable: bool = False) -> None:
        self.access_token: AccessToken = access_token
        self._text = text
        self._forwardable = forwardable

    @property
    def text(self) -> str:
        """The text of the token, if the guard permits that it is forwarded.

        Raises :class:`ConfigurationError` without ``Guard(..., forward_token_dangerously=True)``. An API that gets a
        forwarded token can use it here, as the caller.
        """
        if not self._forwardable:
            raise ConfigurationError(
                "the token of a request is not forwarded: get a token for the next API with "
                "scopeguard.client.TokenExchange; only Guard(..., forward_token_dangerously=True) reveals the text"
            )
        return self._text

    def __call__(self) -> AccessToken:
        """Return the access token: the object stands for it as the current token of a context."""
        return self.access_token

    def inbound_token(self) -> InboundToken:
        """Return the object itself. Other objects that a context holds have the same method and return their part."""
        return self

    def __repr__(self) -> str:
        return f"InboundToken({self.access_token.fingerprint})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "an InboundToken cannot be pickled or copied, because it holds the text of an access token; exchange it "
            "in this process"
        )


def text_for_exchange(inbound: InboundToken) -> str:
    """Return the text of the token. Use it only in a request to the token endpoint of an exchange."""
    return inbound._text


_handed_over: Final[ContextVar[InboundToken | None]] = ContextVar("scopeguard_inbound_token", default=None)


def hand_over(inbound: InboundToken | None) -> None:
    """Leave *inbound* for the adapter that serves the request. ``None`` drops what was left."""
    _handed_over.set(inbound)


def to_serve(token: AccessToken | None) -> Serving:
    """Return what an adapter makes current for *token*: the token with its text, if its guard holds the text.

    The text comes from the engine, or from an outer layer that serves the same token.
    """
    inbound = _handed_over.get()
    if inbound is not None:
        _handed_over.set(None)
    if inbound is None or inbound.access_token is not token:
        inbound = inbound_token_or_none()
    return inbound if inbound is not None and inbound.access_token is token else token


def inbound_token_or_none() -> InboundToken | None:
    """Return the token of the current request with its text, or ``None`` if there is none or the guard drops it."""
    find = getattr(current_serving(), "inbound_token", None)
    inbound: InboundToken | None = None if find is None else find()
    return inbound


def inbound_token() -> InboundToken:
    """Return the token of the current request with its text, for a background task that outlives the request::

        exchange = TokenExchange(...)

        @app.post("/orders")
        async def order():
            jobs.submit(deliver, exchange.for_token(inbound_token()))

    Raises :class:`ConfigurationError` where :func:`scopeguard.access_token` does, and if the guard drops the
    text of tokens.
    """
    token = access_token()
    inbound = inbound_token_or_none()
    if inbound is None or inbound.access_token is not token:
        raise ConfigurationError(
            "the guard drops the text of access tokens, which a token exchange needs; set "
            "Guard(..., keep_token_for_exchange=True), in the file keep_token_for_exchange = true"
        )
    return inbound
