"""`init` and `schema`: what a newcomer types first."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from support.needs import require_tool

from relay.cli import main
from relay.cli.receiving import leading_to, sending_to
from relay.config import Settings, load
from relay.config.schema import configuration_schema

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
ENVIRON = {"HOUDINI_PARTNER_ID": "partner", "HOUDINI_SECRET": "secret"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOUDINI_RELAY_CONFIG", raising=False)


def made(path: str = "config.yaml") -> Settings:
    return load(path, environ=ENVIRON)


def test_what_it_writes_is_a_configuration_and_only_we_can_read_the_secrets() -> None:
    result = run("--target", "shop=https://shop.example.com/hook", "--target", "ledger=https://ledger.example.com/in")
    assert result.exit_code == 0, result.output
    settings = made()
    assert [one.name for one in settings.targets] == ["shop", "ledger"]
    assert settings.upstream.websocket_url.startswith("wss://")
    assert settings.upstream.backfill.first_start == "baseline"
    secrets = [one.secrets[0].reveal() for one in settings.targets]
    assert len(set(secrets)) == 2
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert stat.S_IMODE(os.stat("secrets").st_mode) == 0o700
    assert {stat.S_IMODE(os.stat(f"secrets/{name}").st_mode) for name in ("shop", "ledger")} == {0o600}
    assert stat.S_IMODE(os.stat("config.yaml").st_mode) == 0o600  # a target's address may be a secret, too
    assert not any(secret in result.output + Path("config.yaml").read_text() for secret in secrets)


def test_the_next_steps_are_commands_that_name_what_was_written() -> None:
    output = run("--simulator", "-c", "sub dir.yaml").output
    assert "houdini-relay simulate" in output
    assert 'houdini-relay listen --secret "$(cat secrets/shop)"' in output
    assert "houdini-relay check --connect -c 'sub dir.yaml'" in output
    settings = made("sub dir.yaml")
    assert settings.targets[0].url.reveal() == "http://127.0.0.1:8789/"
    assert settings.upstream.secret.reveal() == "demo-secret"


def test_it_fits_a_terminal() -> None:
    for number, arguments in enumerate((["--simulator"], [])):
        output = run(*arguments, *(["-c", "b.yaml", "--target", "b=https://b.example"] if number else [])).output
        assert all(len(line) <= 80 for line in output.splitlines())


def test_every_receiver_on_this_machine_gets_its_command() -> None:
    urls = ("shop=http://127.0.0.1:8789/", "ledger=http://localhost:8790/in", "far=https://far.example/")
    output = run("--simulator", *(one for url in urls for one in ("--target", url))).output
    assert 'houdini-relay listen --secret "$(cat secrets/shop)"' in output
    assert 'houdini-relay listen --port 8790 --secret "$(cat secrets/ledger)"' in output
    assert "cat secrets/far" not in output


def test_no_secret_ends_up_in_a_repository(tmp_path: Path) -> None:
    require_tool("git")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert run().exit_code == 0
    seen = subprocess.run(["git", "status", "--short", "-uall"], capture_output=True, text=True, check=True).stdout
    assert seen.split() == ["??", "config.yaml"]


def test_what_a_repository_ignores_is_left_to_whoever_said_so() -> None:
    Path("secrets").mkdir()
    Path("secrets/.gitignore").write_text("mine")
    assert run().exit_code == 0
    assert Path("secrets/.gitignore").read_text() == "mine"


def test_the_files_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-c", str(tmp_path / "deep" / "er" / "config.yaml")).exit_code == 0
    monkeypatch.chdir("/")
    settings = made(str(tmp_path / "deep" / "er" / "config.yaml"))
    assert settings.targets[0].secrets[0].reveal()
    assert str(settings.store.url) == f"sqlite:///{tmp_path}/deep/er/relay.db"


@pytest.mark.parametrize("there", ["config.yaml", "secrets/shop"])
def test_what_is_there_stays_as_it_is(there: str) -> None:
    Path("secrets").mkdir()
    Path(there).write_text("mine")
    result = run()
    assert result.exit_code == 2
    assert "nothing was written" in result.output
    assert there in result.output
    assert Path(there).read_text() == "mine"
    assert sum(1 for one in Path().rglob("*") if one.is_file()) == 1


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("https://hooks.example.com/CANARY", "write NAME=URL"),
        ("=https://a.example", "write NAME=URL"),
        ("../x=https://a.example", "a target's name has 1 to 63"),
        ("shop=ftp://a.example", "https://"),
        ("shop=http://10.0.0.1/", "private"),
    ],
)
def test_a_target_that_is_none_is_refused_before_anything_is_written(target: str, sentence: str) -> None:
    result = run("--target", target)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "CANARY" not in result.output
    assert not list(Path().iterdir())


def test_one_name_twice_is_refused() -> None:
    result = run("--target", "shop=https://a.example", "--target", "shop=https://b.example")
    assert result.exit_code == 2
    assert "unique" in result.output


def test_half_of_it_is_never_left_behind() -> None:
    Path("file").write_text("")
    assert run("-c", "file/config.yaml").exit_code == 2
    os.symlink("nowhere/config.yaml", "dangling.yaml")
    result = run("-c", "dangling.yaml")
    assert result.exit_code == 2
    assert "nothing was written" in result.output
    assert {one.name for one in Path().rglob("*")} == {"file", "dangling.yaml"}


def test_the_schema_is_printed() -> None:
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == configuration_schema()


def changed_as_documented(place: int, text: str) -> str:
    """The file after the changes of docs/operations.md, "From init's file to a service"; `place` is the column."""
    section = OPERATIONS.split("\n## From init's file to a service\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) == 5
    old = [re.findall(r"`(.+?)`", row[0])[0] for row in rows]
    assert all(line in text for line in (*old[:2], "\nstore:\n", "\nadmin:\n  listen:", 'secrets/shop"}'))
    if place == 1:
        text = text.replace(old[0], "partner_id: 'partner'").replace(old[1], rows[1][1].strip("`"))
    text = re.sub(r'url: "sqlite:.+"', rows[2][1].strip("`"), text)
    return re.sub(r"- \{file: .+\}", rows[3][place].strip("`"), text)


def test_the_documented_changes_make_it_fit_for_systemd(tmp_path: Path) -> None:
    assert run("--target", "shop=https://shop.example.com/hook").exit_code == 0
    text = changed_as_documented(1, Path("config.yaml").read_text())
    unit = OPERATIONS.split("\n## Under systemd\n")[1].split("\n## ")[0]
    shipped = (Path(__file__).parents[2] / "systemd" / "houdini-relay.service").read_text(encoding="utf-8")
    loaded = re.findall(r"^LoadCredential=(\S+?):", unit + shipped, re.MULTILINE)
    assert sorted(loaded) == ["houdini-secret", "shop-secret"]
    for name in loaded:
        (tmp_path / name).write_text(Path("secrets/shop").read_text())
    Path("unit.yaml").write_text(text)
    settings = load("unit.yaml", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.targets[0].secrets[0].where == "credential shop-secret"
    assert str(settings.store.url) == "sqlite:////var/lib/houdini-relay/relay.db"


def test_the_documented_changes_make_it_fit_for_a_container() -> None:
    assert run("--target", "shop=https://shop.example.com/hook").exit_code == 0
    text = changed_as_documented(2, Path("config.yaml").read_text())
    assert "- {file: /etc/houdini-relay/secrets/shop}" in text
    Path("there.yaml").write_text(text.replace("/etc/houdini-relay/secrets", str(Path("secrets").absolute())))
    assert str(load("there.yaml", environ=ENVIRON).store.url) == "sqlite:////var/lib/houdini-relay/relay.db"


def test_the_credential_that_it_speaks_of_is_the_one_of_the_unit() -> None:
    assert run().exit_code == 0
    assert "{credential: houdini-secret} of systemd's LoadCredential=" in Path("config.yaml").read_text()


SIMULATOR = ("ws://127.0.0.1:8788/v2/ws", "http://127.0.0.1:8788/v2")


def test_without_a_configuration_simulate_and_listen_print_its_halves() -> None:
    halves = "\n".join(leading_to(*SIMULATOR)) + "\n".join(sending_to(8789, SECRET))
    written = yaml.safe_load(halves)
    Path("config.yaml").write_text(halves)
    settings = made()
    assert settings.upstream.websocket_url == SIMULATOR[0]
    assert (settings.targets[0].url.reveal(), settings.targets[0].secrets[0].reveal()) == (
        "http://127.0.0.1:8789/",
        SECRET,
    )
    assert written.keys() == {"upstream", "targets"}
    assert "#   houdini-relay listen\n" in halves


def test_after_init_there_is_nothing_to_paste_and_the_next_commands_know_the_secrets() -> None:
    urls = ("shop=http://127.0.0.1:8789/", "ledger=http://localhost:8790/in", "far=https://far.example/")
    run("--simulator", *(one for url in urls for one in ("--target", url)))
    commands = [
        '#   houdini-relay listen --secret "$(cat secrets/shop)"',
        '#   houdini-relay listen --port 8790 --secret "$(cat secrets/ledger)"',
    ]
    said = list(leading_to(*SIMULATOR))
    assert "nothing to paste" in said[0]
    assert said[2:4] == commands
    other = list(leading_to("ws://127.0.0.1:1/v2/ws", "http://127.0.0.1:1/v2"))
    assert "upstream:" in other[1]
    assert commands[0] in other
    for made_up in (None, SECRET):
        said = list(sending_to(8789, made_up))
        assert yaml.safe_load("\n".join(said)) is None, "comments only"
        assert SECRET not in "\n".join(said)
    assert said[1:3] == commands


def test_a_given_secret_is_never_shown_again() -> None:
    assert yaml.safe_load("\n".join(sending_to(8789, None))) is None
