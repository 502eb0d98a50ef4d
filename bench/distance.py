"""A TCP way to the database that is as long as one wishes: each byte arrives so much later, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 65_536


class Way:
    """Counts how often the talk turns: a round trip is a word to the server that comes after one from it."""

    def __init__(self, port: int, one_way: float) -> None:
        self._to, self._one_way = port, one_way
        self.round_trips = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        answered = [True]
        await asyncio.gather(
            self._copy(reader, there_writer, answered, to_server=True),
            self._copy(there_reader, writer, answered, to_server=False),
            return_exceptions=True,
        )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: list[bool], *, to_server: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(_CHUNK):
                self.round_trips += to_server and answered[0]
                answered[0] = not to_server
                if self._one_way:
                    loop.call_later(self._one_way, writer.write, data)
                else:
                    writer.write(data)
        finally:
            loop.call_later(self._one_way, writer.close)


@asynccontextmanager
async def way_to(port: int, one_way: float) -> AsyncIterator[tuple[int, Way]]:
    """The port to use instead of `port`, and what counts there."""
    way = Way(port, one_way)
    server = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], way
