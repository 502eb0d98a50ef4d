"""What lists may be asked, and cursors that nobody can make up."""

import base64

import pytest

from relay.admin.answers import ApiError
from relay.admin.paging import MOST, USUAL, cursor_text, read_cursor, read_list
from relay.admin.questions import path_id
from relay.model import DeliveryStatus
from relay.store.reads import Filter

NOW = 1_795_330_000_000


def test_nothing_asked_is_everything():
    asked = read_list({}, "d", NOW)
    assert (asked.only, asked.cursor, asked.limit) == (Filter(), None, USUAL)


def test_everything_asked():
    asked = read_list(
        {
            "limit": "500",
            "cursor": cursor_text(77, "d") or "",
            "target": "shop-1",
            "status": "in_flight",
            "type": "relay.upstream.gap_exceeds_window",
            "order": "relay:upstream",
            "since": "24h",
            "until": "1h",
        },
        "d",
        NOW,
    )
    assert asked.only == Filter(
        target="shop-1",
        status=DeliveryStatus.IN_FLIGHT,
        type="relay.upstream.gap_exceeds_window",
        order="relay:upstream",
        since_ms=NOW - 86_400_000,
        until_ms=NOW - 3_600_000,
    )
    assert (asked.cursor, asked.limit) == (77, MOST)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("limit", "0", "bad_limit"),
        ("limit", "501", "bad_limit"),
        ("limit", "-1", "bad_limit"),
        ("limit", "1e2", "bad_limit"),
        ("limit", "\u0665", "bad_limit"),
        ("limit", "", "bad_limit"),
        ("cursor", "", "bad_cursor"),
        ("cursor", "12", "bad_cursor"),
        ("target", "Shop", "bad_target"),
        ("target", "", "bad_target"),
        ("target", "shop\n", "bad_target"),
        ("status", "ready", "bad_status"),
        ("type", "order.*", "bad_type"),
        ("order", "a b", "bad_order"),
        ("order", "x" * 201, "bad_order"),
        ("since", "yesterday", "bad_since"),
        ("until", "2099-01-01", "bad_until"),
        ("nonsense", "1", "bad_query"),
    ],
)
def test_what_cannot_be_used_is_refused_without_repeating_it(name: str, value: str, code: str):
    with pytest.raises(ApiError) as caught:
        read_list({name: value}, "d", NOW)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert "nonsense" not in caught.value.message


def test_a_period_must_have_a_length():
    with pytest.raises(ApiError, match="`since` must lie before"):
        read_list({"since": "1h", "until": "1h"}, "d", NOW)


@pytest.mark.parametrize("number", [1, 9, 10, 2**31, 999_999_999_999_999_999])
def test_cursors_come_back(number: int):
    text = cursor_text(number, "e")
    assert text is not None
    assert text.replace("-", "").replace("_", "").isalnum()
    assert read_cursor(text, "e") == number
    assert cursor_text(None, "e") is None


def made(content: bytes, *, padded: bool = False) -> str:
    text = base64.urlsafe_b64encode(content).decode()
    return text if padded else text.rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        made(b"d12"),
        made(b"e0"),
        made(b"e-1"),
        made(b"e012"),
        made(b"e"),
        made(b"e1 "),
        made(b"e" + b"9" * 19),
        made("e\u0661".encode()),
        made(b"\xff\xfe"),
        made(b"e1234", padded=True),
        "ZTF",
        "!!!!",
        "\u00e9",
        "A" * 5000,
        "",
    ],
)
def test_other_cursors_are_refused(text: str):
    with pytest.raises(ApiError, match="`next` of a page"):
        read_cursor(text, "e")


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("42", 42), ("0", None), ("-1", None), ("1" * 19, None)])
def test_ids_in_paths(text: str, expected: int | None):
    assert path_id(text) == expected


@pytest.mark.parametrize("text", ["", "x", "01", " 1", "1\n", "\u0661", "1.0"])
def test_no_ids_in_paths(text: str):
    assert path_id(text) is None
