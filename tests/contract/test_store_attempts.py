"""What every store shows of the attempts it has logged."""

from msgspec.structs import replace
from support.factories import event, failed_attempt, ok_attempt
from support.stores import Bench, again, delivered

from relay.model import Attempt, FailureKind, Outcome, Timings


async def test_attempts_are_the_last_ones_oldest_first(bench: Bench):
    await bench.add(event("o1"), targets=["alpha"])
    full = Attempt(
        at_ms=7_000,
        duration_ms=12.5,
        outcome=Outcome.RETRY,
        status_code=None,
        kind=FailureKind.TIMEOUT,
        error="timeout: no answer within 15 s",
        response_body=b"\x00\xff<b>",
        headers={"retry-after": "5"},
        timings=Timings(1.0, 2.0, None, 4.5),
    )
    for number in range(4):
        (head,) = await bench.claim(now_ms=10_000)
        attempt = full if number == 2 else failed_attempt(number)
        await bench.settle(replace(again(head, 5_000), attempt=attempt))
    (head,) = await bench.claim(now_ms=10_000)
    await bench.settle(replace(delivered(head), attempt=ok_attempt(9_000)))
    found = await bench.store.attempts(head.id, 3)
    assert [one.number for one in found] == [3, 4, 5]
    third = found[0]
    assert (third.at_ms, third.duration_ms, third.outcome, third.status_code) == (7_000, 12.5, Outcome.RETRY, None)
    assert (third.kind, third.error) == ("timeout", "timeout: no answer within 15 s")
    assert (third.response_body, dict(third.headers), third.timings) == (
        b"\x00\xff<b>",
        {"retry-after": "5"},
        Timings(1.0, 2.0, None, 4.5),
    )
    assert (third.manual, third.probe) == (False, False)
    assert await bench.store.attempts(999, 3) == []


async def test_an_attempt_tells_a_person_and_a_probe_apart(bench: Bench):
    await bench.add(event("o1"), targets=["alpha"])
    (head,) = await bench.probe()
    await bench.settle(again(head, 5_000))
    await bench.store.retry_now(head.id, 6_000)
    (head,) = await bench.claim()
    await bench.settle(again(head, 5_000))
    assert [(one.probe, one.manual) for one in await bench.store.attempts(head.id, 9)] == [(True, False), (False, True)]
