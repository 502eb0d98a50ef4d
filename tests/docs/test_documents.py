"""Documents that lag fail."""

import re
import shlex
from pathlib import Path

import click
import pytest

from relay import __version__, cli
from relay.config.event_types import NOTICE_TYPES
from relay.daemon import Exit
from relay.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def exposed_metrics() -> set[str]:
    names = set()
    for family in Metrics("test").registry.collect():
        name = family.name.removeprefix("houdini_relay_")
        names.add(f"{name}_total" if family.type == "counter" else name)
    return names


def test_every_metric_is_documented_and_nothing_else():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == exposed_metrics()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_table_has_a_header(path: Path):
    """A row after an empty line is no row of the table before: it is shown as text."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        first, second, *_ = [*table.splitlines(), ""]
        assert re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", second), f"no header above {first!r}"


def test_every_document_is_reachable_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f"docs/{path.name}" in text, path.name


def test_decisions_are_numbered_without_holes():
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_exit_codes_are_documented():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for code in Exit:
        assert f"| {code.value} |" in text


def commands(group: click.Group, prefix: str = "") -> list[str]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append(prefix + name)
    return found


def test_every_command_is_mentioned_and_every_mentioned_command_exists():
    known = commands(cli.main)
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for name in known:
        assert f"`{name}`" in text or f"houdini-relay {name}" in text, name
    firsts = {name.split()[0] for name in known}
    for mentioned in re.findall(r"`houdini-relay ([a-z]+)", text):
        assert mentioned in firsts, mentioned


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_what_a_newcomer_copies_is_understood(page: str):
    blocks = re.findall(r"```sh\n(.+?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    copied = [line for line in lines if line.startswith("houdini-relay ")]
    assert len(copied) >= 8
    for line in copied:
        _, name, *arguments = shlex.split(line, comments=True)
        if name == "--version":
            continue
        command = cli.main.get_command(click.Context(cli.main), name)
        assert command is not None, line
        command.make_context(name, arguments)  # raises what a user would be told


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_nobody_is_led_into_the_environment_that_make_keeps(path: Path):
    """What is installed there is edited in place; a copy beside it would be what `make test` tests."""
    assert not re.search(r"venv \.venv|\. \.venv", path.read_text(encoding="utf-8"))


def test_the_first_steps_are_taken_in_one_folder_on_both_pages():
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/quickstart.md")]
    into = "python3 -m venv ~/relay/env && . ~/relay/env/bin/activate && pip install .\ncd ~/relay\n"
    assert [page.count(into) for page in pages] == [1, 1]
    assert [page.count("mkdir ~/relay-live && cd ~/relay-live\nhoudini-relay init ") for page in pages] == [1, 1]


def test_notices_are_named_as_the_configuration_knows_them():
    assert all(name.startswith("relay.") for name in NOTICE_TYPES)


def test_the_changelog_has_this_version_under_the_unreleased_one():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert versions[:2] == ["Unreleased", __version__]
