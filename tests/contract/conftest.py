from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.stores import Bench

from relay.store.sqlite import SqliteStore


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(lambda: SqliteStore(tmp_path / "relay.db", lambda: 1_000, lambda _seconds: None))
    await made.open()
    yield made
    await made.store.close()
