"""Django: middleware that requires a token for every route, decorators for views, and system checks.

    # settings.py
    INSTALLED_APPS = [..., "scopeguard.django"]
    MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "scopeguard.django.GuardMiddleware", ...]
    SCOPEGUARD = {
        "GUARD": Guard(Issuer("https://auth.example.com", audience="https://api.example.com")),
        "PUBLIC": ["/admin/{path:path}"],
    }

    # views.py
    @requires(any_of("bigquery.insertdata", "bigquery"))
    def insert(request):
        return JsonResponse({"subject": request.access_token.subject})

    @public
    def health(request):
        return HttpResponse("ok")

The keys of ``SCOPEGUARD``:

* ``GUARD``: a :class:`~scopeguard.Guard` or its dotted path; or ``FILE``: the path of a TOML file.
* ``PUBLIC``: path templates that need no token. They do not change what other paths need.
* ``RULES``: the requirement of each route. Default: the rules of the guard.
* ``USER``: a function that returns your user for a verified :class:`~scopeguard.AccessToken`, or its dotted path.
* ``ENFORCE_CSRF``: ``True`` to demand Django's CSRF token even from requests with a bearer token.
* ``DEBUG``: ``True`` or a path for a page that shows the last decisions, for development on one machine only.
"""

from __future__ import annotations

from scopeguard.extras import explain_missing

try:
    import django as _django
except ModuleNotFoundError as _missing:
    raise explain_missing(_missing, "django") from None

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.django.configuration import get_guard
from scopeguard.django.decorators import optional, public, requires
from scopeguard.django.middleware import GuardMiddleware
from scopeguard.django.users import TokenUser
from scopeguard.tokens import access_token, access_token_or_none

__all__ = [
    "REQUIREMENT", "GuardMiddleware", "TokenUser", "access_token", "access_token_or_none", "get_guard", "optional",
    "public", "requires",
]  # fmt: skip
del _django
