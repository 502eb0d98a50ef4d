"""An example receiver for each test class; the class says which by its `make`."""

from collections.abc import Callable, Iterator

import pytest

pytest.register_assert_rewrite("receiver_cases")

from receiver_kit import Receiver  # noqa: E402 - after the line above, for what it imports


@pytest.fixture(scope="class")
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Receiver]:
    """Makes receivers of the class's kind, each with a folder of its own."""
    return lambda: request.cls.make(tmp_path_factory.mktemp("receiver"), request)


@pytest.fixture(scope="class")
def receiver(fresh: Callable[[], Receiver]) -> Iterator[Receiver]:
    """One that runs for the whole class."""
    made = fresh()
    try:
        made.start()
        yield made
    finally:
        made.kill()
