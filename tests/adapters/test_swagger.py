"""Swagger UI in a real browser: the page under /docs, its Authorize button, and operations tried out.

The page is FastAPI's own. It loads Swagger UI from a CDN; here the browser is given the same files from the package
``fastapi-swagger`` instead. The authorization server is another origin, as usual, so CORS takes part.
"""

from __future__ import annotations

import importlib
import importlib.resources
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import uvicorn

from environment import ROOT, skip_or_fail
from scopeguard.devserver import DevServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

INSERT, READ, ME = "insert_tables__table__rows_post", "read_tables__table__rows_get", "me_me_get"
ROW = '{"station": "Kew"}'


@pytest.fixture(scope="module")
def docs() -> Iterator[str]:
    """Yield the URL of the documentation page of examples/fastapi_app.py, with the authority of swagger_ui.py."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        patch.setenv("ISSUER", "http://127.0.0.1:9000")
        # The authority has a free port, so the app is made again when the port is known.
        with DevServer(importlib.import_module("swagger_ui").make_authority(origin)) as devserver:
            patch.setenv("ISSUER", devserver.url)
            module = importlib.reload(importlib.import_module("fastapi_app"))
            server = uvicorn.Server(uvicorn.Config(module.app, log_config=None, lifespan="off", ws="none"))
            thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
            thread.start()
            yield f"{origin}/docs"
            server.should_exit = True
            thread.join()
            listener.close()
            module.guard.close()
            for name in ("swagger_ui", "fastapi_app"):
                del sys.modules[name]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page that gets Swagger UI from a package. No script on it may fail."""
    try:
        assets = importlib.resources.files("fastapi_swagger") / "resources"
    except ModuleNotFoundError:
        skip_or_fail("the Python package fastapi_swagger is not installed")

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        kind = "text/javascript" if name.endswith(".js") else "text/css"
        route.fulfill(body=(assets / name).read_bytes(), content_type=kind)

    problems: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.route("https://cdn.jsdelivr.net/**/swagger-ui*", answer)
        page.route("https://fastapi.tiangolo.com/**", lambda route: route.abort())  # Its icon.
        yield page
    assert not problems


def status_of(page: Page, operation: str, body: str | None = None) -> int:
    """Try *operation* out and return the status of the response."""
    block = page.locator(f"#operations-default-{operation}")
    if "is-open" not in (block.get_attribute("class") or ""):
        block.locator(".opblock-summary-control").click()
        block.locator(".try-out__btn").click()
        if "__table__" in operation:
            block.locator("tr[data-param-name=table] input").fill("departures")
    if body is not None:
        block.locator("textarea.body-param__text").fill(body)
    api = page.url.partition("/docs")[0]
    with page.expect_response(lambda answer: answer.url.startswith((f"{api}/tables", f"{api}/me"))) as answered:
        block.locator("button.execute").click()
    return answered.value.status


def choose_scopes(page: Page, flow: str, *scopes: str) -> Locator:
    """Open the dialog, choose *scopes* of *flow*, and return the form."""
    page.locator(".auth-wrapper .authorize").first.click()
    form = page.locator(".auth-container", has_text=flow)
    for scope in scopes:
        form.locator(f"label[for*='{scope}-']").first.click()
    return form


def press_authorize(page: Page, form: Locator) -> int:
    """Press Authorize and return the status of the token response."""
    with page.expect_response("**/token") as answered:
        form.locator("button.authorize").click()
    return answered.value.status


def close_dialog(page: Page, form: Locator) -> None:
    form.get_by_text("Logout").wait_for()
    page.locator(".btn-done").first.click()


@pytest.mark.timeout(180)
def test_user_can_authorize_with_client_credentials_and_try_operations_out(docs: str, page: Page):
    page.goto(docs)
    page.locator(".opblock").first.wait_for()
    assert status_of(page, ME) == 401
    form = choose_scopes(page, "clientCredentials", "bigquery.insertdata")
    form.locator("input[name=client_id], #client_id_clientCredentials").first.fill("loader")
    form.locator("input[name=client_secret], #client_secret_clientCredentials").first.fill("for development")
    assert press_authorize(page, form) == 200
    close_dialog(page, form)
    assert status_of(page, ME) == 200
    assert status_of(page, INSERT, ROW) == 201
    assert status_of(page, READ) == 403


@pytest.mark.timeout(180)
def test_user_can_sign_in_with_an_authorization_code_and_log_out(docs: str, page: Page):
    page.goto(docs)
    page.locator(".opblock").first.wait_for()
    form = choose_scopes(page, "authorizationCode", "bigquery.insertdata", "bigquery.readonly")
    assert form.locator("#client_id_authorizationCode").input_value() == "swagger"
    assert form.get_by_text("Read rows").count() == 1
    with page.expect_popup() as opened:
        form.locator("button.authorize").click()
    opened.value.get_by_role("button", name="Deny").click()
    form.get_by_text("The user has not allowed it").wait_for()
    with page.expect_popup() as opened:
        form.locator("button.authorize").click()
    login = opened.value
    login.set_viewport_size({"width": 390, "height": 700})
    assert login.evaluate("document.documentElement.scrollWidth") <= 390
    assert "code_challenge_method=S256" in login.url
    login.get_by_label("bob").check()
    login.get_by_label("bigquery.readonly").uncheck()
    with page.expect_response("**/token") as answered:
        login.get_by_role("button", name="Allow").click()
    assert answered.value.status == 200
    close_dialog(page, form)
    assert status_of(page, ME) == 200
    shown = page.locator(f"#operations-default-{ME} .live-responses-table .highlight-code").first
    assert '"user": "bob"' in shown.inner_text()
    assert status_of(page, INSERT, ROW) == 201
    assert status_of(page, READ) == 403
    page.locator(".auth-wrapper .authorize").first.click()
    form.get_by_text("Logout").click()
    page.locator(".btn-done").first.click()
    assert status_of(page, ME) == 401
