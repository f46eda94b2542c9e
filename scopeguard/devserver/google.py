"""Service accounts for Google's client libraries: JSON key files with a private key and a ``token_uri``.

    robot = GoogleServiceAccount.generate("robot@local.iam.gserviceaccount.com", scopes=[...])
    with DevServer(Authority(audience=api, service_accounts=[robot.account])) as server:
        robot.write("robot.json", token_uri=server.authority.url(Endpoint.TOKEN))

``google.oauth2.service_account.Credentials.from_service_account_file("robot.json", scopes=[...])`` then fetches its
tokens from the development server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from scopeguard.config import checks
from scopeguard.config.checks import instance
from scopeguard.devserver.keys import SigningKey
from scopeguard.devserver.registry import GOOGLE_TOKEN_AUDIENCE, ServiceAccount
from scopeguard.edge.files import read_text
from scopeguard.errors import ConfigurationError

_TYPE: Final = "service_account"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleServiceAccount:
    """A service account with its private key.

    ``account`` is for the authorization server. :meth:`info` and :meth:`write` give the key file for the client.
    """

    account: ServiceAccount
    key: SigningKey = field(repr=False)

    def __post_init__(self) -> None:
        instance(self.account, ServiceAccount, "account", "a ServiceAccount")
        instance(self.key, SigningKey, "key", "a SigningKey")

    @classmethod
    def generate(cls, email: str, *, scopes: Sequence[str]) -> Self:
        """Return a new account that may get *scopes*, with a new RSA key. Its tokens are valid for an hour.

        Its assertions may have Google's audience as well as the authority's own, because Google's libraries write
        :data:`GOOGLE_TOKEN_AUDIENCE` for every ``token_uri``.
        """
        return cls._with(SigningKey.generate("RS256"), email, scopes)

    @classmethod
    def read(cls, path: str | os.PathLike[str], email: str, *, scopes: Sequence[str], token_uri: str) -> Self:
        """Return the account in the key file at *path*, as :meth:`write` writes it.

        Raises :class:`ConfigurationError` if the file is not a key file for *email* and *token_uri*.
        """
        checks.path(path, "path")
        problem = f"service account file: not a key file of {email!r} for this server; remove it, or use another path"
        try:
            info = json.loads(read_text(path))
            if (info["type"], info["client_email"], info["token_uri"]) != (_TYPE, email, token_uri):
                raise ConfigurationError(problem)
            private_key = load_pem_private_key(info["private_key"].encode("ascii"), password=None)
            kid = info["private_key_id"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
            raise ConfigurationError(problem) from None  # the cause may quote the file
        if not isinstance(private_key, rsa.RSAPrivateKey) or not isinstance(kid, str):
            raise ConfigurationError(problem)
        return cls._with(SigningKey(kid=kid, algorithm="RS256", private_key=private_key), email, scopes)

    @classmethod
    def _with(cls, key: SigningKey, email: str, scopes: Sequence[str]) -> Self:
        public = key.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        account = ServiceAccount(
            email=email,
            public_key=public.decode("ascii"),
            scopes=scopes,
            assertion_audiences=[GOOGLE_TOKEN_AUDIENCE],
        )
        return cls(account=account, key=key)

    def info(self, token_uri: str, *, project: str = "local") -> dict[str, Any]:
        """Return the content of a Google key file with *token_uri*. It contains the private key."""
        pem = self.key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "type": _TYPE,
            "project_id": project,
            "private_key_id": self.key.kid,
            "private_key": pem.decode("ascii"),
            "client_email": self.account.email,
            "client_id": self.account.email,
            "token_uri": token_uri,
        }

    def write(self, path: str | os.PathLike[str], *, token_uri: str, project: str = "local") -> None:
        """Write :meth:`info` to a new file that only its owner can read.

        Raises :class:`ConfigurationError` if *path* exists: the file may hold a real key.
        """
        try:
            # The file is created with its mode, so that no other user can ever read the key.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as problem:
            raise ConfigurationError(f"service account file: cannot be created: {problem.strerror}") from None
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(self.info(token_uri, project=project), file, indent=1)
