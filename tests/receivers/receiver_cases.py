"""What every example receiver has to do, whatever its language."""

import json
import socket
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from receiver_events import FORGERIES, an_id, an_order, event, notice, signature_of_the_empty_key
from receiver_kit import CUT, JOURNAL, OTHER_SECRET, PATH, SQLITE, Receiver, signed
from support.disks import build_shim, failing


class ReceiverCases:
    """Subclass it and give it `make`, which is asked for a receiver that works in a folder."""

    make: ClassVar[Callable[[Path, pytest.FixtureRequest], Receiver]]
    reads_half_letters: ClassVar[bool] = True
    """Whether the language's JSON parser takes half of a surrogate pair."""

    def test_a_genuine_event_is_taken_byte_for_byte(self, receiver: Receiver):
        webhook_id, body = an_id(), event(an_order(), 1)
        assert receiver.deliver(webhook_id, body) == 204
        assert (webhook_id, body) in receiver.taken()

    def test_header_names_come_in_any_case(self, receiver: Receiver):
        webhook_id, body = an_id(), event(an_order(), 1)
        headers = {name.title(): value for name, value in signed(webhook_id, body).items()}
        assert receiver.post(body, headers) == 204
        assert receiver.count(webhook_id) == 1

    def test_letters_of_every_language_arrive_as_they_were(self, receiver: Receiver):
        webhook_id, body = an_id(), event(an_order(), 1, '"memo":"žluťoučký кот 猫 🐈 \\u0000\\n ","a":1e400'.encode())
        assert receiver.deliver(webhook_id, body) == 204
        assert (webhook_id, body) in receiver.taken()

    def test_half_a_letter_is_taken_or_not_acknowledged(self, receiver: Receiver):
        webhook_id, body = an_id(), event(an_order(), 1, b'"memo":"\\ud83d"')
        answer = receiver.deliver(webhook_id, body)
        assert answer == 204 or (answer >= 500 and not self.reads_half_letters)
        assert ((webhook_id, body) in receiver.taken()) == (answer == 204)

    @pytest.mark.parametrize("age", [-240, 240])
    def test_one_of_several_signatures_and_a_clock_that_differs_are_enough(self, receiver: Receiver, age: float):
        webhook_id, body = an_id(), event(an_order(), 1)
        headers = signed(webhook_id, body, age=age)
        other = signed(webhook_id, body, secret=OTHER_SECRET, age=age)["webhook-signature"]
        headers["webhook-signature"] = f"{other} v1a,QUJD {headers['webhook-signature']}"
        assert receiver.post(body, headers) == 204
        assert receiver.count(webhook_id) == 1

    @pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
    def test_what_cannot_be_verified_is_refused(self, receiver: Receiver, forge: Callable[[dict[str, str]], None]):
        before, webhook_id, body = receiver.taken(), an_id(), event(an_order(), 1)
        headers = signed(webhook_id, body)
        forge(headers)
        assert receiver.post(body, headers) == 401
        assert receiver.taken() == before

    @pytest.mark.parametrize("age", [-360, 360])
    def test_a_signature_of_another_time_is_refused(self, receiver: Receiver, age: float):
        webhook_id, body = an_id(), event(an_order(), 1)
        assert receiver.post(body, signed(webhook_id, body, age=age)) == 401
        assert receiver.count(webhook_id) == 0

    def test_a_signature_of_somebody_else_is_refused(self, receiver: Receiver):
        webhook_id, body = an_id(), event(an_order(), 1)
        assert receiver.post(body, signed(webhook_id, body, secret=OTHER_SECRET)) == 401
        assert receiver.count(webhook_id) == 0

    def test_an_altered_body_is_refused(self, receiver: Receiver):
        webhook_id, order = an_id(), an_order()
        headers = signed(webhook_id, event(order, 1))
        assert receiver.post(event(order, 2), headers) == 401
        # The same JSON in other bytes is another body.
        assert receiver.post(event(order, 1) + b" ", headers) == 401
        assert receiver.post(b"", headers) == 401
        assert receiver.count(webhook_id) == 0

    def test_an_event_without_a_name_is_refused(self, receiver: Receiver):
        body = event(an_order(), 1)
        assert receiver.post(body, signed("", body)) == 401
        assert receiver.count("") == 0

    def test_only_posts_are_taken(self, receiver: Receiver):
        webhook_id = an_id()
        assert receiver.post(b"", signed(webhook_id, b""), method="GET") >= 400
        assert receiver.count(webhook_id) == 0

    def test_a_repeat_is_taken_once(self, receiver: Receiver):
        webhook_id, body = an_id(), notice()
        assert [receiver.deliver(webhook_id, body) for _ in range(3)] == [204] * 3
        assert receiver.count(webhook_id) == 1

    def test_posts_at_the_same_moment_are_taken_once(self, receiver: Receiver):
        for body in (notice(), event(an_order(), 1), notice()):
            webhook_id = an_id()
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: receiver.deliver(webhook_id, body), range(6)))  # noqa: B023 - all end here
            assert answers == [204] * 6
            assert receiver.count(webhook_id) == 1

    def test_an_order_never_goes_backwards(self, receiver: Receiver):
        order, other = an_order(), an_order()
        sent = [(order, 10), (order, 9), (other, 1), (order, 10), (order, 2), (order, 11)]
        ids = [an_id() for _ in sent]
        for webhook_id, (houdini_id, sequence) in zip(ids, sent, strict=True):
            assert receiver.deliver(webhook_id, event(houdini_id, sequence)) == 204
        assert [receiver.count(webhook_id) for webhook_id in ids] == [1, 0, 1, 0, 0, 1]

    def test_notices_are_taken_without_an_order(self, receiver: Receiver):
        first, second = an_id(), an_id()
        assert [receiver.deliver(first, notice()), receiver.deliver(second, notice())] == [204, 204]
        assert receiver.count(first) == receiver.count(second) == 1

    def test_a_restart_forgets_nothing(self, receiver: Receiver):
        order, first, second, late = an_order(), an_id(), an_id(), an_id()
        body, told = event(order, 2), notice()
        assert [receiver.deliver(first, body), receiver.deliver(second, told)] == [204, 204]
        receiver.kill()
        receiver.start()
        repeats = [
            receiver.deliver(first, body),
            receiver.deliver(second, told),
            receiver.deliver(late, event(order, 1)),
        ]
        assert repeats == [204] * 3
        assert [receiver.count(webhook_id) for webhook_id in (first, second, late)] == [1, 1, 0]

    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_body_without_end_is_refused(self, receiver: Receiver, chunked: bool):
        webhook_id, body = an_id(), event(an_order(), 1, b'"memo":"%s"' % (b"x" * 1_200_000))
        pieces = iter([body[:600_000], body[600_000:]]) if chunked else body
        assert receiver.post(pieces, signed(webhook_id, body)) in ({413, 401, CUT} if chunked else {413, CUT})
        assert receiver.count(webhook_id) == 0
        assert receiver.deliver(webhook_id, notice()) == 204

    def test_a_sender_that_goes_away_hurts_nobody(self, receiver: Receiver):
        webhook_id, body = an_id(), notice()
        head = "".join(f"{name}: {value}\r\n" for name, value in signed(webhook_id, body).items())
        start = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{head}\r\n"
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=5) as connection:
            connection.sendall(start.encode() + body[:20])
        assert receiver.deliver(an_id(), notice()) == 204
        assert receiver.count(webhook_id) == 0

    def test_what_it_cannot_read_is_not_acknowledged(self, receiver: Receiver):
        webhook_id = an_id()
        assert receiver.deliver(webhook_id, b"signed, but no JSON") >= 500
        assert receiver.deliver(an_id(), notice()) == 204
        assert receiver.count(webhook_id) == 0

    def test_what_it_cannot_store_is_not_acknowledged(self, fresh: Callable[[], Receiver]):
        receiver = fresh()
        order, webhook_id = an_order(), an_id()
        body = event(order, 2, b'"memo":"%s"' % (b"x" * 20_000))
        with receiver.store.failing(receiver.folder) as (state, break_it, mend_it):
            try:
                receiver.start(state)
                break_it()
                assert receiver.deliver(webhook_id, body) >= 500
                mend_it()
                assert receiver.deliver(webhook_id, body) == 204
                assert receiver.taken()[-1] == (webhook_id, body)
                receiver.kill()
                receiver.start()
                assert receiver.deliver(webhook_id, body) == 204
                assert receiver.count(webhook_id) == 1
            finally:
                receiver.kill()

    @pytest.mark.parametrize("secret", [None, "", "whsec_"])
    def test_without_a_secret_nothing_is_taken(self, fresh: Callable[[], Receiver], secret: str | None):
        receiver = replace(fresh(), secret=secret)
        body = notice()
        try:
            receiver.start()
        except AssertionError:
            return  # it does not even start
        finally:
            if receiver.process is not None and receiver.process.poll() is not None:
                receiver.kill()
        try:
            headers = signed("evt_empty", body) | {"webhook-signature": signature_of_the_empty_key("evt_empty", body)}
            assert receiver.post(body, headers) >= 400
            assert receiver.post(body, signed("evt_empty", body)) >= 400
        finally:
            receiver.kill()


class SqliteCases(ReceiverCases):
    """For those that remember in SQLite."""

    def test_memory_and_effect_happen_together_or_not_at_all(self, receiver: Receiver):
        assert receiver.store is SQLITE
        webhook_id, body = an_id(), event(an_order(), 1)
        with closing(sqlite3.connect(receiver.state, isolation_level=None)) as db:
            db.execute("CREATE TRIGGER refuse BEFORE INSERT ON work BEGIN SELECT RAISE(ABORT, 'no'); END")
            try:
                assert receiver.deliver(webhook_id, body) >= 500
            finally:
                db.execute("DROP TRIGGER refuse")
        assert receiver.count(webhook_id) == 0
        assert receiver.deliver(webhook_id, body) == 204
        assert receiver.count(webhook_id) == 1


class JournalCases(ReceiverCases):
    """For those that remember in a file of lines."""

    def test_half_a_line_of_a_crash_is_no_event(self, receiver: Receiver):
        assert receiver.store is JOURNAL
        before, half, after = an_id(), an_id(), an_id()
        body = notice()
        receiver.deliver(before, body)
        receiver.kill()
        with open(receiver.state, "ab") as journal:
            journal.write(json.dumps({"webhookId": half, "body": "x" * 500}).encode()[:-5])
        receiver.start()
        assert [receiver.deliver(one, body) for one in (before, half, after)] == [204] * 3
        receiver.kill()
        receiver.start()
        assert [receiver.deliver(one, body) for one in (before, half, after)] == [204] * 3
        assert [receiver.count(one) for one in (before, half, after)] == [1, 1, 1]


class PreloadedJournalCases(JournalCases):
    """And reach the disk through the C library, so that a preloaded one can make it fail."""

    def test_a_line_that_could_not_be_synced_leaves_nothing_behind(self, fresh: Callable[[], Receiver]):
        receiver = fresh()
        receiver.environ = failing(build_shim(receiver.folder), "sync", 1, match="state")
        longer, shorter = an_id(), an_id()
        try:
            receiver.start()
            assert receiver.deliver(longer, event(an_order(), 1, b'"memo":"%s"' % (b"x" * 2_000))) >= 500
            assert receiver.deliver(shorter, notice()) == 204
            receiver.kill()
            receiver.environ = {}
            receiver.start()
            assert [webhook_id for webhook_id, _ in receiver.taken()] == [shorter]
        finally:
            receiver.kill()
