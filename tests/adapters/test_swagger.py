"""Swagger UI in a real browser: the page under /docs, its Authorize button, and operations tried out.

The page is FastAPI's own. It loads Swagger UI from a CDN; here the browser is given the same files from the package
``fastapi-swagger`` instead. The authorization server is another origin, as usual, so CORS takes part.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import uvicorn

from environment import ROOT, missing
from scopeguard.devserver import Authority, Client, DevServer

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

SECRET = "sg-secret-swagger"
AUDIENCE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def devserver() -> Iterator[DevServer]:
    scopes = ["bigquery.insertdata", "bigquery.readonly"]
    robot = Client(client_id="robot", secret=SECRET, scopes=scopes)
    with DevServer(Authority(audience=AUDIENCE, clients=[robot])) as server:
        yield server


@pytest.fixture(scope="module")
def docs(devserver: DevServer) -> Iterator[str]:
    """Yield the URL of the documentation page of examples/fastapi_app.py, on a free port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISSUER", devserver.url)
        spec = importlib.util.spec_from_file_location("fastapi_app", ROOT / "examples" / "fastapi_app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(module.app, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/docs"
    server.should_exit = True
    thread.join()
    listener.close()
    module.guard.close()


@pytest.fixture
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        missing("no browser: install chromium (Debian: apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright

        assets = importlib.resources.files("fastapi_swagger") / "resources"
    except ModuleNotFoundError as absent:
        missing(f"the Python package {absent.name} is not installed")

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        kind = "text/javascript" if name.endswith(".js") else "text/css"
        route.fulfill(body=(assets / name).read_bytes(), content_type=kind)

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.route("https://cdn.jsdelivr.net/**/swagger-ui*", answer)
        page.route("https://fastapi.tiangolo.com/**", lambda route: route.abort())  # Its icon.
        yield page
        browser.close()


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


def authorize(page: Page, *scopes: str) -> None:
    page.locator(".auth-wrapper .authorize").first.click()
    form = page.locator(".auth-container", has_text="clientCredentials")
    form.locator("input[name=client_id], #client_id_clientCredentials").first.fill("robot")
    form.locator("input[name=client_secret], #client_secret_clientCredentials").first.fill(SECRET)
    for scope in scopes:
        form.locator(f"label[for*='{scope}-']").first.click()
    with page.expect_response("**/token") as answered:
        form.locator("button.authorize").click()
    assert answered.value.status == 200
    form.get_by_text("Logout").wait_for()
    page.locator(".btn-done").first.click()


@pytest.mark.timeout(180)
def test_user_can_authorize_and_try_operations_out(docs: str, page: Page):
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(docs)
    page.locator(".opblock").first.wait_for()
    insert, read, me = "insert_tables__table__rows_post", "read_tables__table__rows_get", "me_me_get"
    assert status_of(page, me) == 401
    authorize(page, "bigquery.insertdata")
    assert status_of(page, me) == 200
    assert status_of(page, insert, '{"station": "Kew"}') == 201
    assert status_of(page, read) == 403
    assert not problems
