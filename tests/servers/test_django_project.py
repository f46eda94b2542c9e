"""A project as ``startproject`` and the tutorials lay it out, with the admin and an API, on real servers.

The guard is added in the settings only. With a token, or in the admin with a session, the responses are those of the
project without it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from django.core.management import call_command

import django_project
from scopeguard.testing import FakeAuthority, FakeClock
from server_process import ASGI_SERVERS, WSGI_SERVERS, ServerProcess, server_environment, server_process
from warm_start import WarmInterpreter

PASSWORD: Final = "sg-secret-of-the-admin"
AUDIENCE: Final = "https://api.test"
AUTHORITY: Final = "https://as.test"
FILES: Final = {
    "tutorial/quickstart/__init__.py": "",
    "tutorial/quickstart/api.py": """
from django.contrib.auth.models import Group, User
from rest_framework import permissions, serializers, viewsets


class UserSerializer(serializers.HyperlinkedModelSerializer):
    class Meta:
        model = User
        fields = ["url", "username", "email", "groups"]


class GroupSerializer(serializers.HyperlinkedModelSerializer):
    class Meta:
        model = Group
        fields = ["url", "name"]


class UserViewSet(viewsets.ModelViewSet):
    queryset = User.objects.all().order_by("pk")
    serializer_class = UserSerializer
    permission_classes = [permissions.IsAuthenticated]


class GroupViewSet(viewsets.ModelViewSet):
    queryset = Group.objects.all().order_by("pk")
    serializer_class = GroupSerializer
    permission_classes = [permissions.IsAuthenticated, permissions.DjangoModelPermissions]
""",
    "tutorial/api_urls.py": """
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path
from rest_framework import routers

from tutorial.quickstart.api import GroupViewSet, UserViewSet

router = routers.DefaultRouter()
router.register("users", UserViewSet)
router.register("groups", GroupViewSet)
urlpatterns = [
    path("", include(router.urls)),
    path("api-auth/", include("rest_framework.urls", namespace="rest_framework")),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),
]
""",
    "tutorial/with_api.py": """
from tutorial.settings import *

ALLOWED_HOSTS = ["*"]
INSTALLED_APPS += ["rest_framework"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 2,
}
ROOT_URLCONF = "tutorial.api_urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
""",
    "tutorial/guarded.py": f"""
from scopeguard import Guard, Issuer, Rule
from tutorial.with_api import *

INSTALLED_APPS += ["scopeguard.django"]
MIDDLEWARE += ["scopeguard.django.GuardMiddleware"]
REST_FRAMEWORK = {{
    **REST_FRAMEWORK, "DEFAULT_AUTHENTICATION_CLASSES": ["scopeguard.django.rest_framework.TokenAuthentication"]
}}
SCOPEGUARD = {{
    "GUARD": Guard(Issuer("{AUTHORITY}", audience="{AUDIENCE}", jwks_file=str(BASE_DIR / "jwks.json"))),
    "PUBLIC": ["/admin/{{path:path}}", "/static/{{path:path}}"],
    "RULES": [
        Rule("/{{rest:path}}", "directory.read", methods=["GET", "OPTIONS"]),
        Rule("/{{rest:path}}", "directory.write", methods=["POST", "PUT", "PATCH", "DELETE"]),
    ],
    "USER": "tutorial.people.find",
}}
""",
    "tutorial/people.py": """
def find(token):
    from django.contrib.auth.models import User

    return User.objects.filter(username=token.subject).first()
""",
    "served.py": f"""
import os

import django
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # some versions of uvicorn import an app in their event loop
django.setup()
call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")
from django.contrib.auth.models import Group, User

User.objects.create_superuser("admin", "admin@example.com", "{PASSWORD}")
User.objects.create_user("bob", "bob@example.com", "{PASSWORD}")
for name in ("one", "two", "three"):
    Group.objects.create(name=name)
del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
""",
}
SERVERS: Final = {
    "bare": (WSGI_SERVERS["gunicorn"], "served:wsgi", "tutorial.with_api"),
    "wsgi": (WSGI_SERVERS["gunicorn"], "served:wsgi", "tutorial.guarded"),
    "asgi": (ASGI_SERVERS["uvicorn-h11"], "served:asgi", "tutorial.guarded"),
}

# What the servers need, and takes longest to import.
IMPORTED: Final = (
    *("django.core.asgi", "django.core.management", "django.core.wsgi", "django.db.models"),
    *("gunicorn.app.wsgiapp", "gunicorn.workers.sync", "scopeguard.django", "uvicorn"),
)


class Project:
    """The project on three servers: without the guard, and with it on WSGI and ASGI."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        django_project.set_up_django()
        self.authority = FakeAuthority(AUTHORITY, audience=AUDIENCE, clock=FakeClock(wall=time.time()))
        keys = json.dumps(self.authority.authority.keys.key_set(self.authority.clock.wall()))
        self.servers: dict[str, ServerProcess] = {}
        interpreter = stack.enter_context(WarmInterpreter(*IMPORTED, environment=server_environment()))
        for name, (command, app, settings) in SERVERS.items():
            here = folder / name
            here.mkdir()
            call_command("startproject", "tutorial", str(here))
            for file, text in FILES.items():
                (here / file).parent.mkdir(exist_ok=True)
                (here / file).write_text(text, "utf-8")
            (here / "jwks.json").write_text(keys, "utf-8")
            environment = {"DJANGO_SETTINGS_MODULE": settings}
            process = server_process(command, here, app=app, environment=environment, interpreter=interpreter)
            self.servers[name] = stack.enter_context(process)

    def client(self, name: str, *, user: str | None = "admin", scopes: str = "directory.read directory.write") -> Any:
        """Return a client that acts for *user*: with a password at the server ``bare``, with a token at others."""
        headers, auth = {"Host": "api.test"}, None
        if user is not None and name == "bare":
            auth = httpx.BasicAuth(user, PASSWORD)
        elif user is not None:
            headers |= self.authority.bearer(scopes, subject=user, expires_in=36_000)
        base = f"http://127.0.0.1:{self.servers[name].port}"
        return httpx.Client(base_url=base, headers=headers, auth=auth, timeout=30)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with ExitStack() as stack:
        yield Project(tmp_path_factory.mktemp("project"), stack)


ASKED: Final[list[tuple[str, str, Any, dict[str, str]]]] = [
    ("GET", "/", None, {}),
    ("GET", "/users/", None, {}),
    ("GET", "/users/?page=2", None, {}),
    ("GET", "/users/1/", None, {}),
    ("GET", "/users/?format=api", None, {}),
    ("GET", "/groups/", None, {"Accept": "text/html"}),
    ("GET", "/groups/?page=2", None, {"Accept": "application/json; indent=4"}),
    ("HEAD", "/users/", None, {}),
    ("OPTIONS", "/users/", None, {}),
    ("GET", "/users", None, {}),
    ("GET", "/users.json", None, {}),
    ("POST", "/groups/", {"name": "four"}, {}),
    ("POST", "/groups/", {"name": "four"}, {}),
    ("PUT", "/groups/4/", {"name": "fünf"}, {}),
    ("PATCH", "/groups/4/", {"name": "six"}, {}),
    ("GET", "/groups/4/", None, {}),
    ("DELETE", "/groups/4/", None, {}),
    ("GET", "/groups/4/", None, {}),
    ("POST", "/users/", {"username": "admin"}, {}),
    ("PATCH", "/users/2/", {"groups": ["http://api.test/groups/1/"]}, {}),
    ("POST", "/users/1/", {}, {}),
    ("GET", "/nothing/", None, {}),
    ("GET", "/users/99/", None, {}),
]
_SECRETS: Final = re.compile(
    r'(?<="csrfToken": ")\w+|(?<=csrfmiddlewaretoken" value=")\w+'
    r"|(?<=csrftoken=)\w+|(?<=sessionid=)\w+|(?<=messages=)[^;]+|(?<=expires=)[^;]+"
)
_OF_SERVERS: Final = ("connection", "content-length", "date", "expires", "server", "transfer-encoding")


def _summarise(answer: httpx.Response) -> tuple[Any, ...]:
    fields = {name: _SECRETS.sub("", value) for name, value in answer.headers.items() if name not in _OF_SERVERS}
    varies = {part.strip().lower() for part in fields.pop("vary", "").split(",")} - {"authorization", ""}
    return answer.status_code, fields, varies, _SECRETS.sub("", answer.text)


def _differences(asked: str, answers: list[httpx.Response]) -> list[str]:
    """Return what differs between the first of *answers* and the others."""
    before, *others = (_summarise(answer) for answer in answers)
    return [f"{asked}: {_first_difference(str(before), str(after))}" for after in others if after != before]


def _first_difference(before: str, after: str) -> str:
    at = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    near = slice(max(0, at - 60), at + 100)
    return f"{after[near]!r} instead of {before[near]!r}"


def test_the_api_answers_with_a_token_as_before_with_a_password(project: Project):
    different = []
    with ExitStack() as stack:
        clients = [stack.enter_context(project.client(name)) for name in SERVERS]
        for method, target, body, headers in ASKED:
            answers = [one.request(method, target, json=body, headers=headers) for one in clients]
            different += _differences(f"{method} {target}", answers)
        # The permissions of Django, which a user has by the row that the token names.
        others = [stack.enter_context(project.client(name, user="bob")) for name in SERVERS]
        answers = [one.post("/groups/", json={"name": "of bob"}) for one in others]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
        different += _differences("POST /groups/ as bob", answers)
    assert not different, "\n".join(different)


def test_the_admin_works_with_a_session_and_without_a_token(project: Project):
    different = []
    with ExitStack() as stack:
        clients = [stack.enter_context(project.client(name, user=None)) for name in SERVERS]

        def ask(method: str, target: str, **fields: str) -> list[httpx.Response]:
            def one(client: httpx.Client) -> httpx.Response:
                data = {**fields, "csrfmiddlewaretoken": client.cookies["csrftoken"]} if fields else None
                return client.request(method, target, data=data)

            answers = [one(client) for client in clients]
            different.extend(_differences(f"{method} {target}", answers))
            return answers

        ask("GET", "/admin/")
        ask("GET", "/static/admin/css/base.css")
        ask("GET", "/admin/login/?next=/admin/")
        answers = ask("POST", "/admin/login/?next=/admin/", username="admin", password=PASSWORD, next="/admin/")
        assert [answer.status_code for answer in answers] == [302, 302, 302]
        ask("POST", "/admin/auth/group/add/", name="made here")
        pages = ask("GET", "/admin/auth/group/")
        assert all("made here" in page.text for page in pages)
        # The session opens the admin, and nothing of the API.
        for client in clients[1:]:
            for method, target in (("GET", "/users/"), ("POST", "/groups/"), ("GET", "/api-auth/login/")):
                refused = client.request(method, target, headers={"X-CSRFToken": client.cookies["csrftoken"]})
                assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
        ask("POST", "/admin/logout/", done="yes")
        ask("GET", "/admin/")
    assert not different, "\n".join(different)


@pytest.mark.parametrize("guarded", ["wsgi", "asgi"])
def test_no_page_of_the_api_opens_without_a_token_or_its_scope(project: Project, guarded: str):
    wrong = []
    mint = project.authority.bearer
    tokens = {
        "no token": (401, {}),
        "an expired one": (401, mint("directory.read directory.write", subject="admin", expires_in=-60)),
        "another scope": (403, mint("directory", subject="admin", expires_in=36_000)),
    }
    with project.client(guarded, user=None) as client:
        for method, target, body, headers in ASKED:
            for name, (status, field) in tokens.items():
                answer = client.request(method, target, json=body, headers={**headers, **field})
                kind = answer.headers["content-type"]
                if answer.status_code != status or kind != "application/problem+json":
                    wrong.append(f"{method} {target} with {name}: {answer.status_code} {kind}")
    assert not wrong, "\n".join(wrong)
