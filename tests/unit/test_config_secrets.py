"""Secrets: where they come from, that they are read anew, and that nothing ever shows one."""

import json
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from relay.config import InvalidConfig, Settings, TargetSettings, load
from relay.errors import SecretUnreadable
from relay.secret import Secret

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="

Load = Callable[..., Settings]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(yaml: str, *, require_secrets: bool = True, **environ: str) -> Settings:
        file = tmp_path / "config.yaml"
        file.write_text(yaml, encoding="utf-8")
        return load(file, environ=environ, require_secrets=require_secrets)

    return run


def config(secret: str = "s", signing: str = WHSEC, url: str = "https://shop.example.com/", more: str = "") -> str:
    return (
        "upstream:\n  websocket_url: wss://u.example/ws\n  rest_url: https://u.example\n"
        f"  partner_id: ${{PARTNER:-p}}\n  secret: {secret}\n"
        f"targets:\n  - name: shop\n    url: {url}\n    secrets: [{signing}]\n{more}"
    )


def test_a_file_is_read_anew_and_judged_anew(load_text: Load, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(WHSEC + "\n")
    secret = load_text(config(signing=f"{{file: {file}}}")).targets[0].secrets[0]
    assert secret.reveal() == WHSEC
    file.write_text(OTHER + "\r\n")
    assert secret.reveal() == OTHER
    file.write_text("CANARY")
    with pytest.raises(SecretUnreadable) as caught:
        secret.reveal()
    wanted = f"file {file} cannot be used: a signing secret begins with whsec_; houdini-relay secret new makes one"
    assert str(caught.value) == wanted
    file.unlink()
    with pytest.raises(SecretUnreadable, match="cannot be read: No such file"):
        secret.reveal()


def test_only_one_line_end_is_stripped(load_text: Load, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("secret\n\n")
    with pytest.raises(InvalidConfig, match="no spaces and no line ends"):
        load_text(config(secret=f"{{file: {file}}}"))


def test_a_credential(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "houdini-secret").write_text("from systemd".replace(" ", "-") + "\n")
    settings = load_text(config(secret="{credential: houdini-secret}"), CREDENTIALS_DIRECTORY=str(tmp_path))
    assert settings.upstream.secret.reveal() == "from-systemd"
    assert settings.upstream.secret.where == "credential houdini-secret"


def test_a_path_may_hold_a_variable(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret")
    settings = load_text(config(secret='{file: "${DIR}/key"}'), DIR=str(tmp_path))
    assert settings.upstream.secret.reveal() == "s3cret"


def test_a_relative_path_is_said_in_whole(load_text: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig) as caught:
        load_text(config(secret="{file: shop.secret}"))
    assert f"file {tmp_path}/shop.secret cannot be read: No such file" in str(caught.value)


@pytest.mark.parametrize("written", ["${SECRET}", '"${SECRET}"', "${SECRET}${SECRET}"])
def test_a_variable_that_is_empty_is_named(load_text: Load, written: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_text(config(secret=written), SECRET="")
    sentence = "upstream.secret: the environment variable SECRET is set, but empty; give it a value"
    assert sentence in str(caught.value)
    with pytest.raises(InvalidConfig, match="variables SECRET, OTHER are set, but empty"):
        load_text(config(secret="${SECRET}${OTHER}"), SECRET="", OTHER="")
    assert load_text(config(secret="${SECRET}x"), SECRET="").upstream.secret.reveal() == "x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"x" * 65_537, "larger than 64 kB"), (b"caf\xe9", "not UTF-8"), (b"", "it is empty"), (b"a\0b", "visible ASCII")],
)
def test_files_that_are_no_secrets(load_text: Load, tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=reason):
        load_text(config(secret=f"{{file: {file}}}"))


def test_a_pipe_without_writer_does_not_hang(load_text: Load, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="not a regular file"):
        load_text(config(secret=f"{{file: {tmp_path}/pipe}}"))
    with pytest.raises(InvalidConfig, match="pipe: cannot be read: not a regular file"):
        load(tmp_path / "pipe", environ={})


def test_commands_that_need_no_secrets_do_without_them(load_text: Load) -> None:
    yaml = config(
        secret="${UNSET}",
        signing='"${UNSET}", {file: /nonexistent/key}, {credential: key}, {file: "${UNSET}/x"}',
        url="https://hooks.example.com/${UNSET}",
        more='admin: {listen: "0.0.0.0:1", token: "${UNSET}"}\n',
    ).replace("${PARTNER:-p}", "${UNSET}")
    settings = load_text(yaml, require_secrets=False)
    target = settings.targets[0]
    assert settings.upstream.partner_id == ""
    assert target.url_redacted == "[unreadable]"
    secrets = [settings.upstream.secret, settings.admin.token, target.url, *target.secrets]
    for secret in secrets:
        assert secret is not None
        with pytest.raises(SecretUnreadable):
            secret.reveal()
    with pytest.raises(InvalidConfig) as caught:
        load_text(yaml)
    assert len(caught.value.problems) == 8


def test_a_bad_value_is_bad_for_every_command(load_text: Load) -> None:
    with pytest.raises(InvalidConfig, match="begins with whsec_"):
        load_text(config(signing="CANARY"), require_secrets=False)
    with pytest.raises(InvalidConfig, match="HOST is not set"):
        load_text(config().replace("u.example/ws", "${HOST}/ws"), require_secrets=False)


def test_defaults_and_a_target_may_take_a_secret_from_different_places(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("v")
    yaml = config(
        more=f"    headers: {{X-Key: {{file: {tmp_path}/key}}}}\ndefaults: {{headers: {{X-Key: {{credential: k}}}}}}\n"
    )
    assert load_text(yaml).targets[0].headers["X-Key"].reveal() == "v"


def test_nothing_shows_a_secret(load_text: Load) -> None:
    canary = "CANARY" + "A" * 34
    yaml = config(
        secret=canary,
        signing=f"whsec_{canary}",
        url=f"https://{canary}:{canary}@shop.example.com/hook/{canary}?k={canary}",
        more=f"    headers: {{X-Key: {canary}}}\nadmin: {{token: {canary}}}\n",
    ).replace("  secret:", f"  rest_headers: {{X-Key: {canary}}}\n  secret:", 1)
    settings = load_text(yaml)
    target = settings.targets[0]
    assert target.url.reveal().count(canary) == 4
    for shown in (
        str(settings),
        repr(settings),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(), default=str),
        repr(settings.model_dump()),
        f"{target.url} {target.url!r} {target.url_redacted}",
    ):
        assert "CANARY" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(settings)


def test_a_refusal_shows_no_secret_even_with_locals(load_text: Load) -> None:
    yaml = config(secret="'CANARY CANARY'", signing="CANARY", url="https://CANARY/ CANARY", more="admin: {token: ''}\n")
    with pytest.raises(InvalidConfig) as caught:
        load_text(yaml)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.problems)
    assert "CANARY" not in told
    inner = [
        frame for frame in traceback.walk_tb(error.__traceback__) if "config/loader" in frame[0].f_code.co_filename
    ]
    held = {
        name: value for frame, _ in inner for name, value in frame.f_locals.items() if name not in ("raw", "environ")
    }
    assert "CANARY" not in repr(held)


def test_settings_made_in_code_do_not_show_theirs_either() -> None:
    with pytest.raises(ValidationError) as caught:
        TargetSettings(name="CANARY", url=Secret.of("http://CANARY.example/"), secrets=(Secret.of("CANARY"),))
    assert "CANARY" not in str(caught.value)
