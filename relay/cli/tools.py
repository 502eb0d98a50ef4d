"""`demo`, `simulate`, `listen` and `secret`: trying the relay out without an account."""

import asyncio
import dataclasses
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import click

from relay import log
from relay.cli.receiving import leading_to, sending_to
from relay.cli.show import ARRIVAL_HEADINGS, DemoScreen, describe_arrival
from relay.clock import SystemClock, system_rng
from relay.delivery.signer import new_ed25519_pair, new_secret
from relay.errors import UsageError
from relay.simulator.defaults import PARTNER, RECEIVER_PORT, UPSTREAM_PORT, UPSTREAM_SECRET
from relay.simulator.demo import Demo
from relay.simulator.player import Player
from relay.simulator.receiver import Arrival, Misbehaviour, Receiver
from relay.simulator.server import SimulatedUpstream
from relay.simulator.verdict import Verdict
from relay.simulator.world import World

_INTERRUPTED: Final = 130


@click.command()
@click.option("--orders", type=click.IntRange(1, 10_000), default=60, show_default=True, help="Orders to play.")
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=20, show_default=True, help="Updates per second.")
@click.option("--calm", is_flag=True, help="No outage, no failing receiver, no kill on the way.")
@click.option("--keep-running", is_flag=True, help="Leave everything up afterwards, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON document.")
@click.pass_context
def demo(ctx: click.Context, orders: int, rate: float, calm: bool, keep_running: bool, as_json: bool) -> None:
    """Show everything on this machine, and end with a verdict.

    Upstream, relay and receiver talk over real sockets on 127.0.0.1; the relay
    is a child process of its own. On the way the upstream drops the connection, the
    receiver fails for a while and the relay is killed with SIGKILL. Exit code 1
    if anything was lost, doubled, out of order, altered or wrongly signed.
    """
    log.configure("error", "auto")
    with DemoScreen(quiet=as_json) as screen:
        show = Demo(
            clock=SystemClock(),
            orders=orders,
            rate=rate,
            calm=calm,
            keep_running=keep_running,
            on_arrival=screen.arrival,
            say=screen.say,
        )
        try:
            verdict = asyncio.run(_run_demo(show, keep_running=keep_running))
        except asyncio.CancelledError:
            ctx.exit(_INTERRUPTED)
    if as_json:
        click.echo(json.dumps({"ok": verdict.ok, **dataclasses.asdict(verdict)}, indent=2))
    else:
        click.echo("\n".join(verdict.lines()))
    ctx.exit(0 if verdict.ok else 1)


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=UPSTREAM_PORT, show_default=True, help="0 takes a free one."
)
@click.option("--orders", type=click.IntRange(0, 1_000_000), default=1000, show_default=True, help="Orders to play.")
@click.option("--rate", type=click.FloatRange(0.01, 5000), default=2, show_default=True, help="Updates per second.")
@click.option("--seed", type=int, default=None, help="Play the same lives every time.")
def simulate(port: int, orders: int, rate: float, seed: int | None) -> None:
    """Stand in for the upstream: WebSocket and REST on 127.0.0.1.

    Plays orders through their documented lives until Ctrl-C and prints what to
    paste into a configuration. `POST /control/faults` makes it misbehave;
    `GET /control/state` shows every switch.
    """
    log.configure("warning", "auto")
    asyncio.run(_simulate(port, orders, rate, seed))


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=RECEIVER_PORT, show_default=True, help="0 takes a free one."
)
@click.option("--secret", "secrets", multiple=True, envvar="RELAY_WEBHOOK_SECRET", show_envvar=True,
              help="whsec_... that may sign; repeat it for several. One is made up when none is given.")  # fmt: skip
@click.option("--fail-rate", type=click.FloatRange(0, 1), default=0, show_default=True, help="Share that fails.")
@click.option("--status", type=click.IntRange(200, 599), default=500, show_default=True, help="Status of a failure.")
@click.option("--delay", type=click.FloatRange(0, 120), default=0, show_default=True, help="Seconds before an answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per delivery.")
def listen(port: int, secrets: tuple[str, ...], fail_rate: float, status: int, delay: float, as_json: bool) -> None:
    """Receive webhooks on 127.0.0.1, verify them and print what came.

    Answers 200 to what is signed rightly and 401 to the rest, until Ctrl-C.
    """
    log.configure("warning", "auto")
    trouble = Misbehaviour(fail_rate=fail_rate, status=status, delay=delay)
    asyncio.run(_listen(port, list(secrets), trouble, as_json))


@click.group()
def secret() -> None:
    """Make secrets."""


@secret.command("new")
@click.option("--ed25519", is_flag=True, help="A pair of keys: whsk_... to sign, whpk_... to verify.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for machines.")
def secret_new(ed25519: bool, as_json: bool) -> None:
    """Print a new webhook secret (whsec_..., 32 random bytes).

    Put it first into the target's `secrets` and give it to the receiver. To
    rotate, keep the old one second until the receiver knows the new one.

    With --ed25519 the receiver gets a public key and no secret; the target still
    needs a whsec_ secret beside it, since many verifiers know no other.
    """
    made = {"secret": new_secret(os.urandom(32))}
    if ed25519:
        made["secret"], made["public_key"] = new_ed25519_pair(os.urandom(32))
    if as_json:
        click.echo(json.dumps(made))
        return
    click.echo("\n".join(made.values()))
    if ed25519:
        click.echo("\nThe first is secret: add it to the target's `secrets`, beside a whsec_ one.", err=True)
        click.echo("The second is public: give it to the receiver.", err=True)


async def _run_demo(show: Demo, *, keep_running: bool) -> Verdict:
    """Ctrl-C cuts a demo off; one that is to keep running is asked to come to its verdict first."""
    playing = asyncio.ensure_future(show.run())

    def on_signal() -> None:
        if keep_running and not show.stop_requested.is_set():
            show.stop_requested.set()
        else:
            playing.cancel()

    _on_signals(on_signal)
    return await playing


async def _simulate(port: int, orders: int, rate: float, seed: int | None) -> None:
    rng, clock = system_rng(), SystemClock()
    if seed is not None:
        rng.seed(seed)
    world = World(clock, rng)
    upstream = SimulatedUpstream(world, partner_id=PARTNER, secret=UPSTREAM_SECRET)
    await _start(upstream.start("127.0.0.1", port), port)
    stop = asyncio.Event()
    try:
        click.echo("\n".join(leading_to(upstream.websocket_url, upstream.rest_url)))
        click.echo(f'# control: curl -d \'{{"actions":["drop"]}}\' http://127.0.0.1:{upstream.port}/control/faults')
        player = Player(world, orders=orders, rate=rate, rng=rng, clock=clock)
        await _until_interrupted(_play(player, stop), stop)
    finally:
        await upstream.stop()


async def _play(player: Player, stop: asyncio.Event) -> None:
    playing = asyncio.create_task(player.run(), name="player")
    try:
        await stop.wait()
    finally:
        playing.cancel()


async def _listen(port: int, secrets: list[str], trouble: Misbehaviour, as_json: bool) -> None:
    made_up = None if secrets else new_secret(os.urandom(32))
    if made_up is not None:
        secrets = [made_up]

    seen: deque[str] = deque(maxlen=10_000)

    def show(arrival: Arrival) -> None:
        repeated = arrival.webhook_id in seen
        seen.append(arrival.webhook_id)
        click.echo(describe_arrival(arrival, as_json=as_json, repeated=repeated))

    try:
        receiver = Receiver(secrets, clock=SystemClock(), rng=system_rng(), on_arrival=show)
    except ValueError as error:
        raise UsageError(f"--secret: {error}") from error
    receiver.misbehaviour = trouble
    await _start(receiver.start("127.0.0.1", port), port)
    stop = asyncio.Event()
    try:
        if not as_json:
            click.echo("\n".join(sending_to(receiver.port, made_up)))
            click.echo(ARRIVAL_HEADINGS)
        await _until_interrupted(_wait(stop), stop)
    finally:
        await receiver.stop()


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


async def _start(starting: Coroutine[Any, Any, None], port: int) -> None:
    try:
        await starting
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror or error}; choose another, 0 takes a free one") from error


async def _until_interrupted(work: Coroutine[Any, Any, Any], stop: asyncio.Event) -> Any:
    """Run `work`; Ctrl-C or SIGTERM asks it to stop, a second one cuts it off."""
    task = asyncio.ensure_future(work)
    _on_signals(lambda: task.cancel() if stop.is_set() else stop.set())
    return await task


def _on_signals(call: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, call)
