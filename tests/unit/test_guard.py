"""The verdict on addresses, pinned: it may not change with the Python that runs it."""

import ipaddress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.addresses import is_forbidden
from relay.delivery.guard import Rules, refusal, rules_for

OPEN = Rules(loopback=False, allow_networks=())
THIS_MACHINE = Rules(loopback=True, allow_networks=())

CLOSED = {
    "a cloud's metadata service": "169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254"
    " ::ffff:169.254.169.254",
    "a loopback address": "127.0.0.1 127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 ::ffff:7f00:1",
    "an unspecified address": "0.0.0.0 0.1.2.3 ::",
    "a private address": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 fc00::1"
    " fd12:3456::1 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::ffff:10.1.2.3 ::ffff:192.168.0.1",
    "a link-local address": "169.254.0.0 169.254.170.2 169.254.255.255 fe80::1 febf::1 fe80::1%1 fe80::1%eth0",
    "a carrier's shared address": "100.64.0.0 100.127.255.255",
    "the broadcast address": "255.255.255.255",
    "a multicast address": "224.0.0.1 239.255.255.255 ff02::1 ff0e::1 ff02::1%1",
    "a documentation address": "192.0.2.1 198.51.100.7 203.0.113.255 2001:db8::1 3fff::1 3fff:fff::1",
    "a benchmarking address": "198.18.0.0 198.19.255.255 2001:2::1",
    "a reserved address": "192.0.0.0 192.0.0.8 192.0.0.170 240.0.0.1 255.255.255.254 100::1 100:0:0:1::1 4000::1"
    " ::ffff:0:7f00:1 200::1 fbff::1 fe00::1 1000::1",
    "an IPv4-compatible address": "::127.0.0.1 ::10.0.0.1 ::8.8.8.8 ::2",
    "a NAT64 address": "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::808:808 64:ff9b:1::1 64:ff9b:1:ffff::a00:1",
    "a Teredo address": "2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "a 6to4 address": "2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 192.88.99.1",
    "an address set aside for protocols": "2001:10::1 2001:20::1 2001:1ff::1 2001:3::1",
    "a segment routing address": "5f00::1 5f00:ffff::1",
    "a site-local address": "fec0::1 feff::1",
    "an ISATAP address": "2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:7f00:1",
    "an address with a zone": "2606:4700::1%1 2606:4700::1%eth0",
}
REACHABLE = """1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.0.3.1 192.31.196.1
192.52.193.1 192.88.98.255 192.167.255.255 192.169.0.0 192.175.48.1 198.17.255.255 198.20.0.0 203.0.112.255
223.255.255.255 2000::1 2001:200::1 2001:4860:4860::8888 2003::1 2606:4700::1111 2a00:1450::1 2400:cb00::1 3ffe::1
::ffff:8.8.8.8 ::ffff:93.184.216.34"""

PINNED = [(what, text) for what, texts in CLOSED.items() for text in texts.split()]


@pytest.mark.parametrize(("what", "text"), PINNED)
def test_a_closed_address_is_refused_and_called_what_it_is(what, text):
    said = refusal(ip_address(text), OPEN)
    assert said is not None
    assert f"{text.partition('%')[0]}" in said or str(ip_address(text)) in said
    assert f" is {what}" in said
    assert is_forbidden(ip_address(text))  # what the configuration asks


@pytest.mark.parametrize("text", REACHABLE.split())
def test_a_public_address_is_dialled(text):
    assert refusal(ip_address(text), OPEN) is None
    assert not is_forbidden(ip_address(text))


def test_the_sentence_says_which_address_which_rule_and_which_key():
    assert refusal(ip_address("10.0.0.7"), OPEN) == (
        "10.0.0.7 is a private address (10.0.0.0/8); if this receiver is meant, "
        "add its network to this target's allow_networks"
    )
    assert refusal(ip_address("::ffff:169.254.169.254"), OPEN) == (
        "169.254.169.254 (as ::ffff:a9fe:a9fe) is a cloud's metadata service; if this receiver is meant, "
        "add its network to this target's allow_networks"
    )
    assert refusal(ip_address("127.0.0.2"), OPEN) == (
        "127.0.0.2 is a loopback address (127.0.0.0/8); if this machine is meant, "
        "write localhost, 127.0.0.1 or [::1] into the URL"
    )


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.0.0.7", "10.0.0.0/8"),
        ("::ffff:10.0.0.7", "10.0.0.0/8"),
        ("169.254.169.254", "169.254.169.254/32"),
        ("fd00::7", "fd00::/8"),
        ("fe80::1%eth0", "fe80::/10"),
        ("127.0.0.1", "127.0.0.0/8"),
        ("64:ff9b::808:808", "64:ff9b::/96"),
        ("64:ff9b::a00:1", "64:ff9b::/96 10.0.0.0/8"),
    ],
)
def test_allow_networks_opens_what_it_covers(text, networks):
    rules = Rules(loopback=False, allow_networks=tuple(map(ip_network, networks.split())))
    assert refusal(ip_address(text), rules) is None


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("11.0.0.7", "10.0.0.0/16"),
        ("10.1.0.7", "10.0.0.0/16"),
        ("10.0.0.7", "fd00::/8"),
        ("10.0.0.7", "::ffff:10.0.0.0/104"),
        ("::10.0.0.7", "10.0.0.0/8"),
        ("2002:a00:7::1", "10.0.0.0/8"),
        ("64:ff9b::a00:1", "64:ff9b::/96"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::/96 10.0.0.0/8"),
    ],
)
def test_allow_networks_opens_nothing_else(text, networks):
    rules = Rules(loopback=False, allow_networks=tuple(map(ip_network, networks.split())))
    said = refusal(ip_address(text), rules)
    if text == "11.0.0.7":
        assert said is None  # public anyway
    else:
        assert said is not None


@pytest.mark.parametrize("text", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_a_url_that_names_this_machine_reaches_it(text):
    assert refusal(ip_address(text), THIS_MACHINE) is None


@pytest.mark.parametrize("text", ["10.0.0.7", "8.8.8.8", "0.0.0.0", "::", "169.254.169.254", "2606:4700::1", "::2"])
def test_a_url_that_names_this_machine_reaches_nothing_else(text):
    everything = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
    said = refusal(ip_address(text), Rules(loopback=True, allow_networks=everything))
    assert said is not None
    assert "is not this machine" in said


def test_only_hosts_written_as_this_machine_have_its_rules():
    assert rules_for("localhost", ()).loopback
    assert rules_for("127.0.0.1", ()).loopback
    assert rules_for("::1", ()).loopback
    assert not rules_for("localhost.example.com", ()).loopback
    assert not rules_for("::ffff:127.0.0.1", ()).loopback
    assert rules_for("a.example", [ip_network("10.0.0.0/8")]).allow_networks == (ip_network("10.0.0.0/8"),)


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_an_address_and_its_mapped_form_have_one_verdict(number):
    plain = ipaddress.IPv4Address(number)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    assert is_forbidden(plain) == is_forbidden(mapped)


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_outside_global_unicast_nothing_of_ipv6_is_open(number):
    address = ipaddress.IPv6Address(number)
    if number >> 125 != 1 and address.ipv4_mapped is None:
        assert is_forbidden(address)
