"""An answer is the same however its bytes are cut, and no bytes make the reader do anything but read or refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.answer import HEAD_CAP, HEADER_CAP, INTERIM_CAP, READ_CAP, AnswerReader, NotAnAnswer

ANSWERS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: s\r\n\r\nok",
    b"HTTP/1.1 103 Hint\r\nserver: other\r\n\r\nHTTP/1.1 500 No\r\nretry-after: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\nserver: trailer\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nserver: x\r\nserver: y\r\n\r\nup to its end",
    b"HTTP/1.0 404 No\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * (HEAD_CAP + 1),
    b"HTTP/1.1 103 Hint\r\n\r\n" * (INTERIM_CAP + 1),
    b"no HTTP at all",
]


def read(pieces):
    """(refused, status, kept headers, body, reusable)"""
    reader, refused = AnswerReader(), False
    try:
        for piece in pieces:
            reader.feed(piece)
    except NotAnAnswer:
        refused = True
    answer = reader.answer
    if answer is None:
        return refused, None, {}, b"", reader.reusable
    return refused, answer.status, answer.headers, bytes(answer.body), reader.reusable


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
@given(data=st.data())
def test_however_it_is_cut(answer, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=40)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert read(pieces) == read([answer])


@pytest.mark.parametrize("answer", ANSWERS[:6], ids=range(6))
def test_a_byte_at_a_time(answer):
    assert read([bytes([byte]) for byte in answer]) == read([answer])


def test_what_these_answers_are():
    assert [read([answer])[:2] for answer in ANSWERS] == [
        *[(False, 200), (False, 500), (False, 200), (False, 404)],
        *[(True, 200), (True, 200), (True, None), (True, None), (True, None)],
    ]
    assert read([ANSWERS[1]])[2:] == ({b"retry-after": b"5"}, b"abc", True)
    assert read([ANSWERS[2]])[2:] == ({b"server": b"x"}, b"up to its end", False)
    assert [read([answer])[4] for answer in ANSWERS] == [True, True, *[False] * 7]


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_do_anything_but_read_or_refuse(pieces):
    read([b"HTTP/1.1 200 OK\r\n", *pieces])
    read(pieces)


def test_the_body_is_never_longer_than_the_cap():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    reader = AnswerReader()
    reader.feed(head + b"x" * 3 * READ_CAP)
    assert (len(reader.answer.body), reader.over, reader.reusable) == (READ_CAP, True, False)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 Yes\r\n\r\n", 200),
        (b"HTTP/1.1 200 Yes\r\ncontent-length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 407 No\r\ncontent-length: 9\r\n\r\npart", 407),
    ],
)
def test_the_head_alone_answers_a_connect(answer, status):
    reader = AnswerReader()
    reader.begin(head_only=True)
    reader.feed(answer)
    assert (reader.answer.status, reader.over) == (status, True)


@pytest.mark.parametrize("length", [b"", b"content-length: 0\r\n", b"content-length: 5\r\n"])
def test_what_comes_with_a_granted_tunnel_spoils_it(length):
    reader = AnswerReader()
    reader.begin(head_only=True)
    with pytest.raises(NotAnAnswer):
        reader.feed(b"HTTP/1.1 200 Yes\r\n" + length + b"\r\nHTTP/")
    assert reader.answer is None


def lines(count: int) -> bytes:
    return b"".join(b"x%d: y\r\n" % number for number in range(count))


@pytest.mark.parametrize(
    ("fits", "one_too_many"),
    [
        (lines(HEADER_CAP), lines(HEADER_CAP + 1)),
        (b"x: " + b"y" * (HEAD_CAP - 5) + b"\r\n", b"x: " + b"y" * (HEAD_CAP - 4) + b"\r\n"),
        (lines(1) + b"xy: " + b"y" * (HEAD_CAP - 13) + b"\r\n", lines(1) + b"xy: " + b"y" * (HEAD_CAP - 12) + b"\r\n"),
    ],
    ids=["lines", "bytes", "bytes of all lines"],
)
def test_a_head_may_be_as_long_as_its_cap_and_no_longer(fits, one_too_many):
    """In pieces, so that the cap on what has come without a head does not decide."""
    for head, expected in ((fits, (False, 204)), (one_too_many, (True, None))):
        reader = AnswerReader()
        reader.feed(b"HTTP/1.1 204 No\r\n")
        reader.wire_bytes = 0
        try:
            reader.feed(head)
            reader.wire_bytes = 0
            reader.feed(b"\r\n")
            refused = False
        except NotAnAnswer:
            refused = True
        assert (refused, reader.answer and reader.answer.status) == expected


@pytest.mark.parametrize(("interims", "status"), [(INTERIM_CAP, 200), (INTERIM_CAP + 1, None)])
def test_so_many_interim_answers_and_no_more(interims, status):
    answer = b"HTTP/1.1 103 Hint\r\n\r\n" * interims + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert read([answer])[1] == status


def test_a_body_of_exactly_the_cap_is_kept_whole_and_ends_the_reading():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    reader = AnswerReader()
    reader.feed(head % (READ_CAP + 1) + b"x" * (READ_CAP - 1))
    assert not reader.over
    reader.feed(b"x")
    assert (len(reader.answer.body), reader.over, reader.reusable) == (READ_CAP, True, False)


def test_a_body_in_crumbs_is_given_up_after_four_times_its_cap():
    """A chunk of one byte costs six on the wire; nobody may feed the reader for ever."""
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    crumb, fed = b"1;%s\r\nx\r\n" % (b"e" * 60), 0
    while not reader.over:
        reader.feed(crumb)
        fed += len(crumb)
        assert fed <= 4 * READ_CAP + len(crumb)
    assert len(reader.answer.body) < READ_CAP
    assert fed > 4 * READ_CAP - 2 * len(crumb)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 099 x\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n"],
)
def test_a_head_of_another_protocol_is_refused(answer):
    assert read([answer])[:2] == (True, None)


def test_a_tunnel_that_is_refused_may_say_why():
    reader = AnswerReader()
    reader.begin(head_only=True)
    reader.feed(b"HTTP/1.1 300 No\r\ncontent-length: 4\r\n\r\nbody")
    assert reader.answer.status == 300


def test_the_caps_are_those_that_are_documented():
    assert (HEAD_CAP, HEADER_CAP, INTERIM_CAP, READ_CAP) == (32_768, 128, 16, 65_536)


def test_so_many_bytes_without_a_head_and_no_more():
    """The cap holds from the first byte on, for the second answer as for the first."""
    reader = AnswerReader()
    for _ in range(2):
        reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        reader.begin()
        assert reader.wire_bytes == 0
    start = b"HTTP/1.1 200 OK\r\nx: "
    reader.feed(start + b"y" * (HEAD_CAP - len(start)))
    with pytest.raises(NotAnAnswer, match=f"longer than {HEAD_CAP} bytes"):
        reader.feed(b"y")


@pytest.mark.parametrize("name_length", [1, 2, 7])
def test_every_part_of_a_header_line_counts(name_length):
    """Two equal lines: name, colon, space, value and line end are all of the head."""
    value = b"y" * (HEAD_CAP // 2 - name_length - 4)
    line = b"x" * name_length + b": " + value
    for excess, status in ((b"", 204), (b"y", None)):
        reader = AnswerReader()
        reader.feed(b"HTTP/1.1 204 No\r\n")
        reader.wire_bytes = 0
        try:
            for part in (line + b"\r\n", line + excess + b"\r\n", b"\r\n"):
                reader.feed(part)
                reader.wire_bytes = 0
        except NotAnAnswer:
            assert status is None
        assert (reader.answer and reader.answer.status) == status


def test_the_body_is_cut_at_its_cap_whatever_the_pieces():
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"a" * (READ_CAP - 3))
    reader.feed(b"bbbbbb")
    assert bytes(reader.answer.body) == b"a" * (READ_CAP - 3) + b"bbb"


@pytest.mark.parametrize("code", [100, 102, 103, 199])
def test_every_interim_answer_is_passed_over(code):
    assert read([b"HTTP/1.1 %d Go on\r\n\r\nHTTP/1.1 204 No\r\n\r\n" % code])[:2] == (False, 204)


def test_what_is_wrong_is_said_in_the_parsers_words():
    with pytest.raises(NotAnAnswer) as refused:
        AnswerReader().feed(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert "HTTP" in str(refused.value)
    with pytest.raises(NotAnAnswer, match="https://"):
        AnswerReader().feed(b"\x15\x03\x01\x00\x02\x02\x46")
