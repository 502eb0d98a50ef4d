from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.stores import Bench

from relay.store.sqlite import SqliteStore


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    def over(path: Path) -> SqliteStore:
        return SqliteStore(path, lambda: made.now_ms, lambda _seconds: None)

    made = Bench(lambda: over(tmp_path / "relay.db"), over)
    await made.open()
    yield made
    await made.store.close()
