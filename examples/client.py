r"""Call a protected API as a program, with an access token from the client credentials grant.

    pip install .
    TOKEN_URL=http://127.0.0.1:9000/token CLIENT_ID=reporter CLIENT_SECRET=... \
        python examples/client.py http://127.0.0.1:8000/reports reports.read

The first argument is the URL to get, the others are the scopes to request. The token is fetched with the first
request, renewed before it expires, and never printed.
"""

import os
import sys

import httpx

from scopeguard.client import ClientCredentials, TokenEndpointError, TokenEndpointUnavailable, required_scopes


def main(url: str, *scopes: str) -> int:
    auth = ClientCredentials(
        os.environ["TOKEN_URL"],
        os.environ["CLIENT_ID"],
        os.environ["CLIENT_SECRET"],
        scopes=scopes,
    )
    with httpx.Client(auth=auth) as client:
        try:
            response = client.get(url)
        except (TokenEndpointError, TokenEndpointUnavailable) as error:
            print(f"no token: {error}", file=sys.stderr)
            return 1
    print(response.status_code, response.text)
    if needed := required_scopes(response):
        print(f"request these scopes: {' '.join(needed)}", file=sys.stderr)
    return 0 if response.is_success else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
