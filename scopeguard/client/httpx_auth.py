"""The parts of ``httpx`` and ``httpx2`` that the auth classes extend."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Final

import httpx

if TYPE_CHECKING:
    import httpx2

    class Auth(httpx.Auth, httpx2.Auth):
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...

    LIBRARIES: list[Any]
    REPLAYABLE: tuple[type, ...]
else:
    LIBRARIES = [httpx]
    try:
        import httpx2
    except ImportError:
        pass
    else:
        LIBRARIES.append(httpx2)
    # A client accepts the Auth of its own library only, so the class inherits from both. After httpx2.alias_httpx()
    # the two are the same class.
    Auth = type("Auth", tuple(dict.fromkeys(library.Auth for library in LIBRARIES)), {})
    REPLAYABLE = tuple(library.ByteStream for library in LIBRARIES)


class _WithProof:
    """Header fields with a DPoP proof, which a copy does not have.

    httpx copies the fields of a request into the request for a redirect, and drops only ``Authorization`` when the
    origin changes. A proof is for one request, so the copy must be without it: another origin gets none, and the same
    origin gets a new one.
    """

    _plain: type[Any]
    _proof: str

    def _all(self) -> Any:
        fields = self._plain(self)
        fields["DPoP"] = self._proof
        return fields

    @property
    def raw(self) -> Any:
        return self._all().raw

    def keys(self) -> Any:
        return self._all().keys()

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()

    def multi_items(self) -> Any:
        return self._all().multi_items()

    def get_list(self, *arguments: Any, **named: Any) -> Any:
        return self._all().get_list(*arguments, **named)

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._all()

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._plain(self))

    def __reduce__(self) -> Any:
        return self._plain, (self._plain(self).multi_items(),)


_WITH_PROOF: Final[dict[type, type[Any]]] = {
    plain: type("HeadersWithProof", (_WithProof, plain), {"_plain": plain})
    for plain in dict.fromkeys(library.Headers for library in LIBRARIES)
}


def without_proof(headers: Any) -> Any:
    """Return *headers*, the fields of a request, or a copy without the proof that :func:`with_proof` added."""
    return headers._plain(headers) if isinstance(headers, _WithProof) else headers


def with_proof(headers: Any, proof: str) -> Any:
    """Return *headers* with *proof* instead of any ``DPoP`` field. A copy of the result has no proof."""
    headers.pop("DPoP", None)
    plain = next(kind for kind in _WITH_PROOF if isinstance(headers, kind))
    fields = _WITH_PROOF[plain](headers)
    fields._proof = proof
    return fields
