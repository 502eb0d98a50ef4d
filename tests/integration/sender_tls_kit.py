"""Certificates made on the spot, and servers that use them."""

import atexit
import contextlib
import functools
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading

from sender_kit import OK

LOOPBACK = ["127.0.0.0/8"]
_folder = tempfile.TemporaryDirectory(prefix="sender-tls-")
atexit.register(_folder.cleanup)


def openssl_run(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def certificate_for(host, *, days=2, passphrase=None):
    """A certificate that is its own authority: (file with certificate, file with key)."""
    return _made(host, days, passphrase)


@functools.cache
def _made(host, days, passphrase):
    name = f"{host}{days}{passphrase}"
    cert, key, request = (str(pathlib.Path(_folder.name) / f"{name}.{kind}") for kind in ("pem", "key", "csr"))
    locked = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
    openssl_run(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *locked),
        *("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign", "-addext", "basicConstraints=critical,CA:TRUE"),
        *("-keyout", key, "-out", request),
    )
    given = ("-passin", f"pass:{passphrase}") if passphrase else ()
    openssl_run(
        *("x509", "-req", "-in", request, "-key", key, *given, "-copy_extensions", "copy"),
        *("-days", days, "-out", cert),
    )
    return cert, key


def serving(host, *, days=2, **settings):
    """A server's side of TLS under this name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate_for(host, days=days))
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def trusting(host, **files):
    """The settings of a target that trusts the certificate of this name."""
    return {"allow_networks": LOOPBACK, "tls": {"ca_file": certificate_for(host)[0]} | files}


@contextlib.contextmanager
def blocking_server(context):
    """A TLS server in a thread: unlike asyncio's it sends its alerts. Yields its port and the requests it got."""
    requests = []

    def serve_one(connection):
        connection.settimeout(5)
        tls = None
        try:
            tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            tls.do_handshake()
            requests.append(tls.recv(65536))
            tls.sendall(OK)
        except OSError:
            # So that the alert is not overtaken by a reset.
            with contextlib.suppress(OSError):
                (tls or connection).shutdown(socket.SHUT_WR)
                while (tls or connection).recv(65536):
                    pass
        finally:
            (tls or connection).close()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                serve_one(listening.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], requests
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)
