"""Find the one credential of a request, and its place in the request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.token_sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.errors import InvalidRequest, InvalidToken, MissingCredentials
from scopeguard.flow.effects import Flow, ReadForm, ask
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec import credentials
from scopeguard.spec.subprotocol import token_from_subprotocols

if TYPE_CHECKING:
    from scopeguard.config.api_keys import ApiKeys

# Module constants: the look-up of an enumeration's member costs as much as the comparison.
_HEADER, _REFUSE = TokenSource.HEADER, StrayQueryToken.REFUSE
_OFF: Final = DPoPMode.OFF
_PREFLIGHT: Final = 'browsers send no token; put CORS middleware around the guard, or set cors_preflight="pass"'


# Not frozen: a frozen object takes twice as long to construct, and each validated token needs one.
@dataclass(slots=True, kw_only=True, eq=False)
class Credential:
    """A token or an API key as the request presented it, and the place where it was found."""

    token: str = field(repr=False)
    source: TokenSource
    header: str | None = None  # the field that holds only the token; None for Authorization
    is_dpop: bool = False  # the scheme was DPoP


def find_credential(
    request: RequestView,
    sources: TokenSources,
    headers: tuple[str | None, ...] = (None,),
    *,
    opaque: bool = False,
    dpop: DPoPMode = DPoPMode.OFF,
) -> Flow[Credential]:
    """Return the one token or API key of the request.

    A request with tokens in more than one enabled place is denied: "Clients MUST NOT use more than one method to
    transmit the token in each request" (RFC 6750 section 2). A request with a token and an API key is
    denied too, if the guard accepts keys on any route.

    *headers*: the fields that may hold the token, ``None`` for ``Authorization``. *opaque*: an issuer introspects
    opaque tokens, so that more characters are allowed. *dpop*: ``OFF`` if the scheme ``DPoP`` is unknown, ``REQUIRED``
    if it is the only one. Not checked: whether the token or the key is valid.
    """
    form = credentials.OPAQUE if opaque else credentials.TOKEN68
    found: list[Credential] = []
    absent: MissingCredentials | None = None  # why the header holds no token, if a reason is known
    for header in headers if sources.in_header else ():
        values = request.headers.get_all(header or "authorization")
        is_dpop = False
        try:
            if header is not None:
                token = credentials.token_from_field(values, sources.max_token_bytes)
            elif dpop is not _OFF and credentials.has_dpop_scheme(values):
                token, is_dpop = credentials.dpop_token(values[0], sources.max_token_bytes, form), True
            else:
                token = credentials.token_from_authorization(values, sources.max_token_bytes, form)
        except MissingCredentials as error:
            token, absent = None, error
        if token is not None:
            found.append(Credential(token=token, source=_HEADER, header=header, is_dpop=is_dpop))
    if sources.in_query:
        limits = {"max_bytes": sources.max_token_bytes, "max_parameters": sources.max_parameters}
        token = credentials.token_from_parameters(request.query, source="query", form=form, **limits)
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.QUERY))
    elif sources.stray_query_token is _REFUSE and credentials.has_access_token(request.query):
        raise InvalidRequest(Reason.QUERY_TOKEN_REFUSED)
    if sources.in_form and credentials.may_carry_form(request.method, request.headers.get_all("content-type")):
        body = yield from ask(ReadForm(limit=sources.max_form_bytes))
        token = credentials.token_from_form(
            body, max_bytes=sources.max_token_bytes, max_parameters=sources.max_parameters, form=form
        )
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.FORM))
    if sources.in_forwarded and sources.trusts(request.client):
        values = request.headers.get_all("x-forwarded-authorization")
        try:
            token = credentials.token_from_authorization(values, sources.max_token_bytes, form)
        except MissingCredentials as error:
            token, absent = None, error
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.FORWARDED))
    if sources.in_subprotocol and request.is_websocket:
        values = request.headers.get_all("sec-websocket-protocol")
        token = token_from_subprotocols(values, sources.max_token_bytes, form)
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.SUBPROTOCOL))
    if sources.api_keys is not None:
        found += _find_key(request, sources, sources.api_keys, found)
    if len(found) > 1:
        raise InvalidRequest(Reason.SEVERAL_METHODS, methods=" ".join(credential.source for credential in found))
    if not found or (dpop is DPoPMode.REQUIRED and not found[0].is_dpop):
        raise absent or (_without_proof(found[0]) if found else _nothing_found(request, sources))
    return found[0]


def _find_key(request: RequestView, sources: TokenSources, keys: ApiKeys, tokens: list[Credential]) -> list[Credential]:
    """Return a list with the API key of the request, empty if there is none. *tokens* are those that were found.

    A key in place of a token is refused here, before it could be sent to an authorization server.
    """
    if any(token.token.startswith(f"{keys.prefix}_") for token in tokens):
        raise InvalidToken(Reason.API_KEY_AS_TOKEN, header=keys.header)
    values = request.headers.get_all(keys.header_field)
    if not values:
        return []
    if tokens or credentials.has_token(request.headers.get_all("authorization")):  # one that is not read counts too
        raise InvalidRequest(Reason.TOKEN_AND_API_KEY, header=keys.header)
    if not sources.in_api_key:
        raise MissingCredentials(Reason.API_KEY_REFUSED, header=keys.header, setting="token_sources")
    from scopeguard.spec.api_key import key_from_field  # noqa: PLC0415 - imported already, by the guard

    text = key_from_field(values, keys.prefix, keys.checksum_key)
    return [Credential(token=text, source=TokenSource.API_KEY, header=keys.header_field)]


def _without_proof(found: Credential) -> MissingCredentials:
    """Return the error for a credential without a proof of possession, where one is required.

    It differs from that for no credential, with which an optional route admits a request.
    """
    if found.source is TokenSource.API_KEY:
        return MissingCredentials(Reason.API_KEY_REFUSED, header=found.header, setting='dpop="required"')
    return MissingCredentials(Reason.UNSUPPORTED_SCHEME, found="a bearer token", setting='dpop="required"')


def _nothing_found(request: RequestView, sources: TokenSources) -> MissingCredentials:
    """Return the error for a request without a token.

    If a place that is not read has a token, the error names that place.
    """
    # Fetch standard, "CORS-preflight fetch": a preflight has the method OPTIONS and no credentials.
    if request.method == "OPTIONS" and request.headers.get_all("access-control-request-method"):
        return MissingCredentials(Reason.NO_CREDENTIALS, preflight=_PREFLIGHT)
    if not sources.in_query and b"access_token=" in request.query:
        return MissingCredentials(Reason.NO_CREDENTIALS, ignored="the token in the query (token_sources)")
    return MissingCredentials(Reason.NO_CREDENTIALS)
