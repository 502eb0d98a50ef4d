import base64
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from relay.config import TargetSettings
from relay.config.signing_keys import signing_secret_fault
from relay.delivery.signer import Signer, new_ed25519_pair, new_secret, public_keys

GOLDEN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GOLDEN_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
GOLDEN_TIME = 1614265330
GOLDEN_BODY = b'{"test": 2432232314}'
GOLDEN_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

GOLDEN_ED25519 = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
GOLDEN_PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
GOLDEN_V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

OLD = new_secret(b"o" * 32)
NEW = new_secret(bytes(range(32)))
BODY = '{"type":"order.finished","data":{"houdiniId":"ü☃","n":0.37271038265600004}}'.encode()


def verify(library, secret, header, body=BODY):
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": header(now),
    }
    library.Webhook(secret).verify(body, headers)


LIBRARIES = [pytest.param(standardwebhooks, id="standardwebhooks"), pytest.param(svix, id="svix")]
VERIFICATION_ERRORS = (standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError)


def test_the_published_vector():
    assert Signer([GOLDEN_SECRET]).sign(GOLDEN_ID, GOLDEN_TIME, GOLDEN_BODY) == GOLDEN_SIGNATURE


@pytest.mark.parametrize("secrets", [[GOLDEN_SECRET, GOLDEN_ED25519], [GOLDEN_ED25519, GOLDEN_SECRET]])
def test_the_published_ed25519_vector_behind_the_hmac_one(secrets):
    signed = Signer(secrets).sign(GOLDEN_ID, GOLDEN_TIME, GOLDEN_BODY)
    assert signed == f"{GOLDEN_SIGNATURE} {GOLDEN_V1A}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_verifiers_that_know_v1_only_accept_v1_beside_v1a(library):
    signer = Signer([GOLDEN_ED25519, NEW])
    verify(library, NEW, lambda now: signer.sign("evt_1", now, BODY))


@pytest.mark.parametrize("library", LIBRARIES)
def test_verifiers_refuse_v1a_alone_which_is_why_it_is_never_sent(library):
    signer = Signer([GOLDEN_ED25519, NEW])
    with pytest.raises(VERIFICATION_ERRORS):
        verify(library, NEW, lambda now: signer.sign("evt_1", now, BODY).split(" ")[1])
    with pytest.raises(ValueError, match="at least one whsec_"):
        Signer([GOLDEN_ED25519])


def test_a_new_pair_signs_what_its_public_key_verifies():
    secret, public = new_ed25519_pair(bytes(range(32)))
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    version, signature = Signer([NEW, secret]).sign("evt_1", 7, BODY).split(" ")[1].split(",")
    assert version == "v1a"
    key.verify(base64.b64decode(signature), b"evt_1.7." + BODY)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature), b"evt_1.8." + BODY)
    assert signing_secret_fault(secret) is None


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_pair_is_made_of_32_bytes(size):
    with pytest.raises(ValueError, match="32 bytes"):
        new_ed25519_pair(b"x" * size)


def test_public_keys_of_those_who_have_any():
    def a_target(name, *secrets):
        return TargetSettings.model_validate({"name": name, "url": "https://a.example.com/", "secrets": list(secrets)})

    other, other_public = new_ed25519_pair(b"o" * 32)
    targets = [a_target("a", NEW, GOLDEN_ED25519, other), a_target("b", NEW)]
    assert public_keys(targets) == {"a": [GOLDEN_PUBLIC, other_public]}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("known", [OLD, NEW])
def test_a_receiver_that_knows_either_secret_accepts_during_rotation(library, known):
    signer = Signer([NEW, OLD])
    verify(library, known, lambda now: signer.sign("evt_1", now, BODY))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_receiver_that_knows_neither_refuses(library):
    signer = Signer([OLD])
    with pytest.raises(VERIFICATION_ERRORS):
        verify(library, NEW, lambda now: signer.sign("evt_1", now, BODY))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_changed_body_is_refused(library):
    signer = Signer([OLD])
    with pytest.raises(VERIFICATION_ERRORS):
        verify(library, OLD, lambda now: signer.sign("evt_1", now, BODY), BODY.replace(b"4}}", b"5}}"))


def test_the_current_secret_signs_first_and_each_signs_once():
    both = Signer([NEW, OLD]).sign("evt_1", 1, BODY).split(" ")
    assert both == [Signer([NEW]).sign("evt_1", 1, BODY), Signer([OLD]).sign("evt_1", 1, BODY)]


def test_signing_twice_gives_the_same_because_keys_keep_no_state():
    signer = Signer([NEW])
    first = signer.sign("evt_1", 1, BODY)
    signer.sign("evt_2", 2, b"other")
    assert signer.sign("evt_1", 1, BODY) == first


@pytest.mark.parametrize(
    ("webhook_id", "timestamp_s", "body"), [("evt_2", 1, BODY), ("evt_1", 2, BODY), ("evt_1", 1, b"")]
)
def test_id_time_and_body_are_all_signed(webhook_id, timestamp_s, body):
    signer = Signer([NEW])
    assert signer.sign(webhook_id, timestamp_s, body) != signer.sign("evt_1", 1, BODY)


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_c2hvcnQ=",
        "whsec_" + "A" * 200,
        "whsec_not base64 at all, sorry!!",
        "whsec_" + "é" * 32,
        "whsec_" + "A" * 33,
        NEW.rstrip("="),
        "whsec_" + "A" * 32 + "!",
        "plain-password-of-decent-length",
        "whsk_" + "A" * 88,
        "whsk_" + "A" * 86 + "==",
        GOLDEN_ED25519[:48] + "=",
        GOLDEN_ED25519.replace("6Xb", "7Xb"),
    ],
)
def test_an_unusable_secret_is_refused_without_being_shown(secret):
    with pytest.raises(ValueError, match=r"secret|key|halves|64 bytes|seed") as refusal:
        Signer([NEW, secret])
    value = secret.partition("_")[2] or secret
    assert value not in f"{refusal.value!r} {refusal.value.__cause__!r}"


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_an_empty_secret_is_refused(secret):
    with pytest.raises(ValueError, match=r"begins with|24 to 64"):
        Signer([secret])


def test_no_secrets_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Signer([])


def test_a_signer_does_not_show_its_secrets():
    assert NEW.removeprefix("whsec_") not in repr(Signer([NEW])) + repr(vars(Signer([NEW])))


@given(st.binary(min_size=24, max_size=64))
def test_a_new_secret_signs_and_holds_exactly_the_given_bytes(random_bytes):
    secret = new_secret(random_bytes)
    assert base64.b64decode(secret.removeprefix("whsec_")) == random_bytes
    assert Signer([secret]).sign("evt_1", 1, b"").startswith("v1,")


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_new_secret_of_the_wrong_size_is_refused(size):
    with pytest.raises(ValueError, match="24 to 64"):
        new_secret(b"x" * size)
