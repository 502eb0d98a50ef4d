"""Counters, gauges and histograms of one process, all in memory; `/metrics` renders them.

Labels are bounded: event types, outcomes, result words and configured target names; whatever the upstream
invents is folded into `other`.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PREFIX: Final = "houdini_relay"
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_LATENCY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200, 43200, 259200)


class Metrics:
    """The metrics of interface section 6; one instance per process, handed down."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._process = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self._process)
        self._upstream()
        self._rest_and_events()
        self._deliveries()
        self._store_and_process(version)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def render_process(self) -> bytes:
        """What the operating system knows of this process (Linux only); reads files, so not from the event loop."""
        return generate_latest(self._process)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)

    def _upstream(self) -> None:
        self.upstream_connected = self._gauge("upstream_connected", "1 while subscribed upstream.")
        self.upstream_in_sync = self._gauge("upstream_in_sync", "1 while subscribed, swept and settled.")
        self.upstream_auth_failed = self._gauge(
            "upstream_auth_failed", "1 while the upstream refuses the credentials, but for the moments of a new try."
        )
        self.upstream_connects = self._counter("upstream_connects", "Connection attempts by result.", "result")
        self.upstream_epoch_ends = self._counter(
            "upstream_epoch_ends", "Lives of the connection ended, by kind.", "kind"
        )
        self.upstream_messages = self._counter("upstream_messages", "Messages from the socket by type.", "type")
        self.upstream_last_message = self._gauge(
            "upstream_last_message_timestamp_seconds", "Unix time of the last application message."
        )
        self.gaps = self._counter("gaps", "Times without a live subscription that have ended.")
        self.gap_seconds = self._counter("gap_seconds", "Seconds without a live subscription.")
        self.gaps_over_window = self._counter("gaps_over_window", "Gaps longer than the upstream remembers.")
        self.clock_jumps = self._counter("clock_jumps", "Times the wall clock was set or the machine slept.")
        self.intake_dropped = self._counter("intake_dropped", "Frames dropped on overflow; each asks for a sweep.")

    def _rest_and_events(self) -> None:
        self.sweeps = self._counter("backfill_sweeps", "Sweeps over REST by result.", "result")
        self.backfill_failing = self._gauge("backfill_failing", "1 while REST does not let a sweep get on.")
        self.backfill_changes = self._counter("backfill_changes", "Events that backfill found.")
        self.rest_requests = self._counter("rest_requests", "REST requests.", "endpoint", "code")
        self.events = self._counter("events", "Events written.", "type", "origin")
        self.duplicates = self._counter("duplicates", "Snapshots that showed nothing new.", "origin")
        self.disbelieved = self._counter("disbelieved", "Snapshots not believed and asked about over REST.", "origin")
        self.unconfirmed = self._counter("unconfirmed", "Backward frames that REST can never confirm.")

    def _deliveries(self) -> None:
        self.deliveries = self._counter("deliveries", "Deliveries ended, by status.", "target", "status")
        self.deliveries_dead = self._counter(
            "deliveries_dead", "Deliveries of orders ended dead, by reason.", "target", "reason"
        )
        self.attempts = self._counter("attempts", "Attempts by outcome.", "target", "outcome")
        self.attempt_duration = self._histogram(
            "attempt_duration_seconds", "How long attempts took, to the end of the answer.", _FAST, "target"
        )
        self.delivery_latency = self._histogram(
            "delivery_latency_seconds", "From the frame being read to the receiver's 2xx.", _LATENCY, "target"
        )
        self.queue_depth = self._gauge("queue_depth", "Deliveries not ended, by status.", "target", "status")
        self.breaker_state = self._gauge("breaker_state", "0 closed, 1 half-open, 2 open.", "target")
        self.target_paused = self._gauge("target_paused", "1 while paused or parked.", "target")
        self.target_parked = self._gauge("target_parked", "1 while parked by its receiver.", "target")
        self.target_orphaned = self._gauge(
            "target_orphaned", "1 while it holds deliveries and is not configured.", "target"
        )
        self.target_stalled = self._gauge(
            "target_stalled", "1 while nothing is sent although something is due and may be.", "target"
        )
        self.queue_oldest_age = self._gauge(
            "queue_oldest_age_seconds", "Age of the oldest delivery of an order not ended.", "target"
        )

    def forget_queues(self) -> None:
        """Show no target's queue until it is measured again: targets come and go."""
        states = (self.breaker_state, self.target_paused, self.target_parked, self.target_orphaned, self.target_stalled)
        for gauge in (self.queue_depth, self.queue_oldest_age, *states):
            gauge.clear()

    def _store_and_process(self, version: str) -> None:
        self.store_commit = self._histogram("store_commit_seconds", "Duration of COMMIT.", _FAST)
        self.store_size = self._gauge("store_size_bytes", "Size of the store's files.")
        self.store_available = self._gauge("store_available", "0 while the store's database cannot be reached.")
        self.store_available.set(1)
        self.leading = self._gauge("leading", "1 while this instance holds the connection to the upstream.")
        self.has_leader = self._gauge("has_leader", "1 while some instance holds the connection, as this one sees it.")
        self.instances = self._gauge("instances", "Instances that share the store, as this one sees it.")
        self.instances.set(1)
        self.store_free = self._gauge("store_free_bytes", "Room left on the store's disk.")
        self.ready = self._gauge("ready", "1 while /readyz answers 200.")
        self.loop_lag = self._gauge("loop_lag_seconds", "Longest delay of the event loop within the last minute.")
        self.config_reloads = self._counter("config_reloads", "Reloads of the configuration, by result.", "result")
        self.config_reload_ok = self._gauge(
            "config_last_reload_successful", "0 while the configuration file was refused when it was last read."
        )
        self.build_info = self._gauge("build_info", "Always 1; the label is the version.", "version")
        self.build_info.labels(version).set(1)
