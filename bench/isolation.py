"""One healthy target among 49 in every kind of trouble, with a backlog: how much slower does it get?

Alone and among the others by turns, in one run; the figure is the ratio of the healthy target's p99.
"""

import socket
from contextlib import closing
from typing import Any

from bench.apparatus import PeerProcess, Played, peer, relay, spread, target
from relay.simulator.child import free_port

TROUBLED = 49
BACKLOG = 100_000
RATE, UPDATES, ROUNDS = 100.0, 1500, 3


async def run() -> str:
    alone: list[Played] = []
    among: list[Played] = []
    waiting = 0
    async with peer() as other:
        with closing(_deaf_listener()) as deaf:
            troubled = _troubled(other, deaf.getsockname()[1])
            for number in range(ROUNDS):
                async with relay(other, [target("healthy", other.sinks["ok"])]):
                    alone.append(await other.play(f"alone{number}", UPDATES, rate=RATE))
                async with relay(other, [target("healthy", other.sinks["ok"]), *troubled]) as one:
                    # Everything fed reaches all targets, so the troubled ones' backlog grows by feeding.
                    await other.play(f"fill{number}", BACKLOG // TROUBLED)
                    among.append(await other.play(f"among{number}", UPDATES, rate=RATE))
                    waiting = sum(entry["pending"] for entry in (await one.status())["targets"])
    p99 = [two.percentile(0.99) / one.percentile(0.99) for one, two in zip(alone, among, strict=True)]
    p50 = [two.percentile(0.5) / one.percentile(0.5) for one, two in zip(alone, among, strict=True)]
    lost = sum(one.sent - one.arrived for one in (*alone, *among))
    return "\n".join(
        [
            f"isolation: 1 healthy target, {TROUBLED} in trouble, {waiting} deliveries waiting, {RATE:.0f} updates/s",
            f"  p99 alone {spread([one.percentile(0.99) for one in alone], '{:.1f} ms'.format)}",
            f"  p99 among {spread([one.percentile(0.99) for one in among], '{:.1f} ms'.format)}",
            f"  ratio p99 {spread(p99, '{:.2f}'.format)}, p50 {spread(p50, '{:.2f}'.format)}, not arrived {lost}",
        ]
    )


def _troubled(other: PeerProcess, deaf: int) -> list[dict[str, Any]]:
    """Every kind of trouble by turns, until there are enough."""
    kinds = [
        *((name, {"url": f"http://127.0.0.1:{port}/{name}"}) for name, port in other.sinks.items() if name != "ok"),
        ("closed", {"url": f"http://127.0.0.1:{free_port()}/closed"}),
        ("deaf", {"url": f"http://127.0.0.1:{deaf}/deaf"}),
        ("no-tls", {"url": f"https://127.0.0.1:{other.sinks['ok']}/no-tls"}),
        ("no-name", {"url": "https://no-such-name.invalid/hook"}),
    ]
    return [
        {**target(f"{name}-{number}", 1), "timeout": "5s", **settings}
        for number in range(TROUBLED)
        for name, settings in [kinds[number % len(kinds)]]
    ]


def _deaf_listener() -> socket.socket:
    """Takes connections into a queue that is full at once, so that further ones hang."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", free_port()))
    listener.listen(0)
    return listener
