"""The JSON Schema accepts what the settings accept, and points editors at what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from relay.config.schema import configuration_schema

ROOT = Path(__file__).parents[2]
SCHEMA = configuration_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def document(**changes: Any) -> dict[str, Any]:
    upstream = {"websocket_url": "wss://a.example", "rest_url": "https://a.example", "partner_id": "p", "secret": "s"}
    target = {"name": "shop", "url": "https://shop.example", "secrets": ["whsec_x"], **changes.pop("target", {})}
    return {"upstream": {**upstream, **changes.pop("upstream", {})}, "targets": [target], **changes}


def faults(given: Any) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(given)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_example_and_the_files_of_the_deployments_fit() -> None:
    files = [ROOT / "config.example.yaml", *(ROOT / "examples").rglob("config*.yaml")]
    for file in files:
        assert faults(yaml.safe_load(file.read_text(encoding="utf-8"))) == [], file


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"store": None, "defaults": None, "log": {"level": "debug"}},
        {"defaults": {"timeout": "5s", "breaker": {"failures": "${FAILURES:-10}"}}},
        {"upstream": {"orders": ["a", "b"], "secret": {"file": "/run/secrets/x"}, "heartbeat": None}},
        {"upstream": {"orders": "all", "auth_retry": "${RETRY}", "rest_headers": {"x-a": {"credential": "a"}}}},
        {"target": {"rate_limit": None, "concurrency": "${SLOTS}", "paused": "${PAUSED:-false}", "auth": None}},
        {"target": {"rate_limit": "50/s", "retry": {"schedule": ["5s", "1h"], "jitter": 0.5}}},
        {"target": {"auth": {"bearer": {"file": "/x"}}, "headers": {"x-a": "b"}, "allow_networks": ["10.0.0.0/8"]}},
        {"admin": {"listen": None, "token": "${TOKEN}", "allowed_hosts": ["a.example"]}},
    ],
)
def test_what_may_be_written_fits(changes: dict[str, Any]) -> None:
    assert faults(document(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"tragets": []}, "$"),
        ({"target": {"tiemout": "5s"}}, "$.targets[0]"),
        ({"target": {"timeout": 5}}, "$.targets[0].timeout"),
        ({"target": {"timeout": "5 s"}}, "$.targets[0].timeout"),
        ({"target": {"format": "xml"}}, "$.targets[0].format"),
        ({"target": {"concurrency": 0}}, "$.targets[0].concurrency"),
        ({"target": {"paused": "yes"}}, "$.targets[0].paused"),
        ({"target": {"rate_limit": "50"}}, "$.targets[0].rate_limit"),
        ({"target": {"retry": {"jitter": 2}}}, "$.targets[0].retry.jitter"),
        ({"target": {"secrets": "whsec_x"}}, "$.targets[0].secrets"),
        ({"upstream": {"secret": {"path": "/x"}}}, "$.upstream.secret"),
        ({"upstream": {"orders": []}}, "$.upstream.orders"),
        ({"defaults": {"name": "shop"}}, "$.defaults"),
        ({"targets": []}, "$.targets"),
    ],
)
def test_what_may_not_is_pointed_at(changes: dict[str, Any], where: str) -> None:
    assert where in faults(document(**changes))


def test_what_is_required_is_missed() -> None:
    assert faults({}) == ["$", "$"]
    assert "required" not in SCHEMA["properties"]["defaults"]


def test_every_key_says_what_it_is_for_and_shows_its_default() -> None:
    def properties(of: dict[str, Any]) -> Any:
        for name, one in of.get("properties", {}).items():
            yield name, one
            yield from properties(one.get("items", one))

    for name, one in properties(SCHEMA):
        assert one["description"], name
    target = SCHEMA["properties"]["targets"]["items"]["properties"]
    assert target["timeout"]["default"] == "15s"
    assert target["concurrency"]["default"] == 16
    assert target["paused"]["default"] is False
    assert target["retry"]["properties"]["jitter"]["default"] == 0.2
    assert target["retry"]["properties"]["schedule"]["default"][:2] == ["5s", "5m"]
    assert target["events"]["default"] == ["order.*"]
