"""Certificates: trusted, self-signed, for another name."""

import ssl
import subprocess

import pytest
from sender_kit import OK, Names, Peer, a_request, a_sender, answering

from relay.model import Outcome


@pytest.fixture
async def sender():
    async with a_sender() as opened:
        yield opened


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for shop.test that is its own authority: (file with certificate, file with key)."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop.test "
        "-addext subjectAltName=DNS:shop.test -addext keyUsage=critical,digitalSignature,keyCertSign"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=30)
    return cert, key


@pytest.fixture
def server_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_a_trusted_certificate_is_accepted(certificate, server_tls, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with Peer(answering(OK), server_tls) as peer, a_sender(Names()) as sender:
        attempt = await sender.post(a_request(f"https://shop.test:{peer.port}/"))
    assert (attempt.outcome, attempt.error) == (Outcome.OK, None)


async def test_a_self_signed_certificate_is_a_tls_error(server_tls):
    async with Peer(answering(OK), server_tls) as peer, a_sender(Names()) as sender:
        attempt = await sender.post(a_request(f"https://shop.test:{peer.port}/"))
    assert attempt.outcome is Outcome.RETRY
    assert attempt.error == "tls: certificate refused, self-signed certificate"
    assert peer.requests == []


async def test_a_certificate_for_another_name_is_a_tls_error(certificate, server_tls, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with Peer(answering(OK), server_tls) as peer, a_sender(Names()) as sender:
        attempt = await sender.post(a_request(f"https://other.test:{peer.port}/"))
    assert attempt.error.startswith("tls: certificate refused, Hostname mismatch")
    assert peer.requests == []


async def test_tls_towards_a_plain_port_is_a_tls_error():
    async def plain(peer, reader, writer):
        writer.write(b"HTTP/1.1 400 No\r\n\r\n")
        await reader.read()

    async with Peer(plain) as peer, a_sender(Names()) as sender:
        attempt = await sender.post(a_request(f"https://shop.test:{peer.port}/"))
    assert attempt.error.startswith("tls: ")
