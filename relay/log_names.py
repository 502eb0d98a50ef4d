"""The name of every log line, each with what it means; `docs/logs.md` adds what to do about it."""

from enum import StrEnum
from typing import Self


class Log(StrEnum):
    """Names are for machines to search for: one that is in a release keeps its meaning.

    Attributes:
        meaning: what has happened, in one sentence.
    """

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        """A string that also knows its meaning."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    # The process
    STARTED = "started", "all rooms are at work; `targets` and `admin` as configured"
    STOPPING = "stopping", "a signal came, or something failed: nothing new is begun"
    STOPPED = "stopped", "it has ended in order; attempts that were cut off are made again"
    ENDED_AT_ONCE = (
        "ended_at_once",
        "it ended without finishing what was under way: a second signal, or a stop that hung",
    )
    CRASHED = "crashed", "the process ends because of a defect"
    ROOM_ENDED = "room_ended", "a part that runs for ever has ended; the process ends, too"
    FILE_LIMIT_LOW = "file_limit_low", "all targets' attempts together need more open files than are granted"
    WATCHDOG_WITHHELD = "watchdog_withheld", "the process is unwell, so systemd is not pinged; `reasons` says why"
    WATCHDOG_RESUMED = "watchdog_resumed", "it is well again, and systemd is pinged"
    TRACING_UNAVAILABLE = "tracing_unavailable", "the environment asks for traces, but none can be made"
    SPANS_LOST = "spans_lost", "the collector did not take the last spans in time at the end"

    # Configuration
    CONFIG_RELOADED = "config_reloaded", "it holds now; `changed` names settings by path, never a value"
    CONFIG_UNCHANGED = "config_unchanged", "the file, and all it names, says what it said before"
    CONFIG_REFUSED = "config_refused", "it has a mistake, `problems` says which; the old configuration goes on"
    RELOAD_CRASHED = "reload_crashed", "a defect while a configuration was judged; the old one goes on"
    RELOAD_NOT_AVAILABLE = "reload_not_available", "it was started without a file that could be read again"
    SECRET_UNREADABLE = "secret_unreadable", "a target's secret cannot be read; its attempts fail until it can"

    # Upstream
    UPSTREAM_SUBSCRIBED = "upstream_subscribed", "updates come in; `gap_seconds` is how long they did not"
    UPSTREAM_IN_SYNC = "upstream_in_sync", "both sweeps after the subscription are done: nothing is missing"
    UPSTREAM_EPOCH_ENDED = (
        "upstream_epoch_ended",
        "a connection has ended or failed; told again when the reason changes",
    )
    UPSTREAM_EPOCH_CRASHED = "upstream_epoch_crashed", "a defect ended a connection; the next one follows"
    UPSTREAM_MESSAGE_TOO_BIG = "upstream_message_too_big", "connection after connection ends at an over-long message"
    UPSTREAM_SPEAKS_OTHERWISE = "upstream_speaks_otherwise", "most of what the upstream sends is not understood"
    UPSTREAM_ODDITY = "upstream_oddity", "a message that no documentation knows; the first of its kind per connection"
    UPSTREAM_SEND_FAILED = "upstream_send_failed", "nothing could be sent on a connection that is about to end"
    UPSTREAM_CLOSE_CUT = "upstream_close_cut", "a connection did not close politely in time and was cut"
    GAP_EXCEEDS_WINDOW = "gap_exceeds_window", "there was no subscription for longer than REST looks back"
    GAP_NOT_RECORDED = "gap_not_recorded", "the end of the subscription could not be written while the process ended"
    CLOCK_JUMPED = "clock_jumped", "the wall clock was set, or the machine slept; the connection begins anew"
    BACKFILL_CRASHED = "backfill_crashed", "a defect in the sweeps; they begin anew"
    SWEEP_INCOMPLETE = "sweep_incomplete", "a sweep over REST could not see everything; it is repeated"
    SWEEP_BY_PAGE_NUMBER = "sweep_by_page_number", "REST does not sort as it should, so all its pages are read"
    REST_FAILING = "rest_failing", "REST does not answer, or fails in another way than before; it is asked again"
    UNREADABLE_ORDERS = "unreadable_orders", "REST shows orders that cannot be understood; they are not forwarded"
    SNAPSHOT_NOT_INGESTED = "snapshot_not_ingested", "a defect: this state of an order was not taken in"
    SIDEWAYS_FRAME_BELIEVED = "sideways_frame_believed", "REST never showed the order, so the WebSocket is believed"
    FRAME_UNCONFIRMED = "frame_unconfirmed", "a frame that went backward was given up: REST never confirmed it"
    STORED_FRAME_UNREADABLE = "stored_frame_unreadable", "a frame that waited for confirmation cannot be read back"
    ORDER_AGED_OUT = "order_aged_out", "REST does not show this open order any more; it is not asked for again"

    # Instances
    LEAD_TAKEN = "lead_taken", "this instance holds the connection to the upstream now"
    LEAD_LOST = "lead_lost", "this instance gave up the connection; another takes it over, or this one again"
    LEAD_NOT_RESIGNED = "lead_not_resigned", "the lead could not be given back at the end; it ends by itself in 15 s"
    STORE_AWAY = "store_away", "the database cannot be reached: nothing is received or delivered until it can"
    STORE_BACK = "store_back", "the database can be reached again; sweeps make good what was missed"
    FROZEN_SESSIONS_ENDED = (
        "frozen_sessions_ended",
        "transactions of an instance that has stopped in the middle of one were ended, so that nobody waits for it",
    )
    INGEST_WAITS = "ingest_waits", "what was read cannot be stored at the moment; it is kept and tried again"
    DELIVERY_WAITS_FOR_STORE = (
        "delivery_waits_for_store",
        "a target's deliveries cannot be claimed or settled at the moment; it is tried again",
    )

    # Targets
    BREAKER_OPENED = "breaker_opened", "a target fails: one probe at a time, no delivery uses up attempts"
    BREAKER_CLOSED = "breaker_closed", "it answers 2xx again; what waits is sent, a little at first"
    TARGET_PARKED = "target_parked", "its receiver wants nothing more; deliveries are kept"
    TARGET_PAUSED = "target_paused", "a person paused it; deliveries are kept"
    TARGET_RESUMED = (
        "target_resumed",
        "a person resumed it; `was`: parked, paused, or breaker_open: probed now",
    )
    TARGET_THROTTLED = "target_throttled", "its receiver asked for a pause (`until`) or for fewer at a time"
    TARGET_FAILING = "target_failing", "attempts have begun to fail; at the start: its breaker is still open"
    TARGET_ANSWERS_AGAIN = "target_answers_again", "an attempt was answered with 2xx after `target_failing`"
    TARGET_BACKLOG = "target_backlog", "at the start: this much waits from before"
    TARGET_STOPPED = "target_stopped", "at the start: it is parked or paused; `state` says which"
    TARGET_ORPHANED = "target_orphaned", "at the start: deliveries wait for a name that is not configured"
    TARGET_TESTED = "target_tested", "a person had a test event sent"
    TARGET_FORGOTTEN = "target_forgotten", "a person cancelled all that was kept for an orphaned target"
    CLIENT_NOT_CLOSED = "client_not_closed", "connections of a target as it was configured before could not be closed"
    WEBHOOK_CONNECTIONS_LEFT_OPEN = "webhook_connections_left_open", "connections to a receiver did not close in time"
    WALL_CLOCK_JUMPED = "wall_clock_jumped", "the wall clock was set; when it went back, due times went with it"

    # Deliveries
    DELIVERY_DEAD = "delivery_dead", "a delivery ended without success; `reason` says why"
    DELIVERIES_EXPIRED = "deliveries_expired", "deliveries waited in vain for longer than `expire_after`"
    DELIVERIES_OVERFLOWED = "deliveries_overflowed", "more than `max_pending` waited: the oldest are dead"
    DELIVERY_RETRIED = "delivery_retried", "a person had a waiting delivery attempted now"
    DELIVERY_REPLAYED = "delivery_replayed", "a person had a finished delivery sent again; `replay` is the new one"
    DELIVERY_CANCELLED = "delivery_cancelled", "a person cancelled it"
    REPLAYED = "replayed", "a person had many events sent again"
    ATTEMPT_FAILED_UNEXPECTEDLY = "attempt_failed_unexpectedly", "a defect made an attempt fail; it is repeated"
    ATTEMPT_CRASHED = "attempt_crashed", "a defect: what came of an attempt could not be settled; it is repeated"

    # Notices
    NOTICE_WRITTEN = "notice_written", "an event about the relay itself was made, for so many targets"
    NOTICES_EXPIRED = "notices_expired", "no receiver took notices in time; what still holds is in `status`"
    NOTICES_NOT_WRITTEN = "notices_not_written", "dead deliveries could not be told of while the process ended"
    OPEN_NOTICES_FORGOTTEN = "open_notices_forgotten", "what had been told cannot be read; what holds is told again"

    # Store
    STORE_UNUSABLE = "store_unusable", "it cannot be opened; the process ends with code 3"
    STORE_FAILED = "store_failed", "a commit failed; the process ends with code 3, and nothing is lost"
    STORE_ON_NETWORK_FILESYSTEM = "store_on_network_filesystem", "the store lies on a disk whose locks may not hold"
    STORE_BACKED_UP = "store_backed_up", "a copy was written"
    DISK_LOW = "disk_low", "less than 1 GiB is free"
    DISK_FULL = "disk_full", "less than 256 MiB is free: nothing is accepted, what is stored is delivered"
    DISK_OK = "disk_ok", "there is space again"
    DISK_WATCH_FAILED = "disk_watch_failed", "free space cannot be measured, or the reserve cannot be kept"
    PRUNED = "pruned", "what ended longer ago than `store.retention` was removed"

    # Admin
    ADMIN_NOT_STARTED = "admin_not_started", "`admin.listen` cannot be had; the process ends"
    ADMIN_TOKEN_UNREADABLE = "admin_token_unreadable", "the token cannot be read; nobody is let in until it can"
    ADMIN_SIGNED_IN = "admin_signed_in", "somebody signed in at the dashboard"
    ADMIN_LOGIN_FAILED = "admin_login_failed", "somebody gave a wrong token"
    ADMIN_REQUEST_FAILED = "admin_request_failed", "a defect: a request was answered with 500"
    ADMIN_CONNECTION_REFUSED = "admin_connection_refused", "too many connections at a time"
    BACKFILL_REQUESTED = "backfill_requested", "a person asked for a sweep"
    AUDIT_BEGAN = "audit_began", "an audit that a person asked for begins"
    AUDIT_BROKEN_OFF = "audit_broken_off", "it ended without a result; `error` says why"
    AUDIT_ENDED = "audit_ended", "it is done; `differences` counts what it found"
    AUDIT_NOT_PREPARED = "audit_not_prepared", "what audits need could not be read from the store at the start"

    # Simulator
    RECEIVER_STARTED = "receiver_started", "the stand-in receiver listens"
    SIMULATED_UPSTREAM_STARTED = "simulated_upstream_started", "the stand-in upstream listens"
    SIMULATED_FAULT = "simulated_fault", "the stand-in upstream was told to misbehave"
