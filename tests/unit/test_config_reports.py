"""Broken files and the exact report for each, from data/broken_configs/.

There, `=== name` begins a case, `--- report` its report, and `@word` stands for one of SNIPPETS.
"""

from pathlib import Path

import pytest

from relay.config import InvalidConfig, parse

WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URLS = "websocket_url: wss://u.example/ws{0}rest_url: https://u.example{0}partner_id: p{0}secret: CANARY"
SNIPPETS = {
    "@upstream": "upstream: {" + URLS.format(", ") + "}",
    "@credentials": URLS.format("\n  "),
    "@targets": "targets: [{name: shop, url: https://shop.example.com/hook, secrets: [@whsec]}]",
    "@shop2": "name: shop2\n    url: https://shop2.example.com/hook\n    secrets: [@whsec]",
    "@shop": "name: shop\n    url: https://shop.example.com/hook\n    secrets: [@whsec]",
    "@whsec": WHSEC,
    "@NUL": "\0",
}
ENVIRON = {"SET": "value", "EMPTY": "", "LATIN1": "caf\udce9"}


def cases() -> list[tuple[str, str, str]]:
    files = sorted((Path(__file__).parent / "data" / "broken_configs").glob("*.txt"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    found = []
    for case in text.split("=== ")[1:]:
        name, _, rest = case.partition("\n")
        yaml, _, report = rest.partition("--- report\n")
        found.append((name, yaml, report.rstrip("\n")))
    return found


def expanded(yaml: str) -> str:
    for word, meaning in SNIPPETS.items():
        yaml = yaml.replace(word, meaning)
    return yaml


@pytest.mark.parametrize(("yaml", "report"), [pytest.param(yaml, report, id=name) for name, yaml, report in cases()])
def test_report(yaml: str, report: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse(expanded(yaml).encode(), "c.yaml", environ=ENVIRON)
    assert str(caught.value) == report
    assert "\n".join(map(str, caught.value.problems)) == report


def test_there_are_enough_cases_and_none_shows_a_secret() -> None:
    reports = [report for _, _, report in cases()]
    assert len(reports) >= 45
    assert all(reports)
    assert not any("CANARY" in report or any(part in report for part in ("MfKQ9", "6Xb")) for report in reports)
