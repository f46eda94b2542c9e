"""The peers, one of each for the whole session; and both colours of the guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from peers import API_KEY_ID, Peer, run_peer
from scopeguard import Decision, Guard, HeaderList, RequestView, Requirement

Ask = Callable[..., Decision]


@pytest.fixture(scope="session")
def api_key() -> ec.EllipticCurvePrivateKey:
    """The key that signs the assertions of the client ``api-key``."""
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def node_settings(api_key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The settings of oidc-provider for these tests."""
    return {"port": 0, "api_key": {**ECAlgorithm.to_jwk(api_key.public_key(), as_dict=True), "kid": API_KEY_ID}}


@pytest.fixture(scope="session")
def oidc_provider(tmp_path_factory: pytest.TempPathFactory, node_settings: dict[str, Any]) -> Iterator[Peer]:
    """One that is not to be rotated or killed."""
    with run_peer("node", tmp_path_factory.mktemp("oidc-provider"), **node_settings) as peer:
        yield peer


@pytest.fixture(scope="module")
def second_oidc_provider(
    tmp_path_factory: pytest.TempPathFactory, node_settings: dict[str, Any], oidc_provider: Peer
) -> Iterator[Peer]:
    """Begins with the keys of the other one: to generate keys takes longer than to start."""
    folder = tmp_path_factory.mktemp("second-oidc-provider")
    with run_peer("node", folder, keys=oidc_provider.told["keys"], **node_settings) as peer:
        yield peer


@pytest.fixture
def own_oidc_provider(second_oidc_provider: Peer) -> Peer:
    """One that a test may rotate, and kill and start again."""
    if not second_oidc_provider.runs:  # a test failed after it had killed it
        second_oidc_provider.start()
    return second_oidc_provider


@pytest.fixture(scope="session")
def oauth_toolkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    folder = tmp_path_factory.mktemp("oauth-toolkit")
    with run_peer("python", folder, database=str(folder / "database")) as peer:
        yield peer


@pytest.fixture(scope="session")
def api_key_pem(api_key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return api_key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _view(token: str) -> RequestView:
    return RequestView(
        method="GET", path="/data", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())])
    )


def _check_blocking(guard: Guard, token: str, requirement: Requirement | None = None) -> Decision:
    return guard.check(_view(token), requirement)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """``ask(guard, token, requirement)`` in each colour: the decision."""
    if request.param == "blocking":
        return _check_blocking

    def check_async(guard: Guard, token: str, requirement: Requirement | None = None) -> Decision:
        return anyio.run(partial(guard.acheck, _view(token), requirement), backend=request.param)

    return check_async
