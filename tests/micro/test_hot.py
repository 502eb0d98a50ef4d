"""`make micro` measures them; otherwise each is called once, so that it goes on working."""

import pytest
from micro.hot import calls
from pytest_benchmark.fixture import BenchmarkFixture

CALLS = calls()


@pytest.mark.parametrize("name", CALLS)
def test_what_every_update_passes_through(benchmark: BenchmarkFixture, name: str) -> None:
    benchmark(CALLS[name])
