"""Secrets that can be recognised, everything that echoes them, and a stage on which both meet."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stage import PARTNER, Stage

from relay.simulator.server import SimulatedUpstream

PLACES = (
    "upstream-secret rest-header admin-token header-value path-key query-key url-password basic-username "
    "basic-password bearer-token client-id client-secret proxy-user proxy-password issued-token refused-client"
)
CANARIES = {place: f"canary-{place}-{number:02d}x7Qz" for number, place in enumerate(PLACES.split())}
ODD = "canary+odd/p@ss:w=rd%7Q"
"""A password that no URL and no form carries as it is."""
HMAC_KEY = "whsec_" + base64.b64encode(b"canary-hmac-key-0123456789abcdef").decode()
SEED = b"canary-ed25519-seed-0123456789ab"
PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
ED25519_KEY = "whsk_" + base64.b64encode(SEED + PUBLIC_KEY).decode()


def forms() -> Iterator[str]:
    """Every secret, and the ways in which it travels."""
    c = CANARIES
    for value in (*c.values(), ODD, HMAC_KEY[6:], ED25519_KEY[5:]):
        yield from {value, quote(value, safe=""), quote(value), json.dumps(value)[1:-1]}
    yield base64.b64encode(SEED).decode().rstrip("=")
    pairs = [
        (c["basic-username"], c["basic-password"]),
        (c["proxy-user"], c["proxy-password"]),
        (c["client-id"], c["client-secret"]),
        (c["refused-client"], ODD),
        ("user", c["url-password"]),
        ("odd", ODD),
        (PARTNER, c["upstream-secret"]),
    ]
    for one, two in pairs:
        for user, password in ((one, two), (quote(one, safe=""), quote(two, safe=""))):
            yield base64.b64encode(f"{user}:{password}".encode()).decode()


NEEDLES = sorted({form.encode() for form in forms()})


def found_in(haystack: bytes) -> list[str]:
    return [needle.decode() for needle in NEEDLES if needle in haystack]


class Echo:
    """Answers everything, proxy requests included, with all that it was told: status line, headers and body."""

    def __init__(self) -> None:
        self.requests = 0
        self.heard = b""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Echo":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            self.requests += 1
            self.heard += head + body
            writer.write(self._answer(lines[0], " | ".join(line for line in lines if line), body))
            await writer.drain()
        writer.close()

    def _answer(self, request_line: str, said: str, body: bytes) -> bytes:
        if "/token-good" in request_line:
            token = {"access_token": CANARIES["issued-token"], "token_type": "Bearer", "expires_in": 3600}
            return _response("200 OK", {"content-type": "application/json"}, json.dumps(token).encode())
        # How it fails goes round, so that one target meets every kind.
        kinds = ["500", "429", "410"] if "/gone" in request_line else ["500", "302", "401", "503", "422"]
        status = kinds[self.requests % len(kinds)]
        headers = {"content-type": "text/plain", "location": f"http://127.0.0.1/{said}", "server": said, "x-echo": said}
        return _response(f"{status} you said {said}", headers, said.encode("latin-1") + b"\n" + body)


def _response(status: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"content-length: {len(body)}", "connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class CanaryStage(Stage):
    """A real upstream, and everybody else echoes."""

    def __init__(self, folder: Path, echo: Echo) -> None:
        super().__init__(folder)
        self.echo = echo
        self.upstream = SimulatedUpstream(self.world, partner_id=PARTNER, secret=CANARIES["upstream-secret"])
        self.upstream_echoes = False

    def settings(self) -> dict[str, Any]:
        settings, port, c = super().settings(), self.echo.port, CANARIES
        settings["upstream"] |= {
            "secret": c["upstream-secret"],
            "rest_url": f"http://127.0.0.1:{port}/v2",
            "rest_headers": {"x-edge": c["rest-header"]},
        }
        if self.upstream_echoes:
            settings["upstream"]["websocket_url"] = f"ws://127.0.0.1:{port}/ws"
        settings["admin"]["token"] = c["admin-token"]
        base = f"http://127.0.0.1:{port}"
        good, refused = _oauth2(base, "good", "client"), _oauth2(base, "refused", "refused-client", ODD)
        settings["targets"] = [
            _target(
                "plain", f"{base}/hooks/{c['path-key']}?key={c['query-key']}", headers={"x-key": c["header-value"]}
            ),
            _target("userinfo", f"http://user:{c['url-password']}@127.0.0.1:{port}/hooks/a"),
            _target("odd", f"http://odd:{quote(ODD, safe='')}@127.0.0.1:{port}/hooks/b?p={quote(ODD, safe='')}"),
            _target("basic", f"{base}/hooks/c", auth={"basic": _named(c, "basic", "username", "password")}),
            _target("bearer", f"{base}/gone", auth={"bearer": c["bearer-token"]}),
            _target("oauth", f"{base}/hooks/d", auth={"oauth2": good}),
            _target("oauth-refused", f"{base}/hooks/e", auth={"oauth2": refused}),
            _target("proxied", f"{base}/hooks/{c['path-key']}", proxy=_proxy(port)),
            _target("proxied-tls", f"https://shop.example.com/hooks/{c['path-key']}", proxy=_proxy(port)),
            _target("closed", f"http://user:{c['url-password']}@127.0.0.1:1/hooks/{c['path-key']}?k={c['query-key']}"),
        ]
        return settings


def _named(canaries: dict[str, str], way: str, *names: str) -> dict[str, str]:
    return {name: canaries[f"{way}-{name}"] for name in names}


def _oauth2(base: str, path: str, client: str, secret: str = "") -> dict[str, str]:
    client_id = CANARIES["client-id" if client == "client" else client]
    return {
        "token_url": f"{base}/token-{path}",
        "client_id": client_id,
        "client_secret": secret or CANARIES["client-secret"],
    }


def _proxy(port: int) -> str:
    return f"http://{CANARIES['proxy-user']}:{CANARIES['proxy-password']}@127.0.0.1:{port}"


def _target(name: str, url: str, **changes: Any) -> dict[str, Any]:
    retry = {"schedule": ["100ms"] * 3, "jitter": 0, "retry_after_max": "1s"}
    breaker = {"failures": 6, "probe": {"initial": "200ms", "max": "1s"}}
    return {"name": name, "url": url, "secrets": [HMAC_KEY, ED25519_KEY], "retry": retry, "breaker": breaker, **changes}


def pair(one: str, two: str) -> bytes:
    return base64.b64encode(f"{CANARIES[one]}:{CANARIES[two]}".encode())
