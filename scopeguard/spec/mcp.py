"""Messages of the Model Context Protocol over HTTP: JSON-RPC bodies, and the header fields that repeat parts of them.

Since version 2026-07-28, a request repeats its method and its name in ``Mcp-Method`` and ``Mcp-Name``, so that
intermediaries can route without reading the body. Header and body must agree. Older versions do not have these fields,
and a client could send anything in them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.errors import Forbidden, MalformedMessage
from scopeguard.reasons import Reason
from scopeguard.spec.challenge import Response
from scopeguard.spec.strict_json import MalformedJSON, parse_object

FIELDS_SINCE: Final = "2026-07-28"
"""The version of the protocol since which requests carry ``Mcp-Method`` and ``Mcp-Name``."""

NAME_MEMBERS: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
"""The methods that act on one tool, prompt or resource, and the member of ``params`` that names it."""

_WITH_NAME_FIELD: Final = frozenset(("tools/call", "prompts/get", "resources/read"))
_MEMBERS: Final = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))
_PARAMS: Final = frozenset(("name", "uri", "arguments"))
# The arguments of a tool may be a deep structure; the strict parser allows less by default.
_MAX_DEPTH: Final = 128
_FIELDS: Final = frozenset(
    (b"origin", b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"content-type", b"content-encoding")
)
_DATE: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")
_CHARSET: Final = re.compile(rb'charset[ \t]*=[ \t]*"?utf-?8"?[ \t]*(?:;|\Z)', re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Fields:
    """The header fields of a request that matter for MCP.

    * ``are_required``: whether the version of the protocol requires ``Mcp-Method`` and ``Mcp-Name``. If not, they are
      not used.
    * ``method``, ``name``: their values; ``None`` if absent.
    * ``origin``: the value of ``Origin``; ``None`` if absent.
    """

    are_required: bool
    method: bytes | None
    name: bytes | None
    origin: bytes | None


@dataclass(slots=True, kw_only=True)
class Message:
    """One JSON-RPC message of a client.

    * ``method``: ``None`` for a response to a request of the server.
    * ``name``: the tool, prompt or resource of a method in :data:`NAME_MEMBERS`; otherwise ``None``.
    * ``params``: empty if the message has none, and if it was read from header fields.
    * ``id``: the ``id``, to repeat it in an error; ``None`` if there is none, or it is neither a string nor an integer.
    * ``is_notification``: whether it has no ``id``.
    """

    method: str | None
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str | int | None = None
    is_notification: bool = False

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of a tool or prompt; the parameters of any other method."""
        if self.method in ("tools/call", "prompts/get"):
            return self.params.get("arguments") or {}
        return self.params


def read_fields(pairs: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return the fields that matter among *pairs*, the header fields of a request.

    Raises :class:`~scopeguard.errors.MalformedMessage` for a field that occurs twice, and for a body that is compressed
    or not in UTF-8: an app that decodes it would read another message. Raises :class:`~scopeguard.errors.Forbidden` for
    two ``Origin`` fields.
    """
    found: dict[bytes, bytes] = {}
    for pair in pairs:
        name = pair[0].lower()
        if name in _FIELDS:
            if name in found:
                if name == b"origin":
                    raise Forbidden(Reason.ORIGIN_REFUSED, problem="several Origin fields")
                raise MalformedMessage(Reason.HEADER_MISMATCH, repeated=name.decode("ascii"))
            found[name] = pair[1]
    if b"content-encoding" in found and found[b"content-encoding"].strip(b" \t").lower() != b"identity":
        raise MalformedMessage(Reason.MALFORMED_MESSAGE, problem="the body has a Content-Encoding")
    media = found.get(b"content-type", b"")
    if b"charset" in media.lower() and (media.lower().count(b"charset") > 1 or not _CHARSET.search(media)):
        raise MalformedMessage(Reason.MALFORMED_MESSAGE, problem="the charset is not UTF-8")
    return Fields(
        are_required=_requires_fields(found.get(b"mcp-protocol-version")),
        method=found.get(b"mcp-method"),
        name=found.get(b"mcp-name"),
        origin=found.get(b"origin"),
    )


def _requires_fields(version: bytes | None) -> bool:
    """Return whether *version* requires the fields. A value that is not a date counts as a later version."""
    if version is None:
        return False
    version = version.strip(b" \t")
    return _DATE.fullmatch(version) is None or version >= FIELDS_SINCE.encode("ascii")


def decode_field(value: bytes | None) -> str | None:
    """Return the text of an ``Mcp-Name`` field, ``None`` for a value without one.

    ``=?base64?...?=`` holds UTF-8 in base64. Any other value stands for itself, and must be ASCII.
    """
    try:
        text = None if value is None else value.strip(b" \t").decode("ascii")
        encoded = None if text is None else _ENCODED.fullmatch(text)
        if encoded is None:
            return text
        content = base64.b64decode(encoded[1], validate=True)
        # Trailing bits that are not zero would give one name several spellings.
        return content.decode("utf-8") if base64.b64encode(content) == encoded[1].encode("ascii") else None
    except (UnicodeDecodeError, binascii.Error):
        return None


def message_in_fields(fields: Fields) -> Message | None:
    """Return the message that *fields* describe; ``None`` if one is missing, or the version does not require them."""
    if not fields.are_required:
        return None
    method = decode_field(fields.method)
    name = decode_field(fields.name) if method in _WITH_NAME_FIELD else None
    if method is None or (name is None and method in NAME_MEMBERS):
        return None
    return Message(method=method, name=name)


def parse_message(body: bytes) -> Message:
    """Parse the JSON-RPC message in *body*.

    Raises :class:`~scopeguard.errors.MalformedMessage` for a batch, for members that occur twice or differ from a known
    one in case only, for a message that is both a request and a response, and for a name that is not a string. Not
    checked: ``jsonrpc``, and parameters that do not name a tool, prompt or resource.
    """
    if body.lstrip(b" \t\r\n").startswith(b"["):
        # Version 2025-03-26 had batches. One response cannot refuse one message of several.
        raise MalformedMessage(Reason.INVALID_MESSAGE, problem="a batch")
    try:
        members = parse_object(body, max_depth=_MAX_DEPTH)
    except MalformedJSON as error:
        raise MalformedMessage(Reason.MALFORMED_MESSAGE, problem=str(error)) from None
    given = members.get("id")
    message_id = given if isinstance(given, str | int) and not isinstance(given, bool) else None
    _check_spelling(members, _MEMBERS, message_id)
    method = members.get("method")
    is_response = "result" in members or "error" in members
    if "method" not in members and is_response:
        return Message(method=None, id=message_id)
    if not isinstance(method, str) or not method or is_response:
        raise _invalid("neither a request nor a response", message_id)
    params = members.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise _invalid("params is not an object", message_id)
    message = Message(method=method, params=params, id=message_id, is_notification="id" not in members)
    if method in NAME_MEMBERS:
        message.name = _name_of(method, params, message_id)
    return message


def _name_of(method: str, params: Mapping[str, Any], message_id: str | int | None) -> str:
    _check_spelling(params, _PARAMS, message_id)
    name = params.get(NAME_MEMBERS[method])
    if not isinstance(name, str):
        raise _invalid(f"{NAME_MEMBERS[method]} is not a string", message_id)
    if not isinstance(params.get("arguments"), dict | None):
        raise _invalid("arguments is not an object", message_id)
    return name


def _check_spelling(members: Mapping[str, Any], known: frozenset[str], message_id: str | int | None) -> None:
    # Some parsers match names of members without regard to case, and would read another message.
    for name in members:
        if name not in known and name.casefold() in known:
            raise _invalid("a member has a different spelling", message_id)


def _invalid(problem: str, message_id: str | int | None) -> MalformedMessage:
    return MalformedMessage(Reason.INVALID_MESSAGE, message_id=message_id, problem=problem)


def check_agreement(fields: Fields, message: Message) -> None:
    """Raise :class:`~scopeguard.errors.MalformedMessage` unless *fields* and *message* agree.

    Nothing is compared if the version of the protocol does not have the fields. The values are compared exactly.
    ``Mcp-Method`` may be absent from a notification.
    """
    if not fields.are_required:
        return
    if message.method is None:
        raise _invalid("this version has no responses of clients", message.id)
    if fields.method is None:
        if not (message.is_notification and message.method.startswith("notifications/")):
            raise MalformedMessage(Reason.HEADER_MISMATCH, message_id=message.id, missing="Mcp-Method")
    elif decode_field(fields.method) != message.method:
        raise MalformedMessage(Reason.HEADER_MISMATCH, message_id=message.id, differs="Mcp-Method")
    if message.method in _WITH_NAME_FIELD:
        if fields.name is None:
            raise MalformedMessage(Reason.HEADER_MISMATCH, message_id=message.id, missing="Mcp-Name")
        if decode_field(fields.name) != message.name:
            raise MalformedMessage(Reason.HEADER_MISMATCH, message_id=message.id, differs="Mcp-Name")


# JSON-RPC 2.0 section 5.1, and HeaderMismatch of MCP 2026-07-28.
_CODES: Final = {
    Reason.HEADER_MISMATCH: -32020,
    Reason.MALFORMED_MESSAGE: -32700,
    Reason.INVALID_MESSAGE: -32600,
}


def write_json_rpc(error: MalformedMessage) -> Response:
    """Return *error* as a response: a JSON-RPC error, without a challenge."""
    document = {
        "jsonrpc": "2.0",
        "id": error.message_id,
        "error": {"code": _CODES[error.reason], "message": error.description},
    }
    body = json.dumps(document).encode("ascii")
    headers = (("content-type", "application/json"), ("content-length", str(len(body))), ("cache-control", "no-store"))
    return Response(error.status, headers, body)
