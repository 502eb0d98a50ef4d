"""Asking the running relay: what the command line uses, with a sentence for everything that can go wrong."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

import aiohttp
from yarl import URL

from relay.admin.answers import SERVER_NAME
from relay.admin.server_sent import StreamReader, Told
from relay.admin.whose import CONFIG_HEADER
from relay.config import AdminSettings
from relay.config.marks import marks_of
from relay.errors import BrokenOff, DaemonRefused, DaemonUnavailable, NobodyAnswers, SecretUnreadable

ANSWER_CAP: Final = 64 * 2**20
"""Bytes of an answer beyond which it is given up."""
PATIENCE: Final = 35.0
"""Seconds for an ordinary question, a little more than the server gives itself."""
SILENCE: Final = 60.0
"""Seconds without a word after which a stream counts as broken; it says something every 15 s."""
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names what to replace, binds nothing


class AdminClient:
    """Questions to one relay; use it with `async with`.

    Making one reads the token, which may lie in a file, so it is made outside the event loop.

    Args:
        settings: where it is, and what it wants to hear.
        config_path: the file they come from: the relay does nothing for who goes by another one.
        on_another: is told the path of the relay's own file where it is another one and only reading was asked for.

    Raises:
        DaemonUnavailable: the configuration names no address to ask, or its token cannot be read.
    """

    def __init__(
        self,
        settings: AdminSettings,
        config_path: Path | None = None,
        on_another: Callable[[str], None] = lambda _path: None,
    ) -> None:
        self._address = _address(settings)
        self._marks = None if config_path is None else " ".join(sorted(marks_of(config_path)))
        self._on_another = on_another
        try:
            self._token = None if settings.token is None else settings.token.reveal()
        except SecretUnreadable as error:
            raise DaemonUnavailable(f"admin.token cannot be read: {error}") from None
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """The host and port that are asked."""
        return str(self._address.origin()).removeprefix("http://")

    async def __aenter__(self) -> Self:
        headers = {"accept": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        if self._marks is not None:
            headers[CONFIG_HEADER] = self._marks
        self._session = aiohttp.ClientSession(
            headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Any:
        """`GET path`, as in `/api/v1/status`; returns the decoded answer.

        Raises:
            DaemonUnavailable: nobody answers in time, somebody else does, or the token is not accepted.
            DaemonRefused: the relay answered with an error.
        """
        return await self._ask("GET", path, None, PATIENCE)

    async def post(self, path: str, body: Any, *, patience: float = PATIENCE) -> Any:
        """`POST path` with a JSON body, waiting `patience` seconds; returns the decoded answer.

        Raises:
            DaemonUnavailable: nobody answers in time, somebody else does, or the token is not accepted.
            DaemonRefused: the relay answered with an error.
        """
        return await self._ask("POST", path, body, patience)

    async def listen(self, path: str, last_id: str | None = None) -> AsyncIterator[Told]:
        """What the stream at `path` tells, from now on, until the relay ends it.

        The first thing is told as soon as the relay listens to us; a kind is empty where there is nothing new.

        Raises:
            DaemonUnavailable: nobody answers, somebody else does, the token is not accepted, or it broke off.
            DaemonRefused: the relay answered with an error.
        """
        headers = {"accept": "text/event-stream"} | ({} if last_id is None else {"last-event-id": last_id})
        limit = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=SILENCE)
        async with self._asked("GET", path, None, headers, limit) as answer:
            if answer.content_type != "text/event-stream" or answer.headers.get("server") != SERVER_NAME:
                self._understand(answer, await _read(answer))
                raise DaemonUnavailable(f"what answers at {self.address} is not houdini-relay; see admin.listen")
            reader = StreamReader()
            async for line in answer.content:
                told = reader.read(line.decode().rstrip("\r\n"))
                if told is not None:
                    yield told

    async def _ask(self, method: str, path: str, body: Any, patience: float) -> Any:
        limit = aiohttp.ClientTimeout(total=patience)
        headers = {} if body is None else {"content-type": "application/json"}
        async with (
            self._asked(method, path, None if body is None else json.dumps(body).encode(), headers, limit) as answer,
            asyncio.timeout(patience),
        ):
            return self._understand(answer, await _read(answer))

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], limit: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that has begun; whatever goes wrong while it is read becomes a sentence, too."""
        if self._session is None:
            raise RuntimeError("use the client with `async with`")
        url = self._address.join(URL(path, encoded=True))
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, timeout=limit
            ) as answer:
                if another := answer.headers.get(CONFIG_HEADER):
                    self._on_another(unquote(another))
                yield answer
        except TimeoutError:
            seconds = limit.total or limit.sock_read or PATIENCE
            raise BrokenOff(f"{self.address} gave no answer within {seconds:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            reason = os.strerror(error.os_error.errno) if error.os_error.errno else "no connection"
            raise NobodyAnswers(
                f"nobody answers at {self.address} ({reason}): is `houdini-relay run` running, with this configuration?"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BrokenOff(f"{self.address} broke off the answer ({type(error).__name__})") from None

    def _understand(self, answer: aiohttp.ClientResponse, text: bytes) -> Any:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if answer.headers.get("server") != SERVER_NAME or not isinstance(document, dict):
            raise DaemonUnavailable(f"what answers at {self.address} is not houdini-relay; see admin.listen")
        if answer.status < 400:
            return document
        error = document.get("error")
        code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
        if answer.status == 401:
            advice = "the token of this configuration" if self._token is not None else "a request without a token"
            raise DaemonUnavailable(f"the relay at {self.address} does not accept {advice}; see admin.token")
        raise DaemonRefused(answer.status, str(code), str(message))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    text = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        text += chunk
        if len(text) > ANSWER_CAP:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return bytes(text)


def _address(settings: AdminSettings) -> URL:
    if settings.listen is None:
        raise NobodyAnswers("this asks the running relay, but admin.listen is null in its configuration")
    host, port = settings.listen
    if port == 0:
        raise NobodyAnswers("admin.listen has port 0, a different one each time; give it a fixed port")
    return URL.build(scheme="http", host=_ANY_ADDRESS.get(host, host), port=port)
