"""The spellings of the path-confusion table: requests that could make a policy and a router disagree.

Sources: the classes of the CVEs of Oathkeeper (CVE-2026-33494), Envoy and Istio (CVE-2021-39156, CVE-2021-32779,
CVE-2020-8595, CVE-2023-27487), oauth2-proxy (CVE-2025-54576, CVE-2026-40575), Traefik (CVE-2026-54763), and what the
routers of the frameworks and the parsers of the servers forgive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SECRET: Final = b"/secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """One way to write a request. *reaches*: the handler that it plainly names, for which policy and router have to
    agree.
    """

    name: str
    target: bytes
    method: bytes = b"GET"
    headers: tuple[bytes, ...] = ()
    reaches: str | None = None
    websocket: bool = False
    version: bytes = b" HTTP/1.1"
    body: bytes = b""

    def wire(self, app: str, token: str, *, prefix: bytes = b"") -> bytes:
        """The request as bytes. *prefix* is where the app is mounted."""
        target = prefix + self.target if self.target.startswith(b"/") else self.target
        lines = [self.method + b" " + target + self.version, b"Host: api.test", b"X-App: " + app.encode()]
        if token:
            lines.append(b"Authorization: Bearer " + token.encode())
        if self.websocket:
            lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
            lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        else:
            lines.append(b"Connection: close")
        return b"\r\n".join((*lines, *self.headers)) + b"\r\n\r\n" + self.body


def _plain_spellings() -> list[Spelling]:
    named = {
        b"/secret": "secret",
        b"/secret/deep": "deep",
        b"/area/secret": "area-secret",
        b"/items/admin": "item-admin",
        b"/items/other": "item",
        b"/dual": "dual-get",
        b"/public": "public",
        b"/area/public": "area-public",
        b"/elsewhere": "catch-all",
        b"/secretive": "catch-all",  # a neighbour by name, not by segment (H-08)
        b"/SECRET": "catch-all",
        b"/secret?next=/public": "secret",
        b"/public?/secret": "public",
        b"/secret?": "secret",
    }
    gets = [Spelling(name=path.decode(), target=path, reaches=name) for path, name in named.items()]
    return [
        *gets,
        Spelling(name="HEAD /secret", method=b"HEAD", target=SECRET, reaches="secret"),
        Spelling(name="HEAD /dual", method=b"HEAD", target=b"/dual", reaches="dual-get"),
        Spelling(
            name="POST /dual", method=b"POST", target=b"/dual", headers=(b"Content-Length: 0",), reaches="dual-post"
        ),
        Spelling(name="POST /secret", method=b"POST", target=SECRET, headers=(b"Content-Length: 0",), reaches="secret"),
    ]


_PATHS: Final[dict[str, bytes]] = {
    # slashes
    "trailing slash": b"/secret/",
    "two trailing slashes": b"/secret//",
    "leading double slash": b"//secret",
    "leading triple slash": b"///secret",
    "inner double slash": b"/area//secret",
    "double slash before the area": b"//area/secret",
    "encoded slash in front": b"/%2fsecret",
    "encoded slash in front, capitals": b"/%2Fsecret",
    "encoded slash behind": b"/secret%2f",
    "encoded slash between": b"/area%2fsecret",
    "encoded slash in a parameter": b"/items%2Fadmin",
    "encoded slash twice": b"/area%252fsecret",
    "a host for a segment": b"//api.test/secret",
    # dot segments
    "dot in front": b"/./secret",
    "dot behind": b"/secret/.",
    "dot between": b"/area/./secret",
    "up from public": b"/public/../secret",
    "up and away": b"/secret/../public",
    "down and up again": b"/secret/deep/..",
    "up from the root": b"/../secret",
    "up through the area": b"/area/public/../secret",
    "up through an item": b"/items/x/../admin",
    "encoded dots": b"/public/%2e%2e/secret",
    "encoded dots, capitals": b"/public/%2E%2E/secret",
    "half encoded dots": b"/public/.%2e/secret",
    "dots and an encoded slash": b"/public/..%2fsecret",
    "all encoded": b"/public%2f%2e%2e%2fsecret",
    "encoded twice": b"/public/%252e%252e/secret",
    "encoded twice with slash": b"/public/..%252fsecret",
    "one encoded dot": b"/%2e/secret",
    "three dots": b"/.../secret",
    # backslashes
    "backslash in front": b"/\\secret",
    "backslash behind": b"/secret\\",
    "backslash up": b"/public\\..\\secret",
    "mixed up": b"/public/..\\secret",
    "encoded backslash": b"/%5csecret",
    "encoded backslash up": b"/public%5c..%5csecret",
    "backslash between": b"/area\\secret",
    # parameters, queries, fragments
    "path parameter": b"/secret;a=b",
    "empty path parameter": b"/secret;",
    "path parameter in front": b"/;/secret",
    "path parameter in the area": b"/area;x=1/secret",
    "up with a parameter": b"/public/..;/secret",
    "parameter with slash": b"/secret;/../public",
    "encoded parameter": b"/secret%3ba=b",
    "encoded question mark": b"/secret%3fx",
    "encoded question mark up": b"/public%3f/../secret",
    "fragment": b"/secret#public",
    "fragment up": b"/public#/../secret",
    "encoded fragment": b"/secret%23",
    # letters
    "encoded first letter": b"/%73ecret",
    "encoded letter": b"/sec%72et",
    "encoded letter of an item": b"/items/%61dmin",
    "letter encoded twice": b"/%2573ecret",
    "first letter": b"/Secret",
    "one encoded capital": b"/%53ecret",
    "area in capitals": b"/AREA/secret",
    "item in capitals": b"/items/ADMIN",
    "fullwidth letter": b"/%EF%BD%93ecret",
    "fullwidth slash": b"/area%EF%BC%8Fsecret",
    "division slash": b"/area%E2%88%95secret",
    "fullwidth dots": b"/public/%EF%BC%8E%EF%BC%8E/secret",
    "one dot leader": b"/public/%E2%80%A4%E2%80%A4/secret",
    "long s": b"/%C5%BFecret",
    "combining mark": b"/secret%CC%81",
    "zero width space": b"/secret%E2%80%8B",
    "byte order mark": b"/%EF%BB%BFsecret",
    "no-break space": b"/secret%C2%A0",
    "next line": b"/secret%C2%85",
    "line separator": b"/secret%E2%80%A8",
    "raw UTF-8": b"/secret\xc3\xa9",
    "raw latin-1": b"/secret\xe9",
    # broken encodings
    "overlong slash": b"/area%c0%afsecret",
    "overlong dots": b"/public/%c0%ae%c0%ae/secret",
    "overlong letter": b"/%c1%b3ecret",
    "overlong by three": b"/area%e0%80%afsecret",
    "surrogate": b"/secret%ed%a0%80",
    "lone continuation": b"/secret%80",
    "lone percent": b"/secret%",
    "half an escape": b"/secret%2",
    "no escape": b"/secret%zz",
    "escape of IIS": b"/%u0073ecret",
    "slash of IIS": b"/area%u002fsecret",
    # control characters and white space
    "NUL behind": b"/secret%00",
    "NUL and a suffix": b"/secret%00.html",
    "NUL between": b"/area/%00/secret",
    "NUL in front": b"/%00/secret",
    "encoded tab": b"/secret%09",
    "encoded line feed": b"/secret%0a",
    "encoded CR LF": b"/secret%0d%0aX-Evil:%201",
    "encoded vertical tab": b"/secret%0b",
    "encoded unit separator": b"/secret%1f",
    "encoded delete": b"/secret%7f",
    "encoded space behind": b"/secret%20",
    "encoded space in front": b"/%20/secret",
    "plus behind": b"/secret+",
    "raw tab": b"/secret\t",
    "raw space": b"/secret ",
    "raw NUL": b"/secret\x00",
    "dot at the end": b"/secret.",
    "encoded dot at the end": b"/secret%2e",
    "suffix": b"/secret.json",
    "star": b"/secret*",
    "tilde": b"/secret~",
    # other forms of a target
    "absolute": b"http://api.test/secret",
    "absolute, another host": b"http://evil.test/secret",
    "absolute, another scheme": b"ftp://api.test/secret",
    "absolute with a double slash": b"http://api.test//secret",
    "absolute without a host": b"http:///secret",
    "absolute, one slash": b"http:/secret",
    "absolute with user info": b"http://x@api.test/secret",
    "absolute up": b"http://api.test/public/../secret",
    "no slash": b"secret",
    "only a query": b"?/secret",
    "asterisk": b"*",
    "empty": b"",
    # mounts
    "under its own mount": b"/mount/secret",
    "under a mount elsewhere": b"/elsewhere/mount/secret",
    "under half a mount": b"/mountsecret",
    "under an encoded mount": b"/%6dount/secret",
    "under a mount twice": b"/mount/mount/secret",
    "under a mount, double slash": b"/mount//secret",
}

_HEADERS: Final[dict[str, bytes]] = {
    "X-Original-URL": b"X-Original-URL: /secret",
    "X-Rewrite-URL": b"X-Rewrite-URL: /secret",
    "X-Original-URI": b"X-Original-URI: /secret",
    "X-Forwarded-Uri": b"X-Forwarded-Uri: /secret",
    "X-Forwarded-Path": b"X-Forwarded-Path: /secret",
    "X-Forwarded-Prefix": b"X-Forwarded-Prefix: /public",
    "X-Envoy-Original-Path": b"X-Envoy-Original-Path: /secret",
    "X-Script-Name": b"X-Script-Name: /public",
    "Script-Name": b"Script-Name: /public",
    "SCRIPT_NAME": b"SCRIPT_NAME: /public",
    "Path-Info": b"Path-Info: /secret",
    "PATH_INFO": b"PATH_INFO: /secret",
    "Forwarded": b"Forwarded: for=127.0.0.1;host=api.test;proto=https",
    "X-Forwarded-For": b"X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Host": b"X-Forwarded-Host: api.test/secret",
    "X-Client": b"User-Agent: kube-probe/1.0",
}

_OVERRIDES: Final[dict[str, bytes]] = {
    "X-HTTP-Method-Override": b"X-HTTP-Method-Override: POST",
    "X-HTTP-Method": b"X-HTTP-Method: POST",
    "X-Method-Override": b"X-Method-Override: POST",
}


def _others() -> list[Spelling]:
    length = b"Content-Length: 0"
    by_header = [
        Spelling(name=f"{name} on {path.decode()}", target=path, headers=(line,))
        for name, line in _HEADERS.items()
        for path in (b"/public", SECRET)
    ]
    overridden = [Spelling(name=name, target=b"/dual", headers=(line,)) for name, line in _OVERRIDES.items()]
    methods = [
        Spelling(name=f"{method.decode()} {path.decode()}", method=method, target=path, headers=(length,))
        for method in (b"OPTIONS", b"get", b"post", b"Post", b"head", b"PURGE", b"TRACE", b"DELETE", b"GET-POST")
        for path in (SECRET, b"/dual")
    ]
    form = b"_method=POST"
    smuggled = b"GET /secret HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"
    return [
        *by_header,
        *overridden,
        *methods,
        Spelling(name="_method in the query", target=b"/dual?_method=POST"),
        Spelling(
            name="_method in the form",
            target=b"/dual",
            headers=(b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % len(form)),
            body=form,
        ),
        Spelling(name="HTTP/1.0", target=SECRET, version=b" HTTP/1.0"),
        Spelling(name="HTTP/0.9", target=SECRET, version=b""),
        Spelling(name="two lengths", target=b"/public", headers=(length, b"Content-Length: 8"), body=smuggled),
        Spelling(
            name="length and chunks",
            target=b"/public",
            body=b"0\r\n\r\n" + smuggled,
            headers=(b"Content-Length: %d" % (5 + len(smuggled)), b"Transfer-Encoding: chunked"),
        ),
        Spelling(name="OPTIONS *", method=b"OPTIONS", target=b"*"),
        Spelling(name="CONNECT", method=b"CONNECT", target=b"api.test:80"),
        Spelling(name="CONNECT /secret", method=b"CONNECT", target=SECRET),
    ]


def _websockets() -> list[Spelling]:
    paths = {
        "/secret": SECRET,
        "trailing slash": b"/live/",
        "double slash": b"//live",
        "encoded slash": b"/%2flive",
        "up": b"/public/../live",
        "parameter": b"/live;a=b",
        "capitals": b"/LIVE",
        "encoded": b"/%6cive",
        "NUL": b"/live%00",
        "backslash": b"/\\live",
    }
    return [
        Spelling(name="websocket /live", target=b"/live", reaches="live", websocket=True),
        *(Spelling(name=f"websocket {name}", target=path, websocket=True) for name, path in paths.items()),
    ]


PLAIN: Final = _plain_spellings()
SUSPICIOUS: Final = [*(Spelling(name=name, target=target) for name, target in _PATHS.items()), *_others()]
WEBSOCKETS: Final = _websockets()
