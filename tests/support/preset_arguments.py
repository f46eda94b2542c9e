"""Arguments that each preset accepts, those that it needs first of all."""

from __future__ import annotations

from typing import Any

from scopeguard import Introspection

API = "https://api.example.com"
TENANT, APP = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "2f6b7c1e-6f53-4a3c-9d2a-1b1d0f5e9a77"
ASKING = Introspection(client_id="api", client_secret="s", endpoint="https://as.example/introspect")

ARGUMENTS: dict[str, dict[str, Any]] = {
    "apple": {"client_id": "com.example.app"},
    "auth0": {"domain": "tenant.us.auth0.com", "audience": API},
    "authelia": {"issuer": "https://as.example", "audience": API, "introspection": ASKING},
    "authentik": {"issuer": "https://as.example/application/o/api/", "client_id": "api"},
    "aws_alb": {
        "region": "eu-central-1",
        "load_balancers": ["arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/app/a/1"],
        "issuer": "https://idp.example",
        "client_ids": ["c"],
    },
    "clerk": {"frontend_api": "clerk.example.com", "audience": API},
    "clerk_m2m": {"frontend_api": "clerk.example.com", "machine_id": "mch_api"},
    "clerk_session": {"frontend_api": "clerk.example.com", "origins": ["https://app.example.com"]},
    "cloudflare_access": {"team": "acme", "aud_tags": ["32ea"]},
    "cognito": {"region": "eu-central-1", "pool_id": "eu-central-1_AbC", "client_ids": ["57cb"]},
    "dex": {"issuer": "https://dex.example.com", "client_ids": ["api"]},
    "duende": {"issuer": "https://ids.example.com", "audience": "bigquery"},
    "entra": {"tenant": TENANT, "audience": APP},
    "firebase": {"project_id": "acme-prod"},
    "generic_rfc9068": {"issuer": "https://as.example", "audience": API},
    "github_actions": {"audience": API, "owner_ids": ["65"]},
    "gitlab": {"issuer": "https://gitlab.example.com", "client_ids": ["app"]},
    "gitlab_ci": {"issuer": "https://gitlab.example.com", "audience": API, "project_ids": ["22"]},
    "google_iap": {"audience": "/projects/1/apps/acme"},
    "google_oidc": {"audience": API, "emails": ["a@acme.iam.gserviceaccount.com"]},
    "google_self_signed": {"email": "a@acme.iam.gserviceaccount.com"},
    "google_tokeninfo": {"client_ids": ["1.apps.googleusercontent.com"]},
    "hydra": {"issuer": "https://hydra.example.com", "client_ids": ["ingest"]},
    "keycloak": {"base_url": "https://sso.example.com", "realm": "acme", "audience": "api"},
    "kubernetes": {"audience": API},
    "kubernetes_token_review": {"audience": API},
    "mcp": {"resource_url": "https://mcp.example.com/mcp", "issuer": "https://as.example"},
    "node_oidc_provider": {"issuer": "https://op.example.com", "audience": API},
    "okta": {"domain": "acme.okta.com"},
    "pingam": {"issuer": "https://am.example.com:443/am/oauth2", "audience": "client"},
    "pingfederate": {"issuer": "https://ping.example.com", "audience": API, "introspection": ASKING},
    "pingone": {"environment_id": "5caa81af-ec05-41ff-a709-c7378007a99c", "audience": API},
    "salesforce": {"my_domain": "acme.my.salesforce.com", "audience": API},
    "spiffe": {"trust_domain": "prod.example.com", "audience": API, "jwks_file": "bundle.json"},
    "spring_as": {"issuer": "https://as.example", "clients": ["ingest"]},
    "stytch": {"project_id": "project-live-1"},
    "supabase": {"project_ref": "abc123"},
    "workos": {"authkit_domain": "acme.authkit.app", "audience": "client_01"},
    "workos_session": {"client_id": "client_01", "organizations": ["org_01"]},
    "zitadel": {"issuer": "https://acme.zitadel.cloud", "project_id": "258"},
}
