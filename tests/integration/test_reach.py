"""The digest of how a target is reached: different when anything of it is, silent about what it is."""

import pytest

from relay.config import TargetSettings
from relay.delivery.reach import reach_digest
from relay.delivery.signer import new_secret
from relay.errors import SecretUnreadable
from relay.secret import Secret

SECRET, OTHER = new_secret(b"k" * 32), new_secret(b"o" * 32)
BASE = {
    "name": "shop",
    "url": "https://shop.example.com/hooks",
    "secrets": [SECRET],
    "headers": {"X-Key": "one"},
    "auth": {"basic": {"username": "me", "password": "one"}},
    "proxy": "http://proxy.example.com:3128",
}
OAUTH = {"token_url": "https://id.example.com/t", "client_id": "a", "client_secret": "b", "scope": None}


def digest(**changed):
    return reach_digest(TargetSettings.model_validate(BASE | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "https://shop.example.com/hooks2"},
        {"url": "https://shop.example.com/hooks?k=1"},
        {"headers": {"X-Key": "two"}},
        {"headers": {}},
        {"auth": {"basic": {"username": "me", "password": "two"}}},
        {"auth": {"basic": {"username": "you", "password": "one"}}},
        {"auth": {"bearer": "one"}},
        {"auth": {"oauth2": OAUTH}},
        {"auth": {"oauth2": OAUTH | {"client_secret": "c"}}},
        {"auth": {"oauth2": OAUTH | {"scope": "s"}}},
        {"auth": {"oauth2": OAUTH | {"token_url": "https://id.example.com/u"}}},
        {"auth": None},
        {"proxy": None},
        {"proxy": "http://me:pw@proxy.example.com:3128"},
        {"allow_http": True},
        {"allow_networks": ["10.0.0.0/8"]},
        {"tls": {"ca_file": "/nowhere/ca.pem"}},
        {"tls": {"cert_file": "/nowhere/cert.pem"}},
        {"secrets": [OTHER]},
    ],
)
def test_whatever_decides_how_it_is_reached_changes_the_digest(changed):
    assert digest(**changed) != digest()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"secrets": [SECRET, OTHER]},
        {"timeout": "3s"},
        {"events": ["*"]},
        {"format": "slack"},
        {"paused": True},
        {"headers": {"x-key": "one"}},
    ],
)
def test_nothing_else_does(changed):
    assert digest(**changed) == digest()


def test_it_is_the_same_every_time():
    assert len(digest()) == 64
    assert digest() == digest()


def test_a_certificate_that_is_renewed_in_place_counts(tmp_path):
    file = tmp_path / "cert.pem"
    tls = {"tls": {"cert_file": str(file)}}
    missing = digest(**tls)
    file.write_text("one")
    first = digest(**tls)
    file.write_text("two")
    assert len({missing, first, digest(**tls)}) == 3


def test_a_secret_in_a_file_counts_by_its_value(tmp_path):
    file = tmp_path / "password"
    file.write_text("one")
    target = TargetSettings.model_validate(BASE | {"auth": {"bearer": {"file": str(file)}}})
    first = reach_digest(target)
    file.write_text("two")
    assert reach_digest(target) != first
    file.unlink()
    with pytest.raises(SecretUnreadable):
        reach_digest(target)


def test_it_is_keyed_so_that_nobody_can_guess_a_password_from_it():
    plain = TargetSettings.model_validate(BASE)
    rekeyed = plain.model_copy(update={"secrets": (Secret.of(OTHER),)})
    assert reach_digest(plain) != reach_digest(rekeyed)
