"""Names that mean what the test says, a listener that nobody should reach, and targets to try it with."""

import asyncio
import socket
from ipaddress import ip_address

from relay import __version__
from relay.clock import SystemClock
from relay.config import TargetSettings
from relay.delivery.failures import AttemptFailed
from relay.delivery.signer import new_secret
from relay.delivery.target_client import connect
from relay.model import Delivery, Event, FailureKind, OrderFacts, Origin

SECRET = new_secret(b"k" * 32)
ORDER = '{"houdiniId":"h9","status":4,"outAmount":0.37271038265600004,"memo":"ü☃"}'.encode()


class Names:
    """A look-up whose every name has a list of answers, used one after the other; the last one stays."""

    def __init__(self, **answers):
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked = []

    def add(self, name, *answers):
        self._answers[name] = list(answers)

    async def resolve(self, host, port):
        self.asked.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise AttemptFailed(FailureKind.DNS, "no such name")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return tuple(map(ip_address, answer.split()))

    def close(self):
        pass


class Forbidden:
    """Listens on one port of both loopback addresses and counts who comes."""

    def __init__(self):
        self.accepted = 0

    async def __aenter__(self):
        first = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = first.sockets[0].getsockname()[1]
        self._servers = [first]
        if socket.has_ipv6:
            self._servers.append(await asyncio.start_server(self._accept, "::1", self.port))
        return self

    async def __aexit__(self, *exc_info):
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def _accept(self, reader, writer):
        self.accepted += 1
        writer.transport.abort()


def a_target(url, **settings):
    return TargetSettings.model_validate({"name": "shop", "url": url, "secrets": [SECRET], "timeout": "5s"} | settings)


def a_delivery(attempts_made=0):
    facts = OrderFacts(sequence=1, status=4, previous_status=None, changed=(), origin=Origin.WEBSOCKET)
    event = Event("evt_1", "h9", "order.finished", 1795331090123, ORDER, facts)
    return Delivery(id=1, target="shop", event=event, attempts_made=attempts_made, steps_used=0, created_ms=0)


def a_client(target, names=None, clock=None):
    return connect(target, names or Names(), clock or SystemClock(), __version__, partner_id="p1")


async def attempted(target, names=None):
    """One attempt by a client of its own."""
    client = a_client(target, names)
    try:
        return await client.attempt(a_delivery())
    finally:
        await client.close()
