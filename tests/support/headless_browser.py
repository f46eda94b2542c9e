"""A browser without windows, as a value of ``BROWSER``: ``python -m headless_browser URL`` opens URL with cookies."""

import sys

import httpx

if __name__ == "__main__":
    # A client may open the browser before it listens for the callback.
    patient = httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=patient, follow_redirects=True, trust_env=False) as browser:
        browser.get(sys.argv[1]).raise_for_status()
