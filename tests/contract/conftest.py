from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.postgres import find_programs, shared_server
from support.stores import Bench

from relay.store.sqlite import SqliteStore

with suppress(ImportError):  # its driver is optional
    from relay.store.postgres import PostgresStore


@pytest.fixture(params=["sqlite", "postgres"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A store of each kind, with two targets."""
    if request.param == "postgres":
        find_programs()
        async with shared_server().database() as url:
            made = Bench(lambda: PostgresStore(url, lambda: made.now_ms, lambda _seconds: None))
            await made.open()
            yield made
            await made.store.close()
        return

    def over(path: Path) -> SqliteStore:
        return SqliteStore(path, lambda: made.now_ms, lambda _seconds: None)

    made = Bench(lambda: over(tmp_path / "relay.db"), over)
    await made.open()
    yield made
    await made.store.close()
