"""Conditions: what a requirement may demand of an access token besides scopes.

They are arguments of :func:`~scopeguard.all_of`, :func:`~scopeguard.any_of` and ``requires()``, like scopes::

    requires("payments", UserAuthentication(acr=["urn:example:gold"], max_age=300))
    requires(AuthorizationDetail("payment_initiation", actions=["initiate"]))
    requires("payments", USER, DelegatedTo("https://agent.example"))

Conditions read verified claims. They do no I/O.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from scopeguard.config.checks import Converted, converted, function, strings, text, whole
from scopeguard.errors import (
    AccessDenied,
    ConfigurationError,
    Forbidden,
    InsufficientAuthorizationDetails,
    InsufficientUserAuthentication,
    InvalidToken,
)
from scopeguard.reasons import Reason
from scopeguard.tokens import AccessToken

# RFC 9470 §3: acr_values is a space-separated list inside a quoted-string.
_ACR_VALUE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class Condition(ABC):
    """A condition that an access token must satisfy. The base class of all conditions."""

    __slots__ = ()

    order: ClassVar[int] = 2
    """The precedence of refusals: if several conditions are not satisfied, that with the lowest number is reported."""

    @abstractmethod
    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        """Return the refusal of a *token* that does not satisfy this condition; ``None`` if it does.

        *now* is in seconds since the epoch. *leeway* is that of the issuer of the token, in seconds.
        """

    @abstractmethod
    def __str__(self) -> str:
        """A short text for audits and documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAuthentication(Condition):
    """The user signed in by a given method, or recently (RFC 9470).

    * *acr*: authentication context class references, in order of preference. The token must have one of them. They are
      compared as strings: a value does not include another.
    * *max_age*: the greatest number of seconds since the user signed in. The leeway of the issuer is added.

    Checked: the claims ``acr`` and ``auth_time`` of a JWT, or the members with these names of an introspection answer.
    A missing or malformed one does not satisfy the condition. Not checked: ``amr``, which is in ``AccessToken.amr``.

    The refusal is 401 with the error ``insufficient_user_authentication``, and with ``acr_values`` and ``max_age`` in
    the challenge. Challenges to requests without a valid token do not contain these values.

    Raises :class:`ConfigurationError` for an empty condition, for a value that a challenge cannot contain, and for a
    negative age.
    """

    acr: Converted[Iterable[str] | str, tuple[str, ...]] = converted(())
    max_age: int | None = None

    order: ClassVar[int] = 0

    def __post_init__(self) -> None:
        acr = strings(self.acr, "acr")
        for value in acr:
            if not _ACR_VALUE.fullmatch(value):
                raise ConfigurationError(
                    f"acr: {value!r} is not allowed in a challenge (RFC 9470 section 3): use printable ASCII without "
                    "space, quote and backslash"
                )
        object.__setattr__(self, "acr", tuple(dict.fromkeys(acr)))
        if self.max_age is not None:
            whole(self.max_age, "max_age", least=0)
        if not self.acr and self.max_age is None:
            raise ConfigurationError("UserAuthentication: needs acr, max_age or both")
        if self.max_age == 0:
            # RFC 9470 section 8: even the token of a new sign-in may be too old when it arrives.
            warnings.warn(
                "max_age=0 accepts only tokens of users who signed in within the leeway of the issuer; clients may "
                "repeat the sign-in without end: use a few seconds at least",
                stacklevel=4,
            )

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        """See :meth:`Condition.refuse`."""
        lacking: dict[str, Any] = {}
        if self.acr and token.acr not in self.acr:
            lacking["acr"] = token.acr or "absent"
        signed_in = token.auth_time
        # RFC 9470 section 6.1: auth_time is the time of the sign-in. A time in the future is wrong.
        if self.max_age is not None and (signed_in is None or not -leeway <= now - signed_in <= self.max_age + leeway):
            lacking["auth_time"] = "absent" if signed_in is None else f"{now - signed_in:.0f} seconds ago"
        if not lacking:
            return None
        return InsufficientUserAuthentication(
            acr_values=self.acr, max_age=self.max_age, client_id=token.client_id, token=token.fingerprint, **lacking
        )

    def __str__(self) -> str:
        parts = [f"acr {' or '.join(self.acr)}"] if self.acr else []
        return ", ".join(parts + ([] if self.max_age is None else [f"max_age {self.max_age}"]))


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


@dataclass(frozen=True, slots=True)
class DelegatedTo(Condition):
    """The party that acts for the subject has this *subject*, and this *issuer* if one is given (RFC 8693 section 4.1).

    Checked: the outermost ``act`` claim, which must be present. Not checked: the actors within it, which acted earlier,
    and ``may_act``, which is for the authorization server that exchanges tokens.

    The refusal is 403, without an error code.
    """

    subject: str
    issuer: str | None = None

    def __post_init__(self) -> None:
        text(self.subject, "DelegatedTo: subject", empty=False)
        if self.issuer is not None:
            text(self.issuer, "DelegatedTo: issuer", empty=False)

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        """See :meth:`Condition.refuse`."""
        actor = token.actor
        if actor is not None and actor.subject == self.subject and self.issuer in (None, actor.issuer):
            return None
        found = "absent" if actor is None else actor.subject or "without subject"
        return Forbidden(Reason.ACTOR_REFUSED, needed=self.subject, actor=found, token=token.fingerprint)

    def __str__(self) -> str:
        return f"delegated to {self.subject}"


@dataclass(frozen=True, slots=True)
class _Direct(Condition):
    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        actor = token.actor
        if actor is None:
            return None
        return Forbidden(Reason.ACTOR_REFUSED, actor=actor.subject or "", needed="none", token=token.fingerprint)

    def __str__(self) -> str:
        return "not delegated"


@dataclass(frozen=True, slots=True)
class _Principal(Condition):
    machine: bool

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        if token.machine is self.machine:  # None means that the issuer's policy cannot tell
            return None
        reason = Reason.MACHINE_REQUIRED if self.machine else Reason.USER_REQUIRED
        return Forbidden(reason, machine=token.machine, client_id=token.client_id, token=token.fingerprint)

    def __str__(self) -> str:
        return "a machine" if self.machine else "a user"


USER: Final[Condition] = _Principal(machine=False)
"""The token was issued for a user: ``AccessToken.machine`` is ``False``.

``None`` does not suffice: the issuer needs ``machine_signs``. The refusal is 403, without an error code.
"""

MACHINE: Final[Condition] = _Principal(machine=True)
"""The token was issued to a client that acts for itself: ``AccessToken.machine`` is ``True``.

With many providers, this only means that the client chose a certain name: see ``AccessToken.machine``. The refusal is
403, without an error code.
"""

NOT_DELEGATED: Final[Condition] = _Direct()
"""The token has no ``act`` claim: no other party acts for the subject. The refusal is 403, without an error code."""
