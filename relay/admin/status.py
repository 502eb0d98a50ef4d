"""Is everything where it should be, and if not, why and what to do: pure judgements for people.

`/readyz` asks whether changes can reach targets; this asks whether they did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.admin.gap_shapes import WINDOW, gap_seconds, gap_shape
from relay.admin.health import Limits, is_stalled
from relay.admin.instances import NOBODY_ADVICE, NOBODY_LEADS, instance_shapes, nobody_leads
from relay.admin.shapes import moment, target_shape
from relay.board import Board, Reload, TargetBoard, UpstreamState
from relay.model import iso_utc
from relay.standing import Breaker, Standing
from relay.store.reads import DeadLetters
from relay.store.values import Backlog, Gap, LiveInstance

LAGGING: Final = 900.0
"""Seconds that a delivery may wait before its target counts as lagging."""
GAPS_SHOWN: Final = 20
DEAD_EXAMINED: Final = 1000
"""Dead deliveries of a target that are looked at; beyond that the number is a lower bound."""
STUCK_SWEEPS: Final = 300.0
"""Seconds for which REST may fail before that is something wrong: shorter troubles are retried by themselves."""
FRESH_DEATH: Final = 3600.0
"""Seconds for which a delivery that ended dead counts as something wrong now."""
_NOTHING: Final = Backlog(0, None, None, Standing())


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A target as configured: its name, its redacted URL, what it may do at most."""

    name: str
    url: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the judgement rests on.

    Attributes:
        targets: those that are configured.
        backlog: what these, and those that no longer are, still have to get.
        dead: target -> what ended dead there and was not sent again since.
        sweeps: result -> sweeps that ended so since the process began.
        gaps: the last gaps, newest first.
        instances: those that share the store.
        size_bytes: how much room the store takes.
        now: monotonic seconds.
        now_ms: wall time.
    """

    version: str
    board: Board
    targets: Sequence[TargetFacts]
    backlog: Mapping[str, Backlog]
    dead: Mapping[str, DeadLetters]
    sweeps: Mapping[str, int]
    gaps: Sequence[Gap]
    instances: Sequence[LiveInstance]
    size_bytes: int
    now: float
    now_ms: int


@dataclass(slots=True)
class Findings:
    """What is wrong and what is worth knowing, each with its subject and what to do about it."""

    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)

    def problem(self, subject: str, message: str, advice: str) -> None:
        """Something is wrong now."""
        self.problems.append({"subject": subject, "message": message, "advice": advice})

    def note(self, subject: str, message: str, advice: str) -> None:
        """Something is worth knowing though all is well now."""
        self.notes.append({"subject": subject, "message": message, "advice": advice})


def status_document(facts: Facts) -> dict[str, Any]:
    """The answer of `GET /api/v1/status`."""
    found = Findings()
    _judge_process(facts, found)
    _judge_upstream(facts, found)
    for target in facts.targets:
        _judge_target(target, facts, found)
    _judge_orphans(facts, found)
    _judge_gaps(facts, found)
    shown = [_target(target.name, target.url, facts) for target in facts.targets]
    shown += [_target(name, None, facts) for name in _orphans(facts)]
    return {
        "fine": not found.problems,
        "problems": found.problems,
        "notes": found.notes,
        "version": facts.version,
        "now": iso_utc(facts.now_ms),
        "upstream": _upstream(facts.board, facts.sweeps),
        "instances": instance_shapes(facts.instances, facts.board),
        "gaps": [gap_shape(gap, facts.now_ms) for gap in facts.gaps],
        "targets": shown,
        "store": {"size_bytes": facts.size_bytes, "failure": facts.board.store_failure},
    }


def _judge_process(facts: Facts, found: Findings) -> None:
    board = facts.board
    if board.stopping:
        found.problem("relay", "it is stopping", "start it again when it has ended")
    if board.store_failure is not None:
        found.problem("store", board.store_failure, "the process ends and must be started again; see its log")
    if board.gate.reason is not None:
        found.problem("store", f"nothing is accepted: {board.gate.reason}", "see docs/operations.md, The store")
    if board.config.result is Reload.REFUSED:
        first, more = board.config.refusal[0], len(board.config.refusal) - 1
        message = f"the changed file was refused, the old one goes on: {first}{f' (and {more} more)' if more else ''}"
        advice = "correct it and reload again, or restart where it says so; houdini-relay check names what is malformed"
        found.problem("configuration", message, advice)


def _judge_upstream(facts: Facts, found: Findings) -> None:
    upstream = facts.board.upstream
    cause = f": {upstream.last_error}" if upstream.last_error else ""
    if facts.board.lead.follows:
        if nobody_leads(facts.board):
            found.problem("upstream", NOBODY_LEADS, NOBODY_ADVICE)
    elif upstream.state is UpstreamState.AUTH_FAILED:
        advice = "correct upstream.partner_id and upstream.secret; it tries again every auth_retry"
        found.problem("upstream", f"the credentials are refused{cause}", advice)
    elif not upstream.subscribed:
        advice = "it retries with growing waits and catches up by itself; check the network if it stays"
        found.problem("upstream", f"no subscription{cause}", advice)
    elif not upstream.first_sweep_done:
        advice = "wait; a low requests_per_minute makes this take a while"
        trouble = f" (last trouble{cause})" if cause else ""
        found.problem("upstream", f"subscribed, but still catching up{trouble}", advice)
    elif upstream.sweep_problem is not None and facts.now - (upstream.sweep_problem_since or 0) > STUCK_SWEEPS:
        message = f"REST has not answered for {(facts.now - (upstream.sweep_problem_since or 0)) / 60:.0f} min"
        advice = "what the socket loses meanwhile is not made good; see the credentials and whether REST can be reached"
        found.problem("upstream", f"{message}: {upstream.sweep_problem}", advice)
    if upstream.questions_open:
        message = f"{counted(upstream.questions_open, 'frame')} not believed until REST has been asked"
        found.note("upstream", message, "nothing to do; REST is asked one settling time later")
    if upstream.unconfirmed:
        message = f"{counted(upstream.unconfirmed, 'frame')} went backward and REST could not confirm it"
        found.note("upstream", message, "the log names the orders; ask the upstream about them")


def _judge_target(target: TargetFacts, facts: Facts, found: Findings) -> None:
    subject = f"target {target.name}"
    waiting = facts.backlog.get(target.name, _NOTHING)
    if waiting.standing.stopped:
        _judge_stopped(target.name, waiting, found)
    else:
        _judge_sending(target, waiting, facts, found)
    if (dead := facts.dead.get(target.name, DeadLetters())).count:
        message = (
            f"{_dead_words(dead.count)} ended dead and {'was' if dead.count == 1 else 'were'} not sent again since"
        )
        advice = (
            f"see `houdini-relay deliveries list --target {target.name} --status dead`; "
            f"`houdini-relay replay --target {target.name}` sends them again"
        )
        fresh = dead.last_ms is not None and facts.now_ms - dead.last_ms < FRESH_DEATH * 1000
        (found.problem if fresh else found.note)(subject, message, advice)


def _dead_words(count: int) -> str:
    more = "at least " if count >= DEAD_EXAMINED else ""
    return more + counted(count, "delivery", "deliveries")


def _judge_stopped(name: str, waiting: Backlog, found: Findings) -> None:
    """Parked: somebody must act. Paused: somebody meant it, but what waits must not be forgotten."""
    standing, queue = waiting.standing, f"{waiting.pending} waiting"
    resume = f"houdini-relay targets resume {name}"
    if standing.parked_ms is not None:
        why = f"parked since {iso_utc(standing.parked_ms)} because its receiver said so"
        error = f" ({standing.last_error})" if standing.last_error else ""
        found.problem(f"target {name}", f"{why}{error}, {queue}", f"{resume}, once its receiver is right again")
        return
    if standing.paused_by_config:
        why, advice = "paused by the configuration", f"set `paused: false` for {name} and reload"
    else:
        why, advice = f"paused by a person since {iso_utc(standing.paused_ms or 0)}", resume
    tell = found.problem if waiting.pending else found.note
    tell(f"target {name}", f"{why}, {queue}", f"{advice}; its deliveries are kept")


def _judge_sending(target: TargetFacts, waiting: Backlog, facts: Facts, found: Findings) -> None:
    subject, standing, queue = f"target {target.name}", waiting.standing, f"{waiting.pending} waiting"
    board = facts.board.targets.get(target.name, TargetBoard())
    age, error = _age(waiting, facts.now_ms), standing.last_error
    shows = f"`houdini-relay targets test {target.name}` shows what it answers"
    until_ms = standing.throttled_until_ms
    if until_ms is not None and until_ms > facts.now_ms:
        advice = "nothing to do; its receiver asked to be left alone until then (Retry-After)"
        found.note(subject, f"throttled until {iso_utc(until_ms)}, {queue}", advice)
    if is_stalled(board, waiting, target.limits, facts.now, facts.now_ms):
        found.problem(subject, f"nothing is sent although it could be, {queue}", "restart, and report this defect")
    elif standing.breaker is not Breaker.CLOSED:
        since, probe = iso_utc(standing.breaker_changed_ms or 0), iso_utc(standing.probe_due_ms or 0)
        advice = (
            f"make its URL answer 2xx: {shows}; nothing is used up meanwhile, "
            f"and it is probed by itself (next: {probe})"
        )
        found.problem(subject, f"breaker open since {since}: {error}; {queue}", advice)
    elif error is not None and waiting.pending:
        advice = f"see that its URL answers 2xx: {shows}; retries go on by themselves"
        found.problem(subject, f"the last attempt failed: {error}; {queue}", advice)
    elif age is not None and age > LAGGING:
        advice = (
            f"if its answers are slow, raise its concurrency; if some orders fail again and again, "
            f"`houdini-relay deliveries list --target {target.name} --status pending` shows their last answers"
        )
        found.problem(subject, f"lagging, {queue}, the oldest for {age / 60:.0f} min", advice)


def _orphans(facts: Facts) -> list[str]:
    configured = {target.name for target in facts.targets}
    return sorted(name for name in facts.backlog if name not in configured)


def _judge_orphans(facts: Facts, found: Findings) -> None:
    for name in _orphans(facts):
        message = f"not configured any more (orphaned), {facts.backlog[name].pending} waiting"
        advice = f"configure it again, or drop them: houdini-relay targets forget {name}"
        found.note(f"target {name}", message, advice)


def _judge_gaps(facts: Facts, found: Findings) -> None:
    for gap in facts.gaps:
        if gap_seconds(gap, facts.now_ms) > WINDOW:
            message = f"the gap since {iso_utc(gap.from_ms)} was longer than what REST remembers (48 h)"
            found.note("gaps", message, "what happened inside it cannot be known; compare with your own records")


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def why_not_in_sync(board: Board) -> str | None:
    """What is still to happen before all is known to be in line with REST; None when it is."""
    upstream = board.upstream
    if upstream.in_sync:
        return None
    if board.lead.follows:
        return "another instance holds the connection"
    if not upstream.subscribed:
        return "no subscription"
    if not upstream.first_sweep_done:
        cause = f": {upstream.sweep_problem}" if upstream.sweep_problem else ""
        return f"the first sweep of this connection is not done{cause}"
    cause = f": {upstream.sweep_problem}" if upstream.sweep_problem else ""
    return f"the trailing sweep, one settling time after the first, is not done{cause}"


def _upstream(board: Board, sweeps: Mapping[str, int]) -> dict[str, Any]:
    upstream = board.upstream
    return {
        "state": upstream.state.value,
        "first_sweep_done": upstream.first_sweep_done,
        "in_sync": upstream.in_sync,
        "why_not_in_sync": why_not_in_sync(board),
        "epoch": upstream.epoch,
        "since": iso_utc(upstream.since_ms) if upstream.since_ms else None,
        "last_message_at": moment(upstream.last_message_ms),
        "last_error": upstream.last_error,
        "questions_open": upstream.questions_open,
        "unconfirmed": upstream.unconfirmed,
        "sweeps": dict(sweeps),
        "gate": board.gate.reason,
    }


def _target(name: str, url: str | None, facts: Facts) -> dict[str, Any]:
    board = facts.board.targets.get(name, TargetBoard())
    waiting = facts.backlog.get(name, _NOTHING)
    shape = target_shape(name, url, waiting, facts.now_ms, probing=board.probing, in_flight=board.in_flight)
    return shape | {"dead": facts.dead.get(name, DeadLetters()).count}


def _age(backlog: Backlog, now_ms: int) -> float | None:
    return None if backlog.oldest_ms is None else max(0, now_ms - backlog.oldest_ms) / 1000
