"""Which requests need Django's CSRF token."""

from __future__ import annotations

from scopeguard.django.request_state import RequestState


def exempt_from_csrf(state: RequestState) -> None:
    """Exempt a request with an accepted token from Django's CSRF check, if it cannot be forged.

    A browser adds cookies to a request of another site, but never an ``Authorization`` field with a token. So a request
    with a token in that field is not forged. The setting ``ENFORCE_CSRF`` demands the CSRF token from it as well.
    """
    if not state.is_ambient and not state.layer.enforces_csrf:
        state.request._dont_enforce_csrf_checks = True
