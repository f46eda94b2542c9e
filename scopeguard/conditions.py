"""Conditions: what a requirement may demand of an access token besides scopes.

They are arguments of :func:`~scopeguard.all_of`, :func:`~scopeguard.any_of` and ``requires()``, like scopes::

    requires("payments", UserAuthentication(acr=["urn:example:gold"], max_age=300))
    requires(AuthorizationDetail("payment_initiation", actions=["initiate"]))
    requires("payments", USER, DelegatedTo("https://agent.example"))

Conditions read verified claims. They do no I/O. Those that few routes have are in
:mod:`scopeguard.user_authentication` and :mod:`scopeguard.authorization_details`, and are imported when they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

from scopeguard.config.checks import text
from scopeguard.errors import (
    AccessDenied,
    Forbidden,
)
from scopeguard.reasons import Reason
from scopeguard.tokens import AccessToken


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
    """See :data:`NOT_DELEGATED`."""

    def refuse(self, token: AccessToken, now: float, leeway: float) -> AccessDenied | None:
        actor = token.actor
        if actor is None:
            return None
        return Forbidden(Reason.ACTOR_REFUSED, actor=actor.subject or "", needed="none", token=token.fingerprint)

    def __str__(self) -> str:
        return "not delegated"


@dataclass(frozen=True, slots=True)
class _Principal(Condition):
    """See :data:`USER` and :data:`MACHINE`."""

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
