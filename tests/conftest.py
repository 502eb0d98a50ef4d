"""For every test: no secret left over from another, and no blocking call of ours inside the event loop."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from blockbuster import blockbuster_ctx
from hypothesis import settings
from support.needs import require_tool

from relay import log

# For `make check`; everything else looks at a hundred examples where a test does not say how many.
settings.register_profile("quick", max_examples=20)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take longest come first: begun last, one of them would keep a single worker busy at the end."""
    seconds: Counter[Path] = Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None or item.get_closest_marker("slow") is not None:
            seconds[item.path] += limit.args[0] if limit is not None else 60
    items.sort(key=lambda item: seconds[item.path], reverse=True)


@pytest.fixture(autouse=True, scope="session")
def no_blocking_calls() -> Iterator[None]:
    """Failure mode 22: a blocked loop misses pongs; only what runs in `relay` is watched, its simulator aside."""
    with blockbuster_ctx("relay", excluded_modules=["relay.simulator"]) as watch:
        # A traceback shows source lines: rare, and worth the read.
        watch.functions["os.stat"].can_block_in("linecache.py", {"checkcache", "updatecache"})
        # Whenever it connects, the driver looks for a password file and certificates: local, small and rare.
        for function in watch.functions.values():
            function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_dsn_and_args"})
        yield


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    log.forget_secrets()
    processors = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=processors, cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()
    log.forget_secrets()


@pytest.fixture(scope="session")
def openssl() -> None:
    require_tool("openssl")
