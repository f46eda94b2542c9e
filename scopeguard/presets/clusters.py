"""Identities of workloads: service accounts of Kubernetes, and SPIFFE.

Their tokens have no scopes, so the rules of routes require ``authenticated`` only, and the arguments of the preset say
which workloads are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from scopeguard.config.checks import PathObject, flag, path
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import LARGEST_TOKEN
from scopeguard.config.validation import Validation
from scopeguard.edge.files import check_file, open_regular
from scopeguard.errors import ConfigurationError
from scopeguard.presets.argument_forms import (
    ALWAYS_A_MACHINE,
    IP_ADDRESS,
    JWT_OR_NONE,
    LABEL,
    Form,
    fit,
    fit_all,
    nonempty,
    url,
)

# The files of the service account of a pod.
_TOKEN_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_CA_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
_CLUSTER: Final = "https://kubernetes.default.svc.cluster.local"
_API_SERVER: Final = "https://kubernetes.default.svc"
_NAMESPACE: Final = Form(re.compile(LABEL), "the name of a namespace", "etl")
_SUBJECT: Final = "system:serviceaccount:"  # precedes the namespace and the name in sub
_SERVICE_ACCOUNT: Final = Form(
    re.compile(rf"(?:[a-z0-9\-]+/|{_SUBJECT}[a-z0-9\-]+:)[a-z0-9.\-]+"), '"namespace/name"', "etl/ingest"
)
_TRUST_DOMAIN: Final = Form(
    re.compile(rf"(?!{IP_ADDRESS}$)(?!.*\.\.)[a-z0-9](?:[a-z0-9._\-]*[a-z0-9])?"),
    "the name of a trust domain",
    "prod.example.com",
)
# JWT-SVID section 2.1: RS256 to RS512, ES256 to ES512 and PS256 to PS512.
_SVID_ALGORITHMS: Final = tuple(f"{family}{bits}" for family in ("RS", "ES", "PS") for bits in (256, 384, 512))


@dataclass(frozen=True, slots=True)
class FileContent:
    """A function that returns the token in the file *path*. It reads the file at each call, because it is renewed."""

    path: str

    def __call__(self) -> str:
        with open_regular(self.path) as file:
            return file.read(LARGEST_TOKEN).decode("ascii").strip()


def kubernetes(
    audience: str | Iterable[str],
    *,
    issuer: str = _CLUSTER,
    namespaces: str | Iterable[str] | None = None,
    service_accounts: str | Iterable[str] | None = None,
    in_cluster: bool = False,
    jwks_uri: str | None = None,
    jwks_file: str | PathObject | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for projected service account tokens of a Kubernetes cluster.

    Legacy tokens, which do not expire, are refused.

    * *namespaces*, *service_accounts* (``"namespace/name"``): the service accounts that may call; by default all.
    * *in_cluster*: the API runs in the cluster. It fetches the keys from the Kubernetes API server, with the token of
      its pod's service account and the certificate authority of the cluster. These files are read for each fetch. No
      further permission is needed.
    * *jwks_uri*, *jwks_file*: the keys for an API outside the cluster. *jwks_uri* usually needs
      ``HttpxTransport(verify=...)`` with the certificate authority of the cluster.
    """
    own: dict[str, Any] = {}
    flag(in_cluster, "in_cluster")
    if in_cluster:
        if jwks_uri is not None or jwks_file is not None:
            raise ConfigurationError("in_cluster: sets the place of the keys; leave out jwks_uri and jwks_file")
        own = {
            "jwks_uri": f"{_API_SERVER}/openid/v1/jwks",
            "jwks_ca_file": _CA_FILE,
            "jwks_bearer_file": _TOKEN_FILE,
        }
    return Issuer(
        url(issuer, "issuer", _CLUSTER),
        insecure_http_dangerously=insecure_http_dangerously,
        required_claims=("sub", "kubernetes.io"),
        hints={
            "unknown_issuer:kubernetes/serviceaccount": "Kubernetes: a legacy token from a secret; mount a projected "
            "one (serviceAccountToken) with this API's audience",
            "wrong_audience": "Kubernetes: the token is for another audience; set this API's in the projected volume",
        },
        **_service_account_settings(audience, namespaces, service_accounts),
        **(own or {"jwks_uri": jwks_uri, "jwks_file": jwks_file}),
    )


def kubernetes_token_review(
    audience: str | Iterable[str],
    *,
    issuer: str = _CLUSTER,
    api_server: str = _API_SERVER,
    namespaces: str | Iterable[str] | None = None,
    service_accounts: str | Iterable[str] | None = None,
    bearer_file: str | PathObject = _TOKEN_FILE,
    ca_file: str | PathObject | None = _CA_FILE,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer that asks the TokenReview API of a Kubernetes cluster about each service account token.

    Unlike :func:`kubernetes`, it notices within a minute that a pod or its service account was deleted. Each new token
    costs a request to the API server, and while that is down, new tokens get 503.

    * *audience*: sent with each token. An answer that names none of them is refused, because the API server would then
      have checked its own audience.
    * *issuer*: the ``iss`` of the tokens, by which they are recognised.
    * *api_server*: the URL of the API server.
    * *namespaces*, *service_accounts* (``"namespace/name"``): the service accounts that may call; by default all.
    * *bearer_file*: the file with the token of this API's own service account, by default that of its pod. The account
      needs the cluster role ``system:auth-delegator``. The file is read again when the API server refuses its token, as
      after a rotation.
    * *ca_file*: the certificate authority of the API server, by default the file in the pod; ``None`` for the usual
      ones.
    """
    bearer_file = path(bearer_file, "bearer_file")
    check_file(bearer_file, "bearer_file")
    if ca_file is not None:
        ca_file = path(ca_file, "ca_file")
        check_file(ca_file, "ca_file")
    base = url(api_server, "api_server", _API_SERVER)
    return Issuer(
        url(issuer, "issuer", _CLUSTER),
        insecure_http_dangerously=insecure_http_dangerously,
        validate=Validation.INTROSPECTION,
        introspection=Introspection(
            endpoint=f"{base}/apis/authentication.k8s.io/v1/tokenreviews",
            auth=ClientAuthentication.BEARER,
            bearer_token=FileContent(bearer_file),
            ca_file=ca_file,
            dialect=Dialect.KUBERNETES_TOKEN_REVIEW,
        ),
        required_claims=("sub", "uid"),
        **_service_account_settings(audience, namespaces, service_accounts),
    )


def _service_account_settings(
    audience: str | Iterable[str],
    namespaces: str | Iterable[str] | None,
    service_accounts: str | Iterable[str] | None,
) -> dict[str, Any]:
    """Return settings that accept the tokens of service accounts.

    *namespaces* and *service_accounts* limit which ones. ``None`` is no limit.
    """
    prefixes: tuple[str, ...] = (_SUBJECT,)
    expected: dict[str, tuple[str, ...]] = {}
    if namespaces is not None:
        prefixes = tuple(f"{_SUBJECT}{name}:" for name in fit_all(namespaces, "namespaces", _NAMESPACE))
    if service_accounts is not None:
        accounts = fit_all(service_accounts, "service_accounts", _SERVICE_ACCOUNT)
        subjects = (account.removeprefix(_SUBJECT).replace("/", ":") for account in accounts)
        expected["sub"] = tuple(_SUBJECT + subject for subject in subjects)
    return {
        "audience": nonempty(audience, "audience"),
        "algorithms": ("RS256", "ES256"),
        "typ": JWT_OR_NONE,
        "expected_claims": expected,
        "claim_prefixes": {"sub": prefixes},
        "scope_claims": (),
        "client_id_claims": (),
        "machine_signs": ALWAYS_A_MACHINE,
        "accept_id_tokens_dangerously": True,
    }


def spiffe(
    trust_domain: str,
    audience: str | Iterable[str],
    *,
    jwks_file: str | PathObject | None = None,
    jwks_uri: str | None = None,
    ids: str | Iterable[str] | None = None,
    id_prefixes: str | Iterable[str] | None = None,
) -> Issuer:
    """Return an issuer for the JWT-SVIDs of a SPIFFE trust domain.

    The trust domain in ``sub`` selects the keys; ``iss`` is ignored. Give the guard one such issuer for its own trust
    domain, and one for each trust domain that it federates with.

    * *trust_domain*: its name, as in ``"prod.example.com"``. ``AccessToken.issuer`` is ``spiffe://prod.example.com``.
    * *jwks_file*, *jwks_uri*: the bundle of the trust domain, a JWK Set whose keys have ``use: jwt-svid``. A file
      is read again when it is due; SPIRE and its helpers write one. A URL is a bundle endpoint with the profile
      ``https_web``. The profile ``https_spiffe`` is not supported. ``spiffe_refresh_hint`` sets when the bundle is read
      again, and a bundle with a smaller ``spiffe_sequence`` than the one in use is not used.
    * *ids*: the SPIFFE IDs that may call, as in ``"spiffe://prod.example.com/ns/etl/sa/ingest"``.
    * *id_prefixes*: the beginnings of such IDs, each of whole segments: ``"spiffe://prod.example.com/ns/etl"`` accepts
      the IDs below it, but not ``.../ns/etl2``. Without *ids* and *id_prefixes*, all workloads may call.
    """
    name = fit(trust_domain, "trust_domain", _TRUST_DOMAIN)
    if (jwks_file is None) == (jwks_uri is None):
        raise ConfigurationError("jwks_file, jwks_uri: give one of them, the place of the trust domain's bundle")
    if ids is not None and id_prefixes is not None:
        raise ConfigurationError("ids, id_prefixes: give one of them")
    own = re.compile(rf"spiffe://{re.escape(name)}(?:/(?!\.{{1,2}}(?:/|$))[A-Za-z0-9._\-]+)+")
    form = Form(own, f"a SPIFFE ID of {name} with a path", f"spiffe://{name}/ns/etl")
    prefixes: tuple[str, ...] = (f"spiffe://{name}/",)
    if id_prefixes is not None:
        prefixes = tuple(f"{prefix}/" for prefix in fit_all(id_prefixes, "id_prefixes", form))
    return Issuer(
        f"spiffe://{name}",
        audience=nonempty(audience, "audience"),
        jwks_file=jwks_file,
        jwks_uri=None if jwks_uri is None else url(jwks_uri, "jwks_uri", "https://prod.example.com/bundle"),
        algorithms=_SVID_ALGORITHMS,
        typ=("JWT", "JOSE", None),
        expected_claims={} if ids is None else {"sub": fit_all(ids, "ids", form)},
        claim_prefixes={"sub": prefixes},
        required_claims=("sub",),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_MACHINE,
        accept_id_tokens_dangerously=True,
        hints={"unknown_key": "SPIFFE: the key is not in the bundle of the trust domain with use jwt-svid"},
    )
