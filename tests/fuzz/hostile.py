"""What may come from outside: well-formed messages, and what damage makes of them."""

import json
from typing import Any

from hypothesis import strategies as st

ODD_TEXT = st.sampled_from(
    ["", "\0", "\x1b[2J", "\ud83d", "\u202e", "x" * 5000, "null", "-0", "1e999", "${HOME}", "relay:x", "../..", "\n- a"]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-(2**63), 2**63, 2**64, 10**40, -2, 4, 7, 99]),
    st.floats(),
    st.text(max_size=20),
    ODD_TEXT,
)
NAMES = st.one_of(
    st.sampled_from(["houdiniId", "status", "created", "type", "data", "orders", "total", "houdiniIds", "code"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)
ORDERS = st.fixed_dictionaries(
    {"houdiniId": st.sampled_from(["a", "b", "order-1"]), "status": st.integers(-2, 8)},
    optional={
        "created": st.sampled_from(["2026-11-22T07:04:50.123Z", "yesterday", ""]),
        "inStatus": LEAVES,
        "displayStatus": LEAVES,
        "memo": LEAVES,
    },
)


@st.composite
def damaged(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> bytes:
    """A document's JSON after a few members were changed and a few bytes were."""
    document = draw(documents)
    for _ in range(draw(st.integers(0, 2))):
        place = document
        while isinstance(place, dict) and place and draw(st.booleans()):
            name = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[name], dict):
                break
            place = place[name]
        if isinstance(place, dict):
            place[draw(NAMES)] = draw(VALUES)
    return draw(bent(json.dumps(document, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")))


@st.composite
def bent(draw: st.DrawFn, text: bytes) -> bytes:
    """Bytes cut, doubled, replaced or wrapped; mostly as they were."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 5]))):
        first = draw(st.integers(0, len(text)))
        last = min(len(text), first + draw(st.integers(0, 12)))
        match draw(st.sampled_from(["cut", "double", "replace", "insert", "nest", "end"])):
            case "cut":
                text = text[:first] + text[last:]
            case "double":
                text = text[:last] + text[first:]
            case "replace":
                text = text[:first] + draw(st.binary(max_size=6)) + text[last:]
            case "insert":
                text = text[:first] + draw(JSON_BITS) + text[first:]
            case "nest":
                depth = draw(st.sampled_from([3, 2000, 200_000]))
                text = text[:first] + b"[" * depth + text[first:last] + b"]" * depth + text[last:]
            case "end":
                text = text[:first]
    return text


JSON_BITS = st.sampled_from(
    [
        b'"\\ud83d"',
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'"a":1,',
        b"}{",
        b",,",
        b"\\u0000",
        b"//",
    ]
)
