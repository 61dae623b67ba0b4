"""JSON that decoders refuse: deep, out of range, or with half a surrogate pair."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import partial
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import DecodeError
from altaprofiles.base.jsontext import (
    canonical,
    compact,
    decode_mended,
    elements,
    is_equal,
    members,
    one_line,
    parts,
    plain_text,
)

from ..support.odd import PARTS, pretty

ANY = msgspec.json.Decoder(Any)


def nested(levels: int, inside: bytes) -> bytes:
    """Return lists and objects in turn around `inside`."""
    opening = b'[{"a":' * (levels // 2)
    return opening + inside + b"}]" * (levels // 2)


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_each_part_of_deep_json_is_as_it_was_sent(levels: int) -> None:
    deep = nested(levels, rb'"] \ud800 \" }"')
    data = b'{"a":1, "d": %b ,"b":[%b,{}, %b]}' % (deep, deep, deep)
    found = {key: bytes(value) for key, value in parts(data).items()}
    assert found == {"a": b"1", "d": deep, "b": b"[%b,{}, %b]" % (deep, deep)}
    assert [*map(bytes, elements(found["b"]))] == [deep, b"{}", deep]
    assert [(key, bytes(value)) for key, value in members(data)] == [
        (b'"a"', b"1"),
        (b'"d"', deep),
        (b'"b"', found["b"]),
    ]


BAD = [
    b"1,", b",1", b"1 2", b"NaN", b"-Infinity", b"01", b"1.", b".5", b"+1", b"tru", b"'a'", b'"a',
    b'"\x01"', rb'"\x"', rb'"\ud8"', b"[", b"]", b"}", b"[}", b"{]", b'{"a"}', b'{"a":}', b"{1:2}",
    b'{"a":1,}', b"[1,]", b"[,1]", b"{a:1}", b'{"a":1 "b":2}', b"[] []", b"[]1", b'{"a":[]"b":1}',
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("levels", [900, 1000, 5000])
def test_deep_json_is_checked_to_its_ground(bad: bytes, levels: int) -> None:
    for inside in (bad, b"[[0]," + bad + b"]", b"[" + bad + b",[0]]"):
        with pytest.raises(DecodeError):
            parts(b'{"a":%b}' % nested(levels, inside))


@pytest.mark.parametrize("levels", [64, 66, 1000])
def test_deep_json_cut_anywhere_is_an_error(levels: int) -> None:
    whole = b' {"a":%b,"b":[1,{"c":"x"}]} ' % nested(levels, b"[true]")
    assert len(parts(whole)) == 2
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(DecodeError):
            parts(whole[:end])
    for more in (b"}", b"]", b"0", b","):
        with pytest.raises(DecodeError):
            parts(whole + more)


JSON = st.recursive(
    st.sampled_from(["1", "-0.5e-3", '"a,]}"', r'"\"[{"', "null", "true", '""']),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda all_: f"[{' , '.join(all_)}]")
        | st.lists(inner, max_size=4).map(
            lambda all_: "{" + ",".join(f'"k{n}" : {value}' for n, value in enumerate(all_)) + "}"
        )
    ),
    max_leaves=30,
)


@given(
    inside=JSON,
    cut=st.integers(0, 200),
    put=st.sampled_from(["", "]", "}", ",", "1", '"', "[", "{", ":"]),
)
def test_deep_json_is_valid_exactly_if_it_is_when_it_is_flat(
    inside: str, cut: int, put: str
) -> None:
    changed = (inside[:cut] + put + inside[cut:]).encode()
    try:
        json.loads(b"[" + changed + b"]")
        valid = True
    except ValueError:
        valid = False
    # Deeper than the limit of recursion that hypothesis sets.
    deep = b"[" * 20_000 + changed + b"]" * 20_000
    try:
        _, mended = decode_mended(ANY, deep, "$")
    except DecodeError:
        assert not valid
    else:
        assert valid
        assert mended is not None
        assert len(mended) == len(deep)


@given(PARTS)
def test_one_line_means_the_same_and_has_each_token_as_sent(part: str) -> None:
    data = f"[{part}]".encode()
    assert compact(data) == compact(pretty(data)) == one_line(pretty(data)) == data
    assert one_line(b' { "a" : 1 }') == b' { "a" : 1 }'


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("9.19876543210E11", "919876543210"),
        ("9.1987654321E10", "91987654321"),
        ("1.0", "1"),
        ("-1.0", "-1"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("0e999999999999", "0"),
        ("1500e-2", "15"),
        ("1e0000000000001", "10"),
        ("0.00" + "0" * 200 + "7e+203", "7"),
        ("15e-1", "15e-1"),
        ("9007199254740993.0", "9007199254740993"),
        ("9.007199254740993e15", "9007199254740993"),
        ("1e99", "1" + "0" * 99),
        ("1e100", "1e100"),
        ("1e1000000", "1e1000000"),
        ("1e" + "9" * 5000, "1e" + "9" * 5000),
        ("1" * 5000, "1" * 5000),
        ("1.50", "1.50"),
        ('"1.0"', "1.0"),
        ("true", "true"),
        ("null", None),
        ("[ 1.0, \n2 ]", "[1.0,2]"),
    ],
)
def test_a_whole_number_is_its_integer_and_other_json_stays(sent: str, text: str | None) -> None:
    assert plain_text(sent.encode(), whole=True) == text


def test_without_whole_a_number_stays_as_it_was_sent() -> None:
    assert [plain_text(sent) for sent in (b"1.0", b"9.1E3", b"7")] == ["1.0", "9.1E3", "7"]


ALIKE = [
    # White space, escapes, and the order of members.
    ('["寿司"]', r'["\u5bff\u53f8"]', '[ "寿\\u53f8"\n]'),
    ('{"a":1,"b":{"c":"/","d":[]}}', r'{"b" : {"d":[ ],"c":"\/"}, "a":1}',
     r'{"\u0061":1,"b":{"c":"\u002f","d":[]}}'),
    # Numbers, exactly.
    ("[100,-5,0]", "[1e2,-5.0,-0]", "[100.0,-0.5E1,0e9]"),
    ("[12.5,1e-05]", "[12.50,0.00001]", "[125e-1,1.0E-5]"),
    ("[9007199254740993,123456789012345678901234567890]",
     "[9007199254740993.0,1.2345678901234567890123456789E29]"),
    ("[0.1]", "[0.10]"),
    ("[0.1000000000000000000001]", "[0.10000000000000000000010]", "[1000000000000000000001e-22]"),
    ("[1E+400,1E-400]", "[10e399,0.1e-399]"),
    ("[1E+309,-1E+5000]", f"[1{'0' * 309},-1{'0' * 5000}]", f"[1{'0' * 310}e-1,-10.0e4999]"),
    (f'{{"a":[1e+150],"z":"{"1" * 101}"}}', f'{{"z":"{"1" * 101}","a":[1{"0" * 150}]}}'),
    (f'{{"a":2,"n":{"9" * 4301},"z":1}}', f'{{"z":1,"n":{"9" * 4301}.0,"a":2}}'),
    ("[1E+9999999999999999999999]", "[10e9999999999999999999998]"),
    # Half a surrogate pair, a NUL.
    ('["\ufffd"]', r'["\ud83d"]', r'["\ufffd"]'),
    (r'["\u0000"]', r'[ "\u0000" ]'),
]  # fmt: skip


@pytest.mark.parametrize("texts", ALIKE, ids=[texts[0][:30] for texts in ALIKE])
def test_equal_values_have_one_canonical_text(texts: tuple[str, ...]) -> None:
    assert {canonical(text.encode()).decode() for text in texts} == {texts[0]}


def test_different_numbers_have_different_canonical_texts() -> None:
    sent = ["0.1", "0.1000000000000000055511151231257827", "9007199254740993", "9007199254740992",
            "1e400", "1e401", "1e-400", "0", "1e999999999999999999999", "1" * 5000]  # fmt: skip
    assert len({canonical(b"[%b]" % number.encode()) for number in sent}) == len(sent)


def test_texts_are_equal_if_their_canonical_texts_are() -> None:
    numbers = [
        ["9007199254740993", "9007199254740993.0", "9007199254740993e0"],
        ["18446744073709551617", "1.8446744073709551617e19"],
        ["1e999999999999999999999", "10e999999999999999999998"],
        ["1e400", "1E+400"],
        ["1e401"],
        ["1" * 5000, "1" * 5000 + "e0"],
        ["true"],
        ["1", "1.0"],
    ]
    texts = [text for each in [*ALIKE, *numbers] for text in each]
    for one, other in product([text.encode() for text in texts], repeat=2):
        assert is_equal(one, other) == (canonical(one) == canonical(other)), (one, other)
    assert all(is_equal(each[0].encode(), text.encode()) for each in numbers for text in each)
    for wrong in (b"", b"{", rb'["\ud800', b"\xff"):
        assert not is_equal(wrong, b'{"a":1}')


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_canonical_text_too_deep_for_a_decoder_has_no_white_space(levels: int) -> None:
    deep = nested(levels, rb'" \ud800 "')
    assert canonical(deep.replace(b":", b" : ")) == deep.replace(rb"\ud800", rb"\ufffd")


def test_canonical_text_is_sorted_down_to_a_fixed_depth() -> None:
    def at_depth(frames: int, data: bytes) -> bytes:
        return at_depth(frames - 1, data) if frames else canonical(data)

    for brackets, levels in [("[]", 63), ("[]", 64), ("[]", 900), ("{}", 63)]:
        inner = brackets[0] * levels if brackets == "[]" else '{"k":' * levels + "1"
        sent = f'{{"z": "[{{", "a":{inner}{brackets[1] * levels}}}'.encode()
        texts = {at_depth(frames, sent) for frames in (0, 60)}
        start = b'{"a":' if levels == 63 else b'{"z":"[{"'
        assert len(texts) == 1
        assert texts.pop().startswith(start), levels
    wide = b'{"z":[%b],"a":1}' % b",".join([b'{"b":[],"a":"]"}'] * 100)
    assert canonical(wide).startswith(b'{"a":1,"z":[{"a":"]","b":[]}')


def test_no_member_is_lost_whose_name_differs_in_a_lone_surrogate() -> None:
    sent = rb'{"n":[{"\udfff":1 ,"\ud800":2}]}'
    assert json.loads(canonical(sent), object_pairs_hook=list)[0][1] == [
        [("\ufffd", 1), ("\ufffd", 2)]
    ]
    assert canonical(rb'{"z":"\ud800", "a":1, "a":2}') == '{"a":2,"z":"\ufffd"}'.encode()


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("aé\"\\0"), inner),
))  # fmt: skip
def test_canonical_text_means_the_same_however_it_was_sent(value: Any) -> None:
    texts = [json.dumps([value]), json.dumps([value], indent=1, ensure_ascii=False)]
    first, second = (canonical(text.encode()) for text in texts)
    assert first == second == canonical(first)
    exact = partial(json.loads, parse_int=Decimal, parse_float=Decimal)
    assert exact(first) == exact(texts[0])
