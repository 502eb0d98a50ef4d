"""TLS to a real server, passwords from wherever they may lie, and what a refusal says."""

import asyncio
import datetime
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.postgres import FAST, Server, new_server

from relay.config.store_url import StoreUrl
from relay.errors import StoreUnavailable
from relay.store.opening import migrate_store
from relay.store.postgres_link import Link

PASSWORD = "hunter2 @/?#%"
QUOTED = "hunter2%20%40%2F%3F%23%25"


class Authority:
    """A certificate authority for one test."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), authority=True, names=[])

    def issue(self, *names: x509.GeneralName) -> tuple[bytes, bytes]:
        """A server's certificate and key (PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a database")])
        made = self._sign(subject, key.public_key(), authority=False, names=list(names))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        return pem(made), key.private_bytes(serialization.Encoding.PEM, form, plain)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool, names: list[x509.GeneralName]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("the right one")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Server]:
    """It talks TLS and asks for passwords on 127.0.0.1; tests look after it through its socket."""
    scram = (*FAST, "-c", "password_encryption=scram-sha-256")  # what 14 and newer do by themselves
    made = new_server(scram)
    data = made.folder / "data"
    certificate, key = authority.issue(x509.DNSName("localhost"))
    for name, content in (("server.crt", certificate), ("server.key", key)):
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(data / name, user.pw_uid, user.pw_gid)
    asyncio.run(made.ask(f"CREATE ROLE relay LOGIN PASSWORD '{PASSWORD}'"))
    asyncio.run(made.ask("CREATE DATABASE relay OWNER relay"))
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    made.stop("fast")
    made.options = (*scram, "-c", "ssl=on")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def root(tmp_path: Path, authority: Authority) -> Path:
    (tmp_path / "ca.pem").write_bytes(pem(authority.certificate))
    return tmp_path / "ca.pem"


def at(server: Server, query: str, *, host: str = "localhost", password: str = QUOTED) -> StoreUrl:
    return StoreUrl.of(f"postgresql://relay:{password}@{host}:{server.port}/relay?{query}")


async def cipher(url: StoreUrl) -> str:
    """The protocol that the server says the connection speaks."""
    link = Link(url)
    try:
        return str(
            await link.run(
                lambda session: session.connection.fetchval(
                    "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
            )
        )
    finally:
        await link.close()


async def test_a_server_that_its_authority_vouches_for(server: Server, root: Path):
    assert await cipher(at(server, f"sslmode=verify-full&sslrootcert={root}")) == "TLSv1.3"


async def test_migrating_over_tls(server: Server, root: Path):
    url = at(server, f"sslmode=verify-full&sslrootcert={root}")
    assert await migrate_store(url) in (["0001_initial.sql"], [])


async def test_another_authority_is_refused_with_a_sentence(server: Server, tmp_path: Path):
    (tmp_path / "other.pem").write_bytes(pem(Authority("the wrong one").certificate))
    with pytest.raises(StoreUnavailable, match=r"its certificate is not accepted: .*certificate") as caught:
        await cipher(at(server, f"sslmode=verify-full&sslrootcert={tmp_path}/other.pem"))
    assert "hunter2" not in str(caught.value)


async def test_a_name_that_is_not_the_servers_is_refused(server: Server, root: Path):
    with pytest.raises(StoreUnavailable, match=r"its certificate is not accepted: .*127.0.0.1"):
        await cipher(at(server, f"sslmode=verify-full&sslrootcert={root}", host="127.0.0.1"))


async def test_verify_ca_asks_for_the_authority_alone(server: Server, root: Path):
    assert await cipher(at(server, f"sslmode=verify-ca&sslrootcert={root}", host="127.0.0.1")) == "TLSv1.3"


async def test_a_root_certificate_that_is_not_there(server: Server, tmp_path: Path):
    with pytest.raises(StoreUnavailable, match=r"no such file: .*sslrootcert"):
        await cipher(at(server, f"sslmode=verify-full&sslrootcert={tmp_path}/nowhere.pem"))


async def test_a_wrong_password_is_a_sentence_that_shows_neither(server: Server, root: Path):
    with pytest.raises(StoreUnavailable, match=r"refuses this user or password \(InvalidPasswordError\)") as caught:
        await cipher(at(server, f"sslmode=verify-full&sslrootcert={root}", password="wrong-one"))
    assert "wrong-one" not in str(caught.value)


async def test_without_tls_the_server_says_no(server: Server):
    with pytest.raises(StoreUnavailable, match="refuses this user or password"):
        await cipher(at(server, "sslmode=disable"))


async def test_everything_from_the_environment(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch):
    values = {"PGHOST": "localhost", "PGPORT": str(server.port), "PGUSER": "relay", "PGDATABASE": "relay"}
    values |= {"PGPASSWORD": PASSWORD, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(root)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert await cipher(StoreUrl.of("postgresql://")) == "TLSv1.3"
    monkeypatch.setenv("PGPASSWORD", "wrong-one")
    with pytest.raises(StoreUnavailable, match="refuses this user or password"):
        await cipher(StoreUrl.of("postgresql://"))


async def test_a_password_file(server: Server, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "pgpass"
    file.write_text(f"localhost:{server.port}:relay:relay:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    url = f"postgresql://relay@localhost:{server.port}/relay?sslmode=verify-full&sslrootcert={root}"
    assert await cipher(StoreUrl.of(url)) == "TLSv1.3"


async def test_another_password_in_the_file_is_taken_with_the_next_connection(
    server: Server, root: Path, tmp_path: Path
):
    file = tmp_path / "url"
    right = at(server, f"sslmode=verify-full&sslrootcert={root}").reveal()
    file.write_text(right.replace(QUOTED, "old-one"))
    link = Link(await asyncio.to_thread(StoreUrl, file.read_text, f"file {file}"))
    try:
        with pytest.raises(StoreUnavailable, match="refuses this user or password"):
            await link.run(lambda session: session.value("clock"))
        file.write_text(right)
        assert await link.run(lambda session: session.value("clock"))
    finally:
        await link.close()


async def test_a_file_that_names_another_database_is_not_followed(server: Server, root: Path, tmp_path: Path):
    file = tmp_path / "url"
    file.write_text(at(server, f"sslmode=verify-full&sslrootcert={root}").reveal())
    link = Link(await asyncio.to_thread(StoreUrl, file.read_text, f"file {file}"))
    try:
        file.write_text(file.read_text().replace("/relay?", "/postgres?"))
        with pytest.raises(StoreUnavailable, match="names another one now; a restart takes that"):
            await link.run(lambda session: session.value("clock"))
    finally:
        await link.close()
