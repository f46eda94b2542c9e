"""A browser without windows, as a value of ``BROWSER``: ``python -m headless_browser URL`` opens URL with cookies."""

import sys

import httpx

if __name__ == "__main__":
    with httpx.Client(follow_redirects=True, trust_env=False) as browser:
        browser.get(sys.argv[1]).raise_for_status()
