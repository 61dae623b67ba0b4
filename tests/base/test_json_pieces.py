"""JSON in pieces: the same end and the same fault wherever a piece ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.base.json_pieces import Utf8, ValueEnd

from ..support.odd import CONTAINERS, DEEP, NUMBERS, RECORDS, STRINGS, pretty

VALUES = st.one_of(
    st.sampled_from([*NUMBERS, *STRINGS, *CONTAINERS, DEEP, "null", "true", "false"]).map(
        str.encode
    ),
    RECORDS,
    RECORDS.map(pretty),
)


def end_of(text: bytes, stops: list[int]) -> tuple[str, int]:
    """Return the result of `find` where the text arrives up to each of `stops`."""
    value = ValueEnd()
    found: Any = "more"
    for stop in [*sorted(stops), len(text)]:
        found = value.find(text[:stop], 0, stop)
        if found != "more":
            break
    return found, value.position


@given(VALUES, st.sampled_from([b",", b" ,", b"]", b"}", b"\n"]), st.lists(st.integers(0, 400)))
def test_a_value_ends_where_it_ends_however_it_arrives(
    value: bytes, behind: bytes, stops: list[int]
) -> None:
    text = value + behind + b'{"a":1}'
    assert end_of(text, [stop for stop in stops if stop < len(text)]) == ("end", len(value))


@given(VALUES, st.integers(0, 400))
def test_a_value_that_is_cut_short_has_no_end(value: bytes, kept: int) -> None:
    cut = value[: min(kept, len(value) - 1)]
    assert end_of(cut, [kept // 2] if kept // 2 < len(cut) else [])[0] == "more"


@pytest.mark.parametrize(
    "text", [b'{"a":]}', b'["a"}', b'{"a":x}', b'{"a":"\n"}', b"]", b"?", b'{"a:1,"City":2}']
)
def test_what_cannot_be_a_value_is_found_at_once(text: bytes) -> None:
    assert end_of(text, [*range(len(text))])[0] == "malformed"


@given(st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=5).map(str.encode)), max_size=8))
def test_a_fault_in_pieces_is_that_of_the_whole(pieces: list[bytes]) -> None:
    expected = None
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError as error:
        expected = str(error)
    utf8 = Utf8()
    for piece in pieces:
        utf8.feed(piece)
    utf8.end()
    assert utf8.error == expected


def test_values_are_as_python_reads_them() -> None:
    text = '[{"a":[1,"]"]},"x"] '
    _, end = json.JSONDecoder().raw_decode(text)
    assert end_of(text.encode(), [3, 9]) == ("end", end)
