"""The condition that an object in the ``authorization_details`` of a token allows the operation (RFC 9396)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scopeguard.conditions import Condition
from scopeguard.config.checks import Converted, converted, function, strings, text
from scopeguard.errors import (
    AccessDenied,
    InsufficientAuthorizationDetails,
    InvalidToken,
)
from scopeguard.reasons import Reason
from scopeguard.tokens import AccessToken


@dataclass(frozen=True, slots=True)
class AuthorizationDetail(Condition):
    """An object in the ``authorization_details`` of the token allows the operation (RFC 9396).

    At least one object must have this *type*, and must satisfy all arguments:

    * *actions*, *locations*, *datatypes*, *privileges*: the member with this name contains all of these values.
    * *identifier*: the member ``identifier`` has this value.
    * *where*: a function that gets the object, read-only, and returns ``True`` if it allows the operation. It must not
      block. A result other than ``True`` and ``False`` raises :class:`TypeError`; exceptions are not caught.

    Values are compared as strings, without normalisation (RFC 9396 section 12). Without *locations*, an object that has
    ``locations`` must name an audience of the token there: an object for another resource server allows nothing here.
    Not checked: other members of the object.

    The refusal is 403 with ``insufficient_scope``, without a ``scope``, because no scope would help. If the claim is
    not an array of objects with a ``type``, the token is invalid (401).
    """

    type: str
    actions: Converted[Iterable[str], tuple[str, ...]] = converted(())
    locations: Converted[Iterable[str], tuple[str, ...]] = converted(())
    datatypes: Converted[Iterable[str], tuple[str, ...]] = converted(())
    privileges: Converted[Iterable[str], tuple[str, ...]] = converted(())
    identifier: str | None = None
    where: Callable[[Mapping[str, Any]], bool] | None = None

    def __post_init__(self) -> None:
        text(self.type, "AuthorizationDetail: type", empty=False)
        for name in _LISTS:
            object.__setattr__(self, name, strings(getattr(self, name), f"AuthorizationDetail: {name}"))
        if self.identifier is not None:
            text(self.identifier, "AuthorizationDetail: identifier")
        if self.where is not None:
            function(self.where, "AuthorizationDetail: where", "a function of one authorization detail")

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        """See :meth:`Condition.refuse`."""
        details = token.claims.get("authorization_details", ())
        if not isinstance(details, tuple) or not all(map(_is_detail, details)):
            return InvalidToken(Reason.MALFORMED_CLAIM, claim="authorization_details", token=token.fingerprint)
        if any(self._fits(detail, token.audience) for detail in details):
            return None
        return InsufficientAuthorizationDetails(needed=str(self), client_id=token.client_id, token=token.fingerprint)

    def _fits(self, detail: Mapping[str, Any], audience: tuple[str, ...]) -> bool:
        if detail["type"] != self.type:
            return False
        for name in _LISTS:
            needed, given = getattr(self, name), detail.get(name)
            if needed and not (isinstance(given, tuple) and set(needed) <= set(filter(_is_text, given))):
                return False
        if "locations" in detail and not self.locations:
            given = detail["locations"]
            if not (isinstance(given, tuple) and any(location in audience for location in given)):
                return False
        if self.identifier is not None and detail.get("identifier") != self.identifier:
            return False
        if self.where is None:
            return True
        fits = self.where(detail)
        if not isinstance(fits, bool):  # such as a coroutine, which is truthy
            raise TypeError(f"AuthorizationDetail: where must return True or False, not {type(fits).__name__}")
        return fits

    def __str__(self) -> str:
        named = [f"{name} {' '.join(getattr(self, name))}" for name in _LISTS if getattr(self, name)]
        return ", ".join([f"authorization_details {self.type}", *named])


_LISTS: Final = ("actions", "locations", "datatypes", "privileges")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_detail(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)
