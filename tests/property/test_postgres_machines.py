"""What the SQLite store is put through, the PostgreSQL store is put through: the same rules, fewer runs."""

import os

import pytest
from hypothesis import HealthCheck, settings
from test_queue_machine import QueueMachine
from test_store_machine import StoreMachine

pytest.importorskip("asyncpg")

from postgres_model import PostgresQueueBench, PostgresRelay
from support.postgres import find_programs

SOAK = os.environ.get("RELAY_PROFILE") == "relay-soak"
EXAMPLES = int(os.environ.get("EXAMPLES", "500")) if SOAK else 8


class PostgresQueueMachine(QueueMachine):
    make_bench = PostgresQueueBench


class PostgresStoreMachine(StoreMachine):
    make_relay = PostgresRelay


for machine in (PostgresQueueMachine, PostgresStoreMachine):
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.mark.slow
@pytest.mark.timeout(0 if SOAK else 300)
class TestPostgresQueueUnderTrouble(PostgresQueueMachine.TestCase):  # type: ignore[misc] # made at run time
    @classmethod
    def setUpClass(cls) -> None:
        find_programs()


@pytest.mark.slow
@pytest.mark.timeout(0 if SOAK else 300)
class TestPostgresStoreUnderTrouble(PostgresStoreMachine.TestCase):  # type: ignore[misc] # made at run time
    @classmethod
    def setUpClass(cls) -> None:
        find_programs()
