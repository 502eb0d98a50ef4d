"""What a browser does, without one: keeps cookies, says which page it is on, and sends the forms it was shown."""

import html
import re
from types import TracebackType
from typing import Any, Self

import aiohttp
from admin_kit import TOKEN, AdminRoom


class Shown:
    """An answer as a browser has it."""

    def __init__(self, answer: aiohttp.ClientResponse, text: str) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.cookies = answer.cookies
        self.text = text

    @property
    def location(self) -> str:
        return self.headers["location"]

    @property
    def form_secret(self) -> str:
        found = re.search(r'name="form_secret" value="([0-9a-f]{64})"', self.text)
        assert found is not None, self.text[:500]
        return found[1]

    @property
    def words(self) -> str:
        """What stands on the page, without tags."""
        visible = re.sub(r"<head>.*?</head>", "", self.text, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", visible)).split())

    @property
    def fields(self) -> dict[str, str]:
        """The hidden fields of its forms."""
        found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', self.text)
        return {name: html.unescape(value) for name, value in found}


class Browser:
    """Visits one room; follows no redirect by itself."""

    def __init__(self, room: AdminRoom) -> None:
        self._room = room
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(total=10)
        )
        self.secret = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **headers: str) -> Shown:
        return await self._ask("GET", path, headers)

    async def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Shown:
        """Send a form with the secret of the last page that had one."""
        data = {"form_secret": self.secret, **(fields or {})}
        return await self._ask("POST", path, {"origin": self._room.url, **headers}, data=data)

    async def sign_in(self, token: str = TOKEN, **fields: str) -> Shown:
        await self.get("/login")
        return await self.post("/login", {"token": token, "next": "/", **fields})

    async def _ask(self, method: str, path: str, headers: dict[str, str], **sent: Any) -> Shown:
        given = {"accept": "text/html,application/xhtml+xml", **headers}
        async with self._session.request(
            method, self._room.url + path, headers=given, allow_redirects=False, **sent
        ) as answer:
            shown = Shown(answer, await answer.text())
        if 'name="form_secret"' in shown.text:
            self.secret = shown.form_secret
        return shown
