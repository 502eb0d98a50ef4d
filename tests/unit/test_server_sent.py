"""Server-sent events, read line by line; whatever is none of ours is a ValueError."""

import pytest

from relay.admin.server_sent import MOST_LINES, StreamReader, Told


def read(*lines: str) -> list[Told]:
    reader = StreamReader()
    return [told for told in map(reader.read, lines) if told is not None]


def test_an_event():
    assert read("id: a-1", "event: attempt", 'data: {"n": 1}', "") == [Told("a-1", "attempt", {"n": 1})]


def test_an_id_holds_until_the_next_one():
    found = read("retry: 3000", "id: a-1", "", 'data: {"n": 1}', "event:x", "", ": still here", "id: a-2", "")
    assert found == [Told("a-1", "", None), Told("a-1", "x", {"n": 1}), Told("a-2", "", None)]


@pytest.mark.parametrize("data", ["", "{", "[]", "1", '"text"', "[" * 100_000])
def test_data_that_is_no_object_is_refused(data: str):
    with pytest.raises(ValueError, match=r"JSON|object|Expecting|recursion"):
        read(f"data: {data}", "")


def test_an_endless_event_is_refused():
    with pytest.raises(ValueError, match="too many"):
        read(*[f"x{number}: y" for number in range(MOST_LINES + 1)])
