"""``request.user`` for a request with an access token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.utils.functional import SimpleLazyObject

from scopeguard.tokens import AccessToken


class TokenUser:
    """The user of a verified access token in a project without the setting ``USER``. It is not a row of a table.

    It has no Django permissions and is not a staff user, whatever the token says: scopes are checked by
    ``requires``. Two issuers may use the same subject, so identify a user by ``identity``, the pair of both.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False
    pk = None
    id = None

    def __init__(self, token: AccessToken) -> None:
        self.token: AccessToken = token
        self.identity: tuple[str, str | None] = token.identity

    @property
    def username(self) -> str:
        """The subject of the token, or else its client ID. It does not identify a user: see ``identity``."""
        return self.token.display_name

    def get_username(self) -> str:
        """Return :attr:`username`, as models of users do."""
        return self.username

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Return ``False``: a token grants scopes, not Django permissions."""
        del perm, obj
        return False

    def has_perms(self, perm_list: Iterable[str], obj: Any = None) -> bool:
        """Return whether *perm_list* is empty."""
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, module: str) -> bool:
        """Return ``False``, as :meth:`has_perm` does."""
        return self.has_perm(module)

    def __str__(self) -> str:
        return self.username

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenUser) and self.identity == other.identity and self.token == other.token

    def __hash__(self) -> int:
        return hash(self.identity)


def set_user(request: Any, token: AccessToken, find_user: Callable[[AccessToken], Any] | None) -> None:
    """Set ``request.user`` and ``request.auser`` for *token*.

    *find_user* is called when the user is first read, at most once for a request. If it returns ``None`` or a user
    with ``is_active = False``, the user is anonymous.
    """
    if find_user is None:
        user: Any = TokenUser(token)
    else:
        user = SimpleLazyObject(lambda: _active_user(find_user(token)))

    async def auser() -> Any:
        # The function may use the database, which Django refuses in an event loop.
        if find_user is not None:
            await sync_to_async(bool)(user)
        return user

    request.user = user
    request.auser = auser


def _active_user(found: Any) -> Any:
    if found is not None and getattr(found, "is_active", True):
        return found
    from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415 - models load after the settings

    return AnonymousUser()
