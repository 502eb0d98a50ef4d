"""For every test: no secret left over from another, and no blocking call of ours inside the event loop."""

from collections.abc import Iterator

import pytest
import structlog
from blockbuster import blockbuster_ctx
from support.needs import require_tool

from relay import log


@pytest.fixture(autouse=True)
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
