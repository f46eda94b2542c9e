"""Tokens that identify a workload or the user of an identity-aware proxy, and tokens of Google.

Most of them have no scopes, so the rules of routes require ``authenticated`` only, and the arguments of the preset say
which callers are accepted. The audience alone does not bind such a token, because its owner can choose the audience.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from scopeguard.config.checks import flag
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.config.machines import MachineSign
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError
from scopeguard.presets.argument_forms import (
    ALWAYS_A_MACHINE,
    ALWAYS_A_USER,
    AWS_REGION,
    CLIENT_ID,
    EMAIL,
    GOOGLE_ACCOUNT,
    GOOGLE_SCOPES,
    IP_ADDRESS,
    JWT_OR_NONE,
    LABEL,
    NO_SUBJECT_NO_USER,
    NUMBER,
    SCOPE,
    Form,
    fit,
    fit_all,
    nonempty,
    subdomain,
    url,
)

_GITHUB: Final = "https://token.actions.githubusercontent.com"
_GOOGLE: Final = "https://accounts.google.com"
_HOUR: Final = 3600.0
_ID: Final = replace(NUMBER, description="a numeric id")
# The names of references that git allows (git-check-ref-format), in ASCII.
_REF: Final = r"(?![/.])(?!.*(?:\.\.|//|@\{))(?!@$)(?!.*[/.]$)[^\x00-\x20~^:?*\[\\\x7f-\U0010ffff]+"
_GITHUB_REF: Final = Form(re.compile(rf"refs/(?:heads|tags|pull)/{_REF}"), "a full reference", "refs/heads/main")
_GITLAB_REF: Final = Form(re.compile(rf"(?!refs/){_REF}"), "a branch or tag without refs/heads/", "main")
# An AUD tag has 64 hexadecimal digits, and a label of a host name at most 63 characters.
_CLOUDFLARE_TEAM: Final = Form(re.compile(LABEL), "a team's name", "acme")
_AUD_TAG: Final = Form(
    re.compile(r"[0-9a-f]+"), "an application's AUD tag", "32eafc7626e974616deaf0dc3ce63d7b", ignore_case=True
)
_IAP_AUDIENCE: Final = Form(
    re.compile(r"/projects/[0-9]+/[A-Za-z0-9._\-/]+"),
    "an audience that begins with the number of a project",
    "/projects/123456789012/apps/acme",
)
_GOOGLE_ACCOUNT: Final = Form(
    re.compile(r"[^\s@/:]+@[a-z0-9.\-]+\.gserviceaccount\.com"), "the address of a service account", EMAIL.example
)
_GOOGLE_CLIENT: Final = Form(
    re.compile(rf"(?!{IP_ADDRESS}$)[A-Za-z0-9][A-Za-z0-9._:\-]*"),
    "an OAuth client id",
    "123-abc.apps.googleusercontent.com",
)


def github_actions(
    audience: str | Iterable[str],
    *,
    repository_ids: str | Iterable[str] | None = None,
    owner_ids: str | Iterable[str] | None = None,
    refs: str | Iterable[str] | None = None,
    environments: str | Iterable[str] | None = None,
    issuer: str = _GITHUB,
) -> Issuer:
    """Return an issuer for jobs of GitHub Actions.

    * *repository_ids*, *owner_ids*: the repositories or owners that may call. They are numeric, because another owner
      can register a name that was given up.
    * *refs*, *environments*: further restrictions, as in ``"refs/heads/main"``.
    * *issuer*: the issuer of a GitHub Enterprise Server.
    """
    if repository_ids is None and owner_ids is None:
        raise ConfigurationError(
            "repository_ids, owner_ids: give one of them; every workflow on GitHub can get a token for any audience"
        )
    wanted = {
        "repository_id": None if repository_ids is None else fit_all(repository_ids, "repository_ids", _ID),
        "repository_owner_id": None if owner_ids is None else fit_all(owner_ids, "owner_ids", _ID),
        "ref": None if refs is None else fit_all(refs, "refs", _GITHUB_REF),
        "environment": None if environments is None else nonempty(environments, "environments"),
    }
    return Issuer(
        url(issuer, "issuer", _GITHUB),
        audience=nonempty(audience, "audience"),
        algorithms=("RS256",),
        typ="JWT",
        expected_claims={name: values for name, values in wanted.items() if values is not None},
        required_claims=("sub", "repository_id"),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_MACHINE,
        accept_id_tokens_dangerously=True,
    )


def gitlab_ci(
    issuer: str,
    audience: str | Iterable[str],
    *,
    project_ids: str | Iterable[str],
    refs: str | Iterable[str] | None = None,
    protected_only: bool = False,
    jwks_uri: str | None = None,
    insecure_http_dangerously: Iterable[str] = (),
) -> Issuer:
    """Return an issuer for the ID tokens of GitLab CI jobs.

    * *project_ids*: the projects that may call.
    * *refs*: the branches or tags that may call, as in ``"main"``.
    * *protected_only*: accept jobs on protected branches and tags only.
    """
    expected = {"project_id": fit_all(project_ids, "project_ids", _ID)}
    if refs is not None:
        expected["ref"] = fit_all(refs, "refs", _GITLAB_REF)
    flag(protected_only, "protected_only")
    if protected_only:
        expected["ref_protected"] = ("true",)  # a string, not true
    return Issuer(
        url(issuer, "issuer", "https://gitlab.example.com").rstrip("/"),
        insecure_http_dangerously=insecure_http_dangerously,
        audience=nonempty(audience, "audience"),
        jwks_uri=jwks_uri,
        algorithms=("RS256",),
        typ="JWT",
        expected_claims=expected,
        required_claims=("sub", "project_id"),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=ALWAYS_A_MACHINE,
        accept_id_tokens_dangerously=True,
    )


def cloudflare_access(team: str, aud_tags: str | Iterable[str]) -> Issuer:
    """Return an issuer for the tokens that Cloudflare Access sends in ``Cf-Access-Jwt-Assertion``.

    *aud_tags*: the AUD tags of the applications. A service token has no subject; its client is ``common_name``.
    """
    domain = ".cloudflareaccess.com"
    issuer = f"https://{subdomain(team, 'team', _CLOUDFLARE_TEAM, domain)}{domain}"
    return Issuer(
        issuer,
        audience=fit_all(aud_tags, "aud_tags", _AUD_TAG),
        jwks_uri=f"{issuer}/cdn-cgi/access/certs",
        token_header="Cf-Access-Jwt-Assertion",
        algorithms=("RS256",),
        typ="JWT",
        expected_claims={"type": ("app",)},
        required_claims=("iat",),
        scope_claims=(),
        client_id_claims=("common_name",),
        machine_signs=NO_SUBJECT_NO_USER,
        accept_id_tokens_dangerously=True,
        hints={"unexpected_claim:type": "Cloudflare Access: a session token, not one for an application"},
    )


def aws_alb(
    region: str,
    load_balancers: str | Iterable[str],
    issuer: str,
    client_ids: str | Iterable[str],
    *,
    key_url_template: str | None = None,
) -> Issuer:
    """Return an issuer for the tokens that an AWS Application Load Balancer sends in ``x-amzn-oidc-data``.

    * *load_balancers*: the ARNs of the load balancers, in *region*. They bind tokens to them: AWS signs such tokens for
      the load balancer of any customer.
    * *issuer*, *client_ids*: those of the identity provider in the rule of the listener. The provider's own token, in
      ``x-amzn-oidc-accesstoken``, is not read.
    * *key_url_template*: the URL of the keys, with ``{kid}``, for regions with a different URL (GovCloud, China).
    """
    place = fit(region, "region", AWS_REGION)
    arns = nonempty(load_balancers, "load_balancers")
    form = re.compile(rf"arn:aws[a-z\-]*:elasticloadbalancing:{re.escape(place)}:[0-9]+:loadbalancer/app/.+")
    if not all(form.fullmatch(arn) for arn in arns):
        raise ConfigurationError(
            f"load_balancers: needs the complete ARN of each Application Load Balancer, in {place}, as in "
            f"arn:aws:elasticloadbalancing:{place}:123456789012:loadbalancer/app/name/6284be65b827c598"
        )
    return Issuer(
        url(issuer, "issuer", f"https://cognito-idp.{place}.amazonaws.com/{place}_AbCdEfGhI"),
        audience=arns,
        audience_claims=("header:signer",),
        key_url_template=(
            f"https://public-keys.auth.elb.{place}.amazonaws.com/{{kid}}"
            if key_url_template is None
            else key_url_template
        ),
        token_header="x-amzn-oidc-data",
        padded_segments=True,
        header_claims=("iss", "client", "exp"),
        algorithms=("ES256",),
        typ="JWT",
        expected_claims={"client": fit_all(client_ids, "client_ids", CLIENT_ID)},
        required_claims=("sub", "exp"),
        scope_claims=(),
        client_id_claims=("client",),
        machine_signs=ALWAYS_A_USER,
        accept_id_tokens_dangerously=True,
        hints={
            "wrong_audience": "AWS: signed for another load balancer; if it may call, add its ARN to load_balancers",
            "unexpected_claim:client": "AWS: the load balancer uses a client that is not in client_ids",
        },
    )


def google_iap(audience: str | Iterable[str]) -> Issuer:
    """Return an issuer for the tokens that Google's Identity-Aware Proxy sends in ``x-goog-iap-jwt-assertion``.

    *audience*: ``"/projects/NUMBER/global/backendServices/ID"`` or ``"/projects/NUMBER/apps/ID"``.
    """
    return Issuer(
        "https://cloud.google.com/iap",
        audience=fit_all(audience, "audience", _IAP_AUDIENCE),
        jwks_uri="https://www.gstatic.com/iap/verify/public_key-jwk",
        token_header="x-goog-iap-jwt-assertion",
        algorithms=("ES256",),
        typ=JWT_OR_NONE,
        required_claims=("sub", "email"),
        scope_claims=(),
        client_id_claims=(),
        machine_signs=(),
        accept_id_tokens_dangerously=True,
    )


def google_oidc(audience: str | Iterable[str], emails: str | Iterable[str]) -> Issuer:
    """Return an issuer for Google ID tokens of service accounts and users, as Cloud Run, Cloud Scheduler and Pub/Sub
    push send them.

    *emails*: the accounts that may call. Their addresses must be verified. There is no default, because any Google
    account can get a token for any audience.
    """
    audiences = nonempty(audience, "audience")
    if any(EMAIL.pattern.fullmatch(one) for one in audiences):
        raise ConfigurationError("audience: needs the URL or identifier of this API, not an e-mail address")
    return Issuer(
        _GOOGLE,
        audience=audiences,
        aliases={"accounts.google.com": {}},
        jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
        algorithms=("RS256",),
        typ="JWT",
        expected_claims={"email": fit_all(emails, "emails", EMAIL), "email_verified": (True,)},
        required_claims=("sub", "iat"),
        scope_claims=(),
        client_id_claims=("azp",),
        machine_signs=(GOOGLE_ACCOUNT, MachineSign(machine=False)),
        accept_id_tokens_dangerously=True,
    )


def google_self_signed(email: str, audience: str | Iterable[str] | None = None) -> Issuer:
    """Return an issuer for tokens that the Google service account *email* signs itself (AIP-4111).

    Each account needs its own issuer. With *audience*, tokens have that audience and no scopes. Without it, tokens have
    Google scopes and no audience: any other API that accepts such tokens of the account accepts the same token.
    """
    name = fit(email, "email", _GOOGLE_ACCOUNT)
    scoped = audience is None
    expected: dict[str, tuple[str, ...]] = {"sub": (name,)}
    return Issuer(
        name,
        audience=ANY_AUDIENCE_DANGEROUSLY if audience is None else nonempty(audience, "audience"),
        jwks_uri=f"https://www.googleapis.com/service_accounts/v1/jwk/{name}",
        algorithms=("RS256",),
        typ="JWT",
        expected_claims=expected,
        required_claims=("sub", "iat", "scope") if scoped else ("sub", "iat"),
        forbidden_claims=("aud",) if scoped else (),
        max_lifetime=_HOUR,
        scope_claims=(SCOPE,),
        scope_prefix=GOOGLE_SCOPES,
        client_id_claims=("iss",),
        machine_signs=ALWAYS_A_MACHINE,
    )


def google_tokeninfo(
    client_ids: str | Iterable[str], *, endpoint: str = "https://oauth2.googleapis.com/tokeninfo"
) -> Issuer:
    """Return an issuer for Google's opaque access tokens (``ya29.``), which are introspected at the tokeninfo endpoint.

    *client_ids*: the OAuth clients that may call. There is no default, because any app can get such a token from any
    Google user.
    """
    return Issuer(
        _GOOGLE,
        audience=fit_all(client_ids, "client_ids", _GOOGLE_CLIENT),
        validate=Validation.INTROSPECTION,
        introspection=Introspection(
            endpoint=endpoint, auth=ClientAuthentication.NONE, dialect=Dialect.GOOGLE_TOKENINFO
        ),
        opaque_prefixes=("ya29.",),
        scope_claims=(SCOPE,),
        scope_prefix=GOOGLE_SCOPES,
        client_id_claims=("azp",),
        machine_signs=(
            GOOGLE_ACCOUNT,
            MachineSign(machine=True, present={"azp": "[0-9]+"}),
            MachineSign(machine=False, present={"sub": ".+"}),
        ),
        hints={"wrong_audience": "Google: the token was issued to another OAuth client; if it may call, add its id"},
    )
