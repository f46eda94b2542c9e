"""A new token for a connection in progress."""

from __future__ import annotations

from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import AuthorityUnavailable, Forbidden, InvalidApiKey, InvalidRequest, InvalidToken
from scopeguard.flow.authenticate import validate
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Flow
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.spec import credentials
from scopeguard.tokens import AccessToken


def renew(
    token: object, credential: Credential, held: AccessToken, max_bytes: int, context: Context
) -> Flow[AccessToken]:
    """Validate *token*, which is to replace *held*, the token of *credential*, and return it.

    The new token is validated like that of a request. Its issuer, subject, client and sender constraint must be those
    of *held*: the connection belongs to one caller, and the app decided about earlier messages for that caller. A token
    that names neither a subject nor a client is refused. Not checked here: whether the new token satisfies the
    requirement of the route.

    *token* comes from a message of the client. Anything but a string is denied like a malformed token.
    """
    if not isinstance(token, str):
        raise InvalidRequest(Reason.MALFORMED_CREDENTIALS, source="renewal")
    form = credentials.PADDED
    if credential.header is None:
        form = credentials.OPAQUE if context.issuers.takes_opaque else credentials.TOKEN68
    encoded = token.encode("utf-8", "surrogatepass")
    if credential.source is TokenSource.API_KEY and context.api_keys is not None:
        from scopeguard.spec.api_key import key_from_field  # noqa: PLC0415 - imported already, by the guard

        keys = context.api_keys.settings
        text = key_from_field((encoded,), keys.prefix, keys.checksum_key)
    else:
        text = credentials.check_token(encoded, max_bytes, "renewal", form)
    renewed = Credential(token=text, source=credential.source, header=credential.header)
    try:
        access = yield from validate(renewed, context)
    except (InvalidToken, InvalidApiKey, AuthorityUnavailable) as error:
        error.note(token=fingerprint(text))
        raise
    if holder_of(access) != holder_of(held) or (access.subject is None and access.client_id is None):
        raise Forbidden(Reason.RENEWAL_MISMATCH, token=fingerprint(text))
    return access


def holder_of(access: AccessToken) -> tuple[object, ...]:
    """Return the values that identify the holder of *access*: issuer, subject, client, and the key it is bound to."""
    return access.issuer, access.subject, access.client_id, access.sender_constrained, access.claims.get("cnf")
