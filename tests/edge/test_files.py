"""Files that settings name: a regular file is opened, also behind links. Anything else is refused by its setting.

Fault: opening a named pipe waits until another process writes to it, so an app did not start, without a message.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scopeguard import ApiKeys, Guard, HttpxTransport, Introspection, Issuer, ScopeCatalog, presets
from scopeguard.client import DPoPKey
from scopeguard.contracts import openapi
from scopeguard.devserver import KeyRing
from scopeguard.edge.files import open_regular, read_text
from scopeguard.errors import ConfigurationError
from scopeguard.presets.clusters import FileContent
from scopeguard.stores.redis import RedisStore

API = "https://api.test"
AS = "https://as.test"
JWKS = "https://as.test/jwks"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe", 0o600)
    return folder / "pipe"


def directory(folder: Path) -> Path:
    (folder / "directory").mkdir()
    return folder / "directory"


def listener(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / "s"))
    return folder / "s"


def link_to_a_pipe(folder: Path) -> Path:
    (folder / "link").symlink_to(pipe(folder))
    return folder / "link"


IRREGULAR: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pipe": (pipe, "a named pipe"),
    "directory": (directory, "a directory"),
    "socket": (listener, "a socket"),
    "device": (lambda folder: Path("/dev/zero"), "a device"),
    "link": (link_to_a_pipe, "a named pipe"),
}


@pytest.mark.parametrize("make", IRREGULAR.values(), ids=IRREGULAR)
def test_only_regular_files_are_opened(tmp_path: Path, make: tuple[Callable[[Path], Path], str]):
    path = make[0](tmp_path)
    with pytest.raises(OSError, match=f"it is {make[1]}, and must be a regular file"):
        open_regular(path)


def test_links_are_followed_as_kubernetes_mounts_them(tmp_path: Path):
    data = tmp_path / "..2026_11_29"
    data.mkdir()
    (data / "token").write_text("content")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "token").symlink_to("..data/token")
    assert read_text(tmp_path / "token") == "content"


def test_file_that_becomes_a_pipe_before_it_is_opened_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "token"
    path.write_text("content")
    opened = os.open

    def replace(*arguments: Any) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", replace)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="it is a named pipe"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


def review(path: Any) -> Introspection:
    return Introspection(
        dialect="kubernetes_token_review",
        endpoint="https://k8s.test/review",
        bearer_token="t",
        auth="bearer",
        ca_file=path,
    )


SETTINGS: dict[str, Callable[[Any], object]] = {
    "jwks_file": lambda path: Guard(Issuer(AS, audience=API, jwks_file=path)),
    "jwks_seed": lambda path: Guard(Issuer(AS, audience=API, jwks_uri=JWKS, jwks_seed=path)),
    "jwks_ca_file": lambda path: Guard(Issuer(AS, audience=API, jwks_uri=JWKS, jwks_ca_file=path)),
    "jwks_bearer_file": lambda path: Guard(Issuer(AS, audience=API, jwks_uri=JWKS, jwks_bearer_file=path)),
    "introspection.ca_file": lambda path: Guard(
        Issuer(AS, audience=API, validate="introspection", introspection=review(path))
    ),
    "api_keys.keys_file": lambda path: Guard(Issuer(AS), resource=API, api_keys=ApiKeys(prefix="acme", keys_file=path)),
    "verify": lambda path: HttpxTransport(verify=path),
    "cert": lambda path: HttpxTransport(cert=path),
    "bearer_file": lambda path: presets.kubernetes_token_review(API, bearer_file=path),
    "ca_file": lambda path: presets.kubernetes_token_review(API, ca_file=path),
    "kubernetes jwks_file": lambda path: Guard(presets.kubernetes(API, jwks_file=path)),
    "spiffe jwks_file": lambda path: Guard(presets.spiffe("prod.example.com", API, jwks_file=path)),
}
READ_AT_ONCE: dict[str, Callable[[Any], object]] = {
    "dpop: file": lambda path: DPoPKey(file=path),
    "key file": lambda path: KeyRing(path=path),
    "": Guard.from_file,
    "openapi": openapi,
    "from_toml": ScopeCatalog.from_toml,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_that_names_a_pipe_is_refused_when_the_guard_is_made(tmp_path: Path, setting: str):
    path = pipe(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        SETTINGS[setting](str(path))
    text = f"{setting.rpartition(' ')[2]}: {str(path)!r} is a named pipe; write the path of a regular file"
    assert str(caught.value).endswith(text)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("convert", [str, Path], ids=["text", "path"])
def test_setting_takes_the_path_of_a_file_that_may_not_exist_yet(
    tmp_path: Path, setting: str, convert: Callable[[Path], Any]
):
    SETTINGS[setting](convert(tmp_path / "later"))


def test_path_objects_become_text(tmp_path: Path):
    path = tmp_path / "later"
    issuer = Issuer(AS, audience=API, jwks_uri=JWKS, jwks_seed=path, jwks_ca_file=path, jwks_bearer_file=path)
    assert {issuer.jwks_seed, issuer.jwks_ca_file, issuer.jwks_bearer_file, review(path).ca_file} == {str(path)}
    assert Issuer(AS, audience=API, jwks_file=path).jwks_file == str(path)
    assert ApiKeys(prefix="acme", keys_file=path).keys_file == str(path)


@pytest.mark.parametrize("setting", READ_AT_ONCE)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_file_that_is_read_at_once_is_not_waited_for(tmp_path: Path, setting: str):
    with pytest.raises(ConfigurationError) as caught:
        READ_AT_ONCE[setting](pipe(tmp_path))
    assert "named pipe" in str(caught.value) or setting == "key file"


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_files_in_the_url_of_redis_are_regular(tmp_path: Path, option: str):
    with pytest.raises(ConfigurationError, match=f"store: {option} in the Redis URL: .* is a named pipe"):
        RedisStore(f"rediss://127.0.0.1?{option}={pipe(tmp_path)}")


def test_rotated_token_that_became_a_pipe_is_an_error_and_no_wait(tmp_path: Path):
    with pytest.raises(OSError, match="it is a named pipe"):
        FileContent(str(pipe(tmp_path)))()


def test_bundle_that_became_a_pipe_is_not_waited_for(tmp_path: Path):
    path = tmp_path / "ca.pem"
    transport, with_cert = HttpxTransport(verify=path), HttpxTransport(cert=path)
    os.mkfifo(path)
    for each in (transport, with_cert):
        with pytest.raises(ConfigurationError, match="it is a named pipe"):
            each.check()


CONFIGURED = {
    "issuers 1: jwks_file": 'jwks_file = "PATH"',
    "issuers 1: jwks_ca_file": f'jwks_uri = "{JWKS}"\njwks_ca_file = "PATH"',
    "transport: ca_file": '[transport]\nca_file = "PATH"',
    "transport: cert_file": '[transport]\ncert_file = "PATH"',
    "introspection: client_secret": '[issuers.introspection]\nclient_id = "a"\nclient_secret = "file:PATH"',
    "contract: openapi": '[contract]\nopenapi = "PATH"',
    "scopes: catalog": '[scopes]\ncatalog = "PATH"',
}


@pytest.mark.parametrize("setting", CONFIGURED)
@pytest.mark.parametrize("make", [pipe, directory], ids=["pipe", "directory"])
def test_key_of_the_file_is_named(tmp_path: Path, setting: str, make: Callable[[Path], Path]):
    file = tmp_path / "scopeguard.toml"
    path = make(tmp_path).name
    file.write_text(f'[[issuers]]\nurl = "{AS}"\naudience = "{API}"\n{CONFIGURED[setting]}'.replace("PATH", path))
    with pytest.raises(ConfigurationError) as caught:
        Guard.from_file(file)
    for part in (setting.rsplit(": ", maxsplit=1)[-1], path, "is a "):
        assert part in str(caught.value)


def test_key_set_that_became_a_pipe_is_an_outage(tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": []}))
    guard = Guard(Issuer(AS, audience=API, jwks_file=path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Exception, match="named pipe"):
        guard.warm()
    guard.close()
