"""The resource of authplane-sdk in an ASGI middleware. Metadata and keys come from this process."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material
from benchmarks.verifying import ScopeMissingError, protect

NAME = "Starlette + authplane-sdk"
NEEDS = ("authplane-sdk",)
BASE = "Starlette"
ALGORITHMS = ("RS256", "ES256")


def app(material: Material) -> Any:
    from authplane import AuthplaneClient, client, errors
    from authplane.internal.fetch_result import FetchResult

    class Fetcher:
        """Stands for the fetcher of documents, which would need an issuer on the network."""

        def __init__(self, url: str, **settings: Any) -> None:
            self._url = url

        async def fetch(self) -> Any:
            is_metadata = ".well-known" in self._url
            return FetchResult(
                document=material.metadata if is_metadata else material.jwks, expires_at=None, source=self._url
            )

    resources: list[Any] = []

    async def verify(authorization: str) -> Any:
        if not resources:
            client.DocumentFetcher = Fetcher
            created = await AuthplaneClient.create(material.authority.url)
            resources.append(created.resource(AUDIENCE, [SCOPE], allowed_algorithms=[material.algorithm]))
        claims = await resources[0].verify(authorization.removeprefix("Bearer "))
        if not claims.has_scope(SCOPE):
            raise ScopeMissingError
        return claims

    return protect(verify, errors.AuthplaneError)
