"""The receivers in PHP, Ruby, Go and Java."""

import os
import subprocess
from pathlib import Path

import pytest
from receiver_cases import JournalCases, SqliteCases
from receiver_kit import EXAMPLES, JOURNAL, SECRET, SQLITE, Receiver
from support.needs import require_library, require_tool

pytestmark = [pytest.mark.machine, pytest.mark.timeout(120)]
JARS = "/usr/share/java"
TWO_WRITERS = """
def run(app) = nil
load ARGV[0]
held = Queue.new
writer = Thread.new do
  open_state { |db| db.transaction(:immediate) { held.push(true); sleep 0.1 } }
end
held.pop
accept("evt_1", '{"type":"relay.test","data":{}}')
writer.join
open_state { |db| puts "kept" if db.execute("SELECT count(*) FROM work") == [[1]] }
"""


def php(folder: Path, request: pytest.FixtureRequest) -> Receiver:
    require_tool("php")
    # The worst setting: an exception that is shown to the sender would be answered with 200.
    command = ["php", "-d", "display_errors=1", "-S", "127.0.0.1:{port}", str(EXAMPLES / "php" / "receiver.php")]
    return Receiver(command, SQLITE, folder, {"PHP_CLI_SERVER_WORKERS": "4"})


def ruby(folder: Path, request: pytest.FixtureRequest) -> Receiver:
    require_tool("puma")
    command = ["puma", "-b", "tcp://127.0.0.1:{port}", "-e", "production", str(EXAMPLES / "ruby" / "config.ru")]
    return Receiver(command, SQLITE, folder)


def java(folder: Path, request: pytest.FixtureRequest) -> Receiver:
    require_tool("java")
    path = os.pathsep.join(require_library(f"{JARS}/{name}.jar") for name in ("gson", "sqlite-jdbc"))
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", path, str(EXAMPLES / "java" / "Receiver.java")]
    return Receiver(command, SQLITE, folder)


@pytest.fixture(scope="module")
def go_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_tool("go")
    folder = tmp_path_factory.mktemp("go")
    environ = os.environ | {"GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "path"), "GOPROXY": "off"}
    built = folder / "receiver"
    subprocess.run(["go", "build", "-o", built, "."], cwd=EXAMPLES / "go", env=environ, check=True)
    return built


class TestPhp(SqliteCases):
    make = staticmethod(php)
    reads_half_letters = False


class TestRuby(SqliteCases):
    make = staticmethod(ruby)
    reads_half_letters = False

    def test_who_waits_for_the_database_lets_its_writer_go_on(self, tmp_path: Path):
        """All threads of a Ruby process share one lock: waiting inside SQLite would hold up the thread waited for."""
        require_tool("puma")  # which brings ruby and its sqlite3
        given = {"RELAY_SECRET": SECRET, "RELAY_STATE": str(tmp_path / "state")}
        command = ["ruby", "-e", TWO_WRITERS, str(EXAMPLES / "ruby" / "config.ru")]
        done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=60, check=False)
        assert (done.stdout, done.stderr) == ("kept\n", "")


class TestGo(JournalCases):
    make = staticmethod(lambda folder, request: Receiver([str(request.getfixturevalue("go_binary"))], JOURNAL, folder))


class TestJava(SqliteCases):
    make = staticmethod(java)
