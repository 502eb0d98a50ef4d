"""Commands as they are typed: what they print, and their exit codes."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay import __version__
from relay.cli import main

CONFIG = """\
upstream:
  websocket_url: ws://127.0.0.1:8788/v2/ws
  rest_url: http://127.0.0.1:8788/v2
  partner_id: demo-partner
  secret: {secret}
store:
  url: sqlite:///{store}
targets:
  - name: shop
    url: https://shop.example.com/hooks/key-in-path
    secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(secret="canary-upstream-secret", store=tmp_path / "relay.db"))
    return path


def invoke(*arguments: str, **environ: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments), env=environ)
    return result.exit_code, result.stdout, result.stderr


def test_version_and_help():
    assert invoke("--version") == (0, f"houdini-relay {__version__}\n", "")
    code, out, _ = invoke("--help")
    assert code == 0
    names = re.findall(r"^  ([a-z]+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert names == [
        "init",
        "run",
        "check",
        "status",
        "tail",
        "targets",
        "deliveries",
        "events",
        "orders",
        "replay",
        "audit",
        "backfill",
        "demo",
        "simulate",
        "listen",
        "secret",
        "schema",
        "store",
        "completion",
    ]


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["check"], ["demo"], ["simulate"], ["listen"], ["secret", "new"], ["store", "migrate"]]
)
def test_help_fits_eighty_columns(arguments: list[str]):
    _, out, _ = invoke(*arguments, "--help")
    assert max(len(line) for line in out.splitlines()) <= 80


def test_check_says_fine_and_shows_no_secret(config: Path):
    code, out, err = invoke("check", "-c", str(config))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{config}: fine"
    assert "shop -> https://shop.example.com/hooks/" in out
    assert "canary" not in out
    assert "key-in-path" not in out


def test_check_as_json(config: Path):
    code, out, _ = invoke("check", "--json", "-c", str(config))
    assert code == 0
    assert json.loads(out)["ok"] is True


def test_check_reports_every_problem_with_its_place(config: Path):
    config.write_text(config.read_text().replace("partner_id:", "partnerid:").replace("name: shop", "name: Shop"))
    code, out, err = invoke("check", "-c", str(config))
    assert (code, out) == (2, "")
    assert f"{config}:4:3: upstream.partnerid:" in err
    assert f"{config}:9:5: targets[0].name:" in err
    code, out, err = invoke("check", "--json", "-c", str(config))
    assert (code, err) == (2, "")
    answer = json.loads(out)
    assert answer["ok"] is False
    assert {problem["path"] for problem in answer["problems"]} >= {"upstream.partnerid", "targets[0].name"}


def test_the_environment_names_the_configuration(config: Path):
    assert invoke("check", HOUDINI_RELAY_CONFIG=str(config))[0] == 0


def test_a_missing_configuration_is_a_sentence(tmp_path: Path):
    code, _, err = invoke("check", "-c", str(tmp_path / "nowhere.yaml"))
    assert code == 2
    assert "nowhere.yaml" in err
    assert "Traceback" not in err


def test_run_needs_its_secrets_and_migrate_does_not(config: Path):
    config.write_text(config.read_text().replace("canary-upstream-secret", "${NOT_SET_ANYWHERE}"))
    code, _, err = invoke("run", "-c", str(config))
    assert (code, "NOT_SET_ANYWHERE" in err) == (2, True)
    assert invoke("store", "migrate", "-c", str(config))[0] == 0


def test_store_migrate_creates_and_then_finds_it_up_to_date(config: Path, tmp_path: Path):
    code, out, _ = invoke("store", "migrate", "-c", str(config))
    assert (code, out) == (0, f"{tmp_path / 'relay.db'}: applied 0001_initial.sql\n")
    assert invoke("store", "migrate", "-c", str(config))[1] == f"{tmp_path / 'relay.db'}: up to date\n"
    code, out, _ = invoke("store", "migrate", "--json", "-c", str(config))
    assert json.loads(out) == {"store": str(tmp_path / "relay.db"), "applied": []}


def test_store_migrate_of_a_damaged_file_exits_with_3(config: Path, tmp_path: Path):
    (tmp_path / "relay.db").write_bytes(b"rubbish" * 1000)
    code, out, err = invoke("store", "migrate", "-c", str(config))
    assert (code, out) == (3, "")
    assert "restore a back-up" in err


def test_secret_new_makes_a_different_one_each_time():
    code, first, _ = invoke("secret", "new")
    assert code == 0
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", first)
    assert first != invoke("secret", "new")[1]
    assert json.loads(invoke("secret", "new", "--json")[1])["secret"].startswith("whsec_")


def test_listen_refuses_a_bad_secret_and_a_taken_port():
    code, _, err = invoke("listen", "--port", "0", "--secret", "nonsense")
    assert (code, "--secret" in err) == (2, True)


def test_an_unknown_command_is_a_usage_error():
    assert invoke("no-such-command")[0] == 2
