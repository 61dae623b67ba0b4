"""Cells made of records, and the types of lifted keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, DecodeError, Profile
from altaprofiles.emulator.people import Population
from altaprofiles.tables.columns import Columns
from altaprofiles.tables.kinds import Kinds
from altaprofiles.tables.layout import CORE, JSON_TEXTS, TEXTS, check_flatten, column_names

from ..support.records import BROKEN, FULL, ODD


def row(record: bytes, *flatten: str) -> dict[str, Any]:
    """Return the cells of one record, and `mended`."""
    columns = Columns([record], flatten)
    cells: dict[str, Any] = {
        name: column[0] for name, column in zip(TEXTS, columns.texts, strict=True)
    }
    cells["object_ids"] = columns.object_ids[0]
    cells |= {name: column[0] for name, column in zip(JSON_TEXTS, columns.json_texts, strict=True)}
    cells |= {key: columns.lifted(number, "text")[0] for number, key in enumerate(flatten)}
    return {**cells, "mended": columns.mended.total}


def test_a_record_has_its_cells() -> None:
    cells = row(FULL, "plan", "since", "missing")
    extra = json.loads(cells.pop("extra"))
    assert cells == {
        "identity": "7",
        "email": "a@example.com",
        "name": "Ann",
        "phone": "4915112345678",
        "object_ids": ["d0", "d1"],
        "profile_data": b'{"plan":"gold","since":"$D_0"}',
        "events": b'{"Charged":{"count":6,"first_seen":1457962417,"last_seen":1458041276}}',
        "platform_info": b'[{"platform":"iOS","os_version":10.2,"objectId":"d1"},'
        b'{"platform":"Web"},{"objectId":"d1","phone":5},{"objectId":"d0"}]',
        "plan": "gold",
        "since": "$D_0",
        "missing": None,
        "mended": 0,
    }
    assert extra == {"objectId": "d0", "all_identities": ["7", 8, None], "badKs": ["x"], "ls": 1}


@pytest.mark.parametrize("record", [b"{}", b'{"profileData":null,"events":null,"name":null}'])
def test_missing_values_are_null(record: bytes) -> None:
    assert set(map(str, row(record, "a").values())) == {"None", "[]", "0"}


@pytest.mark.parametrize(("record", "column", "value"), ODD)
@pytest.mark.parametrize("beside", [b"{}", b'{"name":"\\ud83d"}', FULL])
def test_odd_data_makes_odd_cells(record: bytes, column: str, value: Any, beside: bytes) -> None:
    cells = row(record, "a")
    assert (cells[column], cells["mended"]) == (value, 0)
    # An odd record does not change others in its batch.
    both, alone = Columns([record, beside], ["a"]), Columns([beside], ["a"])
    assert both.object_ids[1:] == alone.object_ids
    assert [texts[1:] for texts in both.texts] == alone.texts
    assert [texts[1:] for texts in both.json_texts] == alone.json_texts


def test_half_a_surrogate_pair_is_mended_in_text_and_in_json() -> None:
    cells = row(BROKEN, "a", "b")
    assert (cells["identity"], cells["name"]) == ("\ufffd", r"fine \ud83d")
    assert (cells["a"], cells["b"]) == ("\ufffd", "x")
    assert cells["object_ids"] == ["\ufffdz"]
    assert cells["profile_data"] == rb'{"a":"\ufffd", "b":"x","\ufffd":2}'
    assert cells["events"] == rb'{"A":"\ufffd"}'
    assert cells["platform_info"] == rb'[{"objectId":"\ufffdz"}]'
    assert cells["extra"] == '{"\ufffd":1,"x":"\\ud83d\\ude00"}'.encode()
    # The top-level key, identity, and the three parts.
    assert cells["mended"] == 5


def test_equal_lists_and_objects_are_one_text_in_a_flattened_column() -> None:
    """Else counts, groups and joins by that column tell them apart."""
    values = [
        '["寿司"]', r'["\u5bff\u53f8"]', '[\n  "寿司"\n]',
        '{"name":"soup","price":1.50}', '{"price" : 1.5, "name" : "soup"}',
        # Beside one that no decoder takes, and one that is not UTF-16.
        "[" * 5000 + "]" * 5000, '[ 1e999 ]', r'["\ud83d"]', '["\ufffd" ]', "1.50", '" [ ] "',
    ]  # fmt: skip
    records = [b'{"profileData":{"a":%b}}' % value.encode() for value in values]
    food, soup, deep = '["寿司"]', '{"name":"soup","price":1.5}', values[5]
    expected = [
        food,
        food,
        food,
        soup,
        soup,
        deep,
        "[1E+999]",
        *['["\ufffd"]'] * 2,
        "1.50",
        " [ ] ",
    ]
    assert Columns(records, ["a"]).lifted(0, "text") == expected
    few = [*records[:5], *records[9:]]
    assert Columns(few, ["a"]).lifted(0, "text") == [*expected[:5], *expected[9:]]


@pytest.mark.parametrize("record", [b"", b"7", b"[]", b"{", b"{}{}", b'{"a":"\\x"}'])
def test_anything_but_an_object_is_an_error(record: bytes) -> None:
    with pytest.raises(DecodeError):
        Columns([b"{}", record], ())


def test_cells_equal_the_attributes_of_profiles() -> None:
    population = Population(500, 3)
    records = [json.dumps(population.record(n), indent=1).encode() for n in range(500)]
    columns = Columns(records, ["note", "Last Score"])
    notes, scores = columns.lifted(0, "text"), columns.lifted(1, "text")
    for number, profile in enumerate(map(Profile.decode, records)):
        assert [column[number] for column in columns.texts] == [
            profile.identity,
            profile.email,
            profile.name,
            profile.phone,
        ]
        assert columns.object_ids[number] == profile.object_ids
        assert notes[number] == profile.profile_data.get("note")
        score = profile.profile_data.get("Last Score")
        assert scores[number] == (
            score if score is None or isinstance(score, str) else json.dumps(score)
        )
        whole: dict[str, Any] = {}
        for name, column in zip(TEXTS, columns.texts, strict=True):
            if column[number] is not None:
                whole[name] = json.loads(records[number])[name]
        names = ("profileData", "events", "platformInfo")
        for name, part in zip(names, columns.json_texts, strict=False):
            if (text := part[number]) is not None:
                whole[name] = json.loads(text)
        whole |= json.loads(columns.json_texts[3][number] or b"{}")
        assert whole == json.loads(records[number])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "text"),
        (["null", None], "text"),
        (["true", "false", "null", None], "bool"),
        (["1", "-7", "9223372036854775807", "-9223372036854775808"], "int64"),
        (["1", "9223372036854775808"], "text"),
        (["1" * 5000], "text"),
        (["1.5", "-1e-7", "1E5"], "double"),
        (["1e999"], "text"),
        (["1.5", "7"], "double"),
        (["7", "1.5", "9007199254740992", "-9007199254740992"], "double"),
        (["1.5", "9007199254740993"], "text"),
        (["-9007199254740993", "1.5"], "text"),
        (["true", "1"], "text"),
        (['"1"', "1"], "text"),
        (["[]"], "text"),
        (["{}"], "text"),
        (['"x"'], "text"),
    ],
)
def test_a_key_has_the_type_that_all_its_values_have(values: list[str | None], kind: str) -> None:
    records = [
        b"{}" if value is None else b'{"profileData":{"a":%b}}' % value.encode() for value in values
    ]
    kinds = Kinds({"a": None, "never": None})
    for record in records:
        kinds.observe([record, b'{"profileData":[]}'])
    assert (kinds["a"], kinds["never"]) == (kind, "text")


@pytest.mark.parametrize(("records", "guess"), [(0, "; did you mean 'plan'?"), (1000, "")])
def test_names_are_proposed_from_the_first_records(records: int, guess: str) -> None:
    kinds = Kinds({"plam": None, "city": None})
    kinds.observe([b'{"profileData":{"city":1}}'] * records)
    kinds.observe([b'{"profileData":{"plan":2,"city":1}}'] * 2)
    assert kinds.advice() == [EMPTY.format("plam") + guess]


EMPTY = "this run brought nobody with the property {0!r}, so that it leaves the column empty"
NO_VALUE = EMPTY.replace("with the", "with a value for the")
MEMBER = "; the member {0!r} of records is in the column {1!r}"


def test_a_member_of_records_that_is_no_property_is_named_with_its_column() -> None:
    kinds = Kinds(dict.fromkeys(["ls", "objectId", "os", "plan"]))
    kinds.observe(
        [
            b'{"ls":1,"platformInfo":[{"os":"x","objectId":"o"}],"profileData":{"plan":1}}',
            rb'{"ls":1,"odd":"\ud83d","profileData":null}',
        ]
    )
    assert kinds.advice() == [
        (EMPTY + MEMBER).format("ls", "extra"),
        # Most are those of devices.
        (EMPTY + MEMBER).format("objectId", "object_ids"),
        EMPTY.format("os"),
    ]


@pytest.mark.parametrize(
    ("member", "column"),
    [
        *((column, column) for column in (*TEXTS, "events")),
        ("objectId", "object_ids"),
        ("platformInfo", "platform_info"),
        ("profileData", "profile_data"),
        ("ls", "extra"),
    ],
)
def test_the_column_that_is_named_for_a_member_has_its_values(member: str, column: str) -> None:
    record = json.dumps({member: "x"}).encode()
    (kinds := Kinds({member: None})).observe([record])
    assert repr(column) in kinds.advice()[0].partition("; ")[2]
    assert dict(zip(CORE, Columns([record], ()).core, strict=True))[column] not in ([None], [[]])


def test_a_property_that_is_spelled_like_a_member_is_proposed_as_well() -> None:
    kinds = Kinds(dict.fromkeys(["plan", "email"]))
    kinds.observe([b'{"plan":1,"email":"x","profileData":{"Plan":1,"E-mail":2}}'])
    column = "; 'email' is a column without `flatten`"
    assert kinds.advice() == [
        (EMPTY + MEMBER).format("plan", "extra") + "; or did you mean 'Plan'?",
        EMPTY.format("email") + column + "; or did you mean 'E-mail'?",
    ]


def test_a_property_without_a_value_in_anybody_is_not_proposed_for_itself() -> None:
    kinds = Kinds(dict.fromkeys(["ls", "city", "plan", "late"]))
    kinds.observe([b'{"ls":1,"profileData":{"ls":null,"city":null,"plan":null,"Plan":2}}'])
    # After those whose names are remembered.
    kinds.observe([b"{}"] * 1000 + [b'{"profileData":{"late":null}}'])
    assert kinds.advice() == [
        (NO_VALUE + MEMBER).format("ls", "extra"),
        NO_VALUE.format("city"),
        NO_VALUE.format("plan") + "; did you mean 'Plan'?",
        NO_VALUE.format("late"),
    ]


def test_types_are_found_even_in_records_with_broken_text() -> None:
    kinds = Kinds({"a": None, "é": None})
    kinds.observe([rb'{"x":"\ud83d","profileData":{"a":1,"\u00e9":true,"\udc00":2}}'])
    assert (kinds["a"], kinds["é"]) == ("int64", "bool")


@given(
    st.lists(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_a_typed_column_holds_every_value_unchanged(values: list[Any]) -> None:
    records = [json.dumps({"profileData": {"a": value}}).encode() for value in values]
    kinds = Kinds({"a": None})
    kinds.observe(records)
    found = Columns(records, ["a"]).lifted(0, kinds["a"])
    if kinds["a"] == "text":
        found = [None if text is None else json.loads(text) for text in found]
    assert found == values
    allowed: dict[str, set[type]] = {"bool": {bool}, "int64": {int}, "double": {float}}
    allowed["text"] = {bool, int, float}
    assert {type(value) for value in found if value is not None} <= allowed[kinds["a"]]


def test_lifted_columns_are_named_like_their_keys() -> None:
    assert column_names(["plan", "Email", "x y"]) == ["plan", "profile_data.Email", "x y"]


@pytest.mark.parametrize(
    "flatten",
    [
        "plan", b"plan", 7, None, {"plan"}, [""], [7], ["a", "A"], ["a", "a"], ["a\0"], ["\ud83d"],
        ["email", "profile_data.EMAIL"], ["Straße", "STRASSE"],
    ],
)  # fmt: skip
def test_anything_but_a_list_of_keys_is_refused(flatten: Any) -> None:
    with pytest.raises(ConfigurationError, match="flatten: "):
        check_flatten(flatten)


def test_a_list_of_keys_is_kept_in_order() -> None:
    assert [*check_flatten(["b", "a", "🙂"]).items()] == [("b", None), ("a", None), ("🙂", None)]
    assert check_flatten(()) == {}
