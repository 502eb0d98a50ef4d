"""The function for AWS Lambda, behind a stand-in for AWS, with its table in a DynamoDB emulator."""

import http.client
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from receiver_cases import ReceiverCases
from receiver_kit import EXAMPLES, START_SECONDS, Files, Receiver, Taken, pip_install, python_with

from relay.simulator.child import free_port

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]
HERE = Path(__file__).parent
EMULATOR = ("moto", "py-partiql-parser", "flask", "flask-cors")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-central-1"}
tables = itertools.count(1)


class Table(Files):
    """Remembers in DynamoDB: a place is a table, and what breaks it is that there is none."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, action: str, **question: Any) -> Any:
        signature = "AWS4-HMAC-SHA256 Credential=none/20261122/eu-central-1/dynamodb/aws4_request"
        headers = {"x-amz-target": f"DynamoDB_20120810.{action}", "authorization": signature}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            connection.request("POST", "/", json.dumps(question), headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return json.load(answer)

    def create(self, table: str) -> None:
        self.ask(
            "CreateTable",
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )

    def place(self, folder: Path) -> str:
        table = f"table-{next(tables)}"
        self.create(table)
        return table

    def taken(self, state: str) -> Taken:
        found: Taken = []
        start: dict[str, Any] = {}
        while True:
            page = self.ask("Scan", TableName=state, ConsistentRead=True, **start)
            items = [item for item in page["Items"] if item["pk"]["S"].startswith("event#")]
            found += [(item["pk"]["S"].removeprefix("event#"), item["body"]["S"].encode()) for item in items]
            if "LastEvaluatedKey" not in page:
                return sorted(found)
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    @contextmanager
    def failing(self, folder: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
        table = f"table-{next(tables)}"
        yield table, lambda: None, lambda: self.create(table)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requirements = str(EXAMPLES / "aws-lambda" / "requirements.txt")
    return pip_install(tmp_path_factory.mktemp("pip") / "aws", "-r", requirements, *EMULATOR)


@pytest.fixture(scope="module")
def table(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    port, environ = free_port(), {**python_with(packages), "PATH": "", **CREDENTIALS}
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        _until_it_answers(port, process)
        yield Table(port)
    finally:
        process.kill()
        process.wait(10)


def _until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as trial:
                trial.connect()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the emulator of DynamoDB did not start")


def function(shape: str, folder: Path, request: pytest.FixtureRequest) -> Receiver:
    store = request.getfixturevalue("table")
    environ = {
        **python_with(request.getfixturevalue("packages")),
        "HANDLER_FOLDER": str(EXAMPLES / "aws-lambda"),
        "EVENT_SHAPE": shape,
        "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{store._port}",
        **CREDENTIALS,
    }
    return Receiver([sys.executable, str(HERE / "lambda_host.py")], store, folder, environ)


class TestFunctionUrl(ReceiverCases):
    make = staticmethod(lambda folder, request: function("url", folder, request))


class TestRestApi(ReceiverCases):
    make = staticmethod(lambda folder, request: function("rest", folder, request))
