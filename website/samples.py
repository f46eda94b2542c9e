"""The page with the decoded tokens of providers, from the samples with which the presets are tested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from website.pages import ROOT

NAME: Final = "reference/tokens.md"
FOLDER: Final = ROOT / "tests" / "data" / "providers"
# The names of the providers, by their names in the samples. Those without a preset are left out.
TITLES: Final[Mapping[str, str]] = {
    "apple": "Sign in with Apple",
    "auth0": "Auth0",
    "authelia": "Authelia",
    "authentik": "authentik",
    "aws-alb": "AWS Application Load Balancer",
    "clerk": "Clerk",
    "cloudflare-access": "Cloudflare Access",
    "cognito": "Amazon Cognito",
    "dex": "Dex",
    "duende": "Duende IdentityServer",
    "entra": "Microsoft Entra",
    "firebase": "Firebase",
    "github-actions": "GitHub Actions",
    "gitlab": "GitLab",
    "google": "Google",
    "google-iap": "Google Identity-Aware Proxy",
    "hydra": "Ory Hydra",
    "keycloak": "Keycloak",
    "kubernetes": "Kubernetes",
    "mcp": "An authorization server for MCP",
    "node-oidc-provider": "oidc-provider (Node.js)",
    "okta": "Okta",
    "pingone": "PingOne",
    "spring-authorization-server": "Spring Authorization Server",
    "supabase": "Supabase",
    "workos": "WorkOS",
    "zitadel": "Zitadel",
}
WITHOUT_PRESET: Final = ("github", "slack")
_INTRODUCTION: Final = """# Tokens of providers, decoded

The form of each token is that of published samples, and its values are made up. The tests of the
[presets](../providers.md) accept these tokens. Compare yours: `scopeguard explain` shows [its checks](../explain.md).
"""


def samples() -> list[dict[str, Any]]:
    """Return the samples that a preset accepts, in the order of the page."""
    found = [json.loads(path.read_text("utf-8")) | {"name": path.stem} for path in FOLDER.glob("*.json")]
    shown = [
        each
        for each in found
        if "must_reject" not in each and each["provider"] not in WITHOUT_PRESET and not each["name"].endswith("invalid")
    ]
    return sorted(shown, key=lambda each: (TITLES[each["provider"]].lower(), each["name"]))


def write(target: Path) -> str:
    """Write the page into the folder *target*, and return its name."""
    parts = [_INTRODUCTION]
    provider = ""
    for each in samples():
        if each["provider"] != provider:
            provider = each["provider"]
            parts.append(f"## {TITLES[provider]}\n")
        what, shown = _content(each)
        parts.append(f"{what}:\n\n```json\n{json.dumps(shown, indent=2)}\n```\n")
    (target / NAME).parent.mkdir(parents=True, exist_ok=True)
    (target / NAME).write_text("\n".join(parts), "utf-8")
    return NAME


def _content(sample: Mapping[str, Any]) -> tuple[str, Any]:
    grant = str(sample["grant"]).replace("_", " ")
    if sample["kind"] == "opaque":
        return f"Opaque ({grant}). The answer of the authorization server about it", sample["introspection_response"][
            "body"
        ]
    field = sample.get("request_header")
    place = "" if field is None else f", in the field `{field}`"
    return f"JWT ({grant}){place}", {"header": sample["header"], "payload": sample["claims"]}
