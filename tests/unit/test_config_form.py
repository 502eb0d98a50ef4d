"""Files that attack the reader instead of configuring the relay: refused, quickly."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.config import InvalidConfig, load, parse
from relay.config.addresses import covered, is_forbidden, is_loopback_host
from relay.config.targets import TargetSettings
from relay.config.urls import parse_url

BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def report(raw: bytes) -> str:
    with pytest.raises(InvalidConfig) as caught:
        parse(raw, "c.yaml", environ={})
    return str(caught.value)


def test_the_alias_bomb() -> None:
    lines = report(BOMB.encode())
    assert "c.yaml:1:4: anchors (&) are not supported" in lines
    assert "c.yaml:2:8: aliases (*) are not supported" in lines


def test_a_file_of_10_mib(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(b"upstream: {}\n" * (10 * 1024 * 1024 // 13))
    with pytest.raises(InvalidConfig) as caught:
        load(file, environ={})
    assert str(caught.value) == f"{file}: the file is larger than 256 kB"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path / "none.yaml", environ={})
    advice = "there is no such file; name yours with -c, or make one with `houdini-relay init`"
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: {advice}"
    with pytest.raises(InvalidConfig, match="malformed path"):
        load("a\0b", environ={})


@pytest.mark.parametrize("raw", [b"[" * 20_000, b"{" * 20_000, b"- " * 20_000, b"a: " * 50_000, b"? " * 50_000])
def test_depth(raw: bytes) -> None:
    assert report(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a: b\nc: \xff", "c.yaml:2:4: this is not valid UTF-8; save the file as UTF-8"),
        ("a: é\nb: ".encode() + b"\xc3", "c.yaml:2:4: this is not valid UTF-8; save the file as UTF-8"),
        ("a: b".encode("utf-16"), "c.yaml:1:1: this is not valid UTF-8; save the file as UTF-8"),
    ],
)
def test_bytes_that_are_no_text(raw: bytes, expected: str) -> None:
    assert report(raw) == expected


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    text = (
        "upstream: {websocket_url: wss://u.example/ws, rest_url: https://u.example, partner_id: p, secret: s}\r\n"
        "targets: [{name: a, url: https://a.example, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}]\r\n"
    )
    assert parse(text.encode("utf-8-sig"), "c.yaml", environ={}).targets[0].name == "a"


FORBIDDEN = """127.0.0.1 127.9.9.9 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 192.0.0.8
192.0.2.1 192.88.99.1 198.18.0.1 203.0.113.5 224.0.0.1 240.0.0.1 255.255.255.255 ::1 :: ::127.0.0.1 ::ffff:10.0.0.1
::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2001::1 2001:db8::1 2002:7f00:1:: fc00::1 fd00:ec2::254 fe80::1
fec0::1 ff02::1 5f00::1 100::1"""
PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 172.32.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8"


@pytest.mark.parametrize("text", FORBIDDEN.split())
def test_forbidden_addresses(text: str) -> None:
    assert is_forbidden(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC.split())
def test_public_addresses(text: str) -> None:
    assert not is_forbidden(ip_address(text))


def test_an_allowed_network_covers_the_address_in_every_disguise() -> None:
    networks = TargetSettings.model_validate(
        {
            "name": "a",
            "allow_networks": ["10.0.0.0/8", "fd00::/8"],
            "url": "https://a.example",
            "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        }
    ).allow_networks
    assert covered(ip_address("10.1.2.3"), networks)
    assert covered(ip_address("::ffff:10.1.2.3"), networks)
    assert covered(ip_address("fd00::1"), networks)
    assert not covered(ip_address("11.0.0.1"), networks)


def test_loopback_is_only_what_is_written_as_such() -> None:
    assert all(map(is_loopback_host, ("localhost", "LOCALHOST", "127.0.0.1", "127.255.0.1", "::1")))
    assert not any(map(is_loopback_host, ("::ffff:127.0.0.1", "localhost.example", "127.1", "0.0.0.0", "")))


@pytest.mark.parametrize(
    "text",
    [
        "https://a@b@c/",
        "https://a:b",
        "https://a:0/",
        "https://[::1",
        "https://[::1]x/",
        "https://[v1.a]/",
        "https://-a.example/",
        "https://a..example/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://1.2.3.4.5/",
        "https://a%2eb/",
        "https://a/\\\\b",
        "https://é.example/",
        "https:/a",
        "https:a",
        "//a",
        "https://a/#f",
        "javascript:1",
        "https://:80/",
        "https://a.example./",
        "https://1.2.3.08/",
        "https://[1.2.3.4]/",
    ],
)
def test_urls_that_may_be_read_in_two_ways(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_url(text, ("https", "http"))
    assert text not in str(caught.value)
