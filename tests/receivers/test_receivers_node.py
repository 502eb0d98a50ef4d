"""The Node receivers."""

import shutil
from pathlib import Path

import pytest
from receiver_cases import PreloadedJournalCases
from receiver_kit import EXAMPLES, JOURNAL, Receiver, npm_install
from support.needs import require_tool

pytestmark = [pytest.mark.machine, pytest.mark.timeout(240)]


def node(example: Path, folder: Path) -> Receiver:
    return Receiver([str(shutil.which("node")), str(example / "receiver.mjs")], JOURNAL, folder)


@pytest.fixture(scope="module")
def with_express(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tool("npm")
    return npm_install(EXAMPLES / "node-express", tmp_path_factory.mktemp("npm") / "node-express")


@pytest.fixture(scope="module")
def installed() -> None:
    require_tool("node")


@pytest.mark.usefixtures("installed")
class TestNodeHttp(PreloadedJournalCases):
    make = staticmethod(lambda folder, request: node(EXAMPLES / "node-http", folder))


@pytest.mark.usefixtures("installed")
class TestNodeExpress(PreloadedJournalCases):
    make = staticmethod(lambda folder, request: node(request.getfixturevalue("with_express"), folder))
