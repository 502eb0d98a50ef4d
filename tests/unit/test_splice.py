"""Bytes in, the same bytes out: members and elements, by the fast way and by the patient one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.splice import NotSplit, decode, elements, members

LONE = rb'{"a" : "x\ud83d", "b":[1, {"c" :"\udc00"}] ,"n":1.50E+5}'


def test_values_keep_their_bytes():
    assert members(rb' { "a" : 1.0e5 , "b":{"c" : "\/\u00e9"} } ') == {"a": b"1.0e5", "b": rb'{"c" : "\/\u00e9"}'}
    assert elements(b'[ 1.50, "x" ,{"a" :1}]') == [b"1.50", b'"x"', b'{"a" :1}']
    assert (members(b"{}"), elements(b" [ ] ")) == ({}, [])


def test_a_lone_surrogate_hides_nothing():
    assert members(LONE) == {"a": rb'"x\ud83d"', "b": rb'[1, {"c" :"\udc00"}]', "n": b"1.50E+5"}
    assert elements(b"[1," + LONE + b"]") == [b"1", LONE]
    assert decode(rb'"\ud83d"') == "\ud83d"
    assert members(rb'{"a":"\ud83d","a":2}') == {"a": b"2"}
    assert members(b'{"\\ud83d" :1}') == {"\ud83d": b"1"}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[", b"{", b'{"a"}', b'{"a":}', b'{"a":1,}', b"{'a':1}", b'{"a":NaN}', b'{"a":01}', b'{"a":1}x',
        b'{"a":"\xff"}', b'{"a":"\\ud83d","b":NaN}', b'{"a":"\\ud83d"', b'{"a":"\\ud83d"}}', b'{1:"\\ud83d"}',
        b'{"a":"\\ud83d",}', b'{"a":' + b"[" * 100_000, b'{"a":"\\ud83d","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(text: bytes):
    with pytest.raises(NotSplit):
        members(text)


@pytest.mark.parametrize("text", [b"{}", b"[1,]", b"[1", b"[,]", b'["\\ud83d",]', b'["\\ud83d"]]', b'["\\ud83d" 1]'])
def test_what_is_no_array_is_refused(text: bytes):
    with pytest.raises(NotSplit):
        elements(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PADDING = st.sampled_from([None, 1, "\t"])


@given(value=st.dictionaries(st.text(), JSON, max_size=5), indent=PADDING, escaped=st.booleans())
def test_both_ways_agree(value: dict[str, object], indent: int | str | None, escaped: bool):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    with_lone = b'{"lone": "\\ud83d"' + (b"," + text.lstrip(b"{ \n\t") if value else b"}")
    try:
        plain = members(text)
    except NotSplit:
        return  # a lone surrogate that was not escaped is not UTF-8
    assert {name: json.loads(part) for name, part in plain.items()} == value
    assert members(with_lone) == {"lone": rb'"\ud83d"', **plain} or "lone" in value


@pytest.mark.parametrize("text", [b"{} x", b"{", b'{"a" 1}', b'{"a":1,}', b"{1:2}", b"", b'{"\\ud83d":1'])
def test_what_is_no_object_is_refused_by_the_slow_way_too(text: bytes) -> None:
    with pytest.raises(NotSplit):
        members(text)


@pytest.mark.parametrize("text", [b"nonsense", b"NaN", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_has_no_value(text: bytes) -> None:
    with pytest.raises(NotSplit):
        decode(text)
