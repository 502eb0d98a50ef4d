"""config.example.yaml and docs/configuration.md say what the settings say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.config import Settings, load
from relay.config.loader import sections_in
from relay.config.reference import render
from relay.config.section import Section
from relay.config.settings import StoreSettings
from relay.config.store_url import StoreUrl

ROOT = Path(__file__).parents[2]
ENVIRON = {
    "HOUDINI_PARTNER_ID": "partner",
    "HOUDINI_SECRET": "secret",
    "ORDERS_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def sections(section: type[Section] = Settings) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from sections(inner)


def plain(value: object) -> object:
    return str(value) if isinstance(value, (StoreUrl, StoreSettings)) else value


def example() -> str:
    return (ROOT / "config.example.yaml").read_text(encoding="utf-8")


def test_the_example_is_valid_and_names_its_variables() -> None:
    load(ROOT / "config.example.yaml", environ=ENVIRON)
    assert set(re.findall(r"^[^#\n]*\$\{(\w+)\}", example(), re.M)) == set(ENVIRON)
    assert all(name in example().split("\n\n")[0] for name in ENVIRON)


def test_the_example_shows_the_defaults() -> None:
    settings = load(ROOT / "config.example.yaml", environ=ENVIRON)
    for shown in (settings, settings.upstream, settings.targets[0]):
        for key, field in type(shown).model_fields.items():
            if not field.is_required():
                default = field.get_default(call_default_factory=True, validated_data={})
                assert plain(getattr(shown, key)) == plain(default), key


@pytest.mark.parametrize("section", [pytest.param(section, id=section.__name__) for section in sections()])
def test_the_example_has_every_key_and_every_key_is_described(section: type[Section]) -> None:
    for key, field in section.model_fields.items():
        assert re.search(rf"(?<![\w-]){key}:", example()), key
        assert field.description, key


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == render(), (
        "run: python -m relay.config.reference > docs/configuration.md"
    )
