"""`Filter`: the operators and values of the vendor's query language."""

from __future__ import annotations

import copy
import pickle
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, get_args

import msgspec
import pytest

from altaprofiles import ConfigurationError, Filter
from altaprofiles.wire.filters import Operator

SHORT = {
    "gt": "greater_than",
    "gte": "greater_than_equals",
    "lt": "less_than",
    "lte": "less_than_equals",
    "not_contains": "does_not_contain",
    "not_exists": "does_not_exist",
}
ORDERING = ["greater_than", "greater_than_equals", "less_than", "less_than_equals", "gt", "lte"]
COMPARING = ["equals", "not_equals", "contains", "does_not_contain", *ORDERING]


class Tier(StrEnum):
    GOLD = "Gold"


class Size(IntEnum):
    LARGE = 3


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


def refusal(*arguments: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Filter(*arguments)
    return caught.value


@pytest.mark.parametrize("operator", get_args(Operator))
def test_a_documented_operator_stays(operator: Operator) -> None:
    value = None if "exist" in operator else 1
    assert Filter("Amount", operator, value).operator == operator


@pytest.mark.parametrize(("short", "documented"), SHORT.items())
def test_another_spelling_becomes_the_documented_one(short: Any, documented: Any) -> None:
    value = None if "exist" in documented else 1
    assert Filter("Amount", short, value) == Filter("Amount", documented, value)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("Gold", "Gold"),
        ("", ""),
        (" two blanks ", " two blanks "),
        ("a\nb\0", "a\nb\0"),
        ("Zoë 👍", "Zoë 👍"),
        (100, 100),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (2**53 + 1, 2**53 + 1),
        (99.5, 99.5),
        (100.0, 100.0),
        (True, "True"),
        (False, "False"),
        (Tier.GOLD, "Gold"),
        (Size.LARGE, 3),
        (Name("Gold"), "Gold"),
        (["Gold", "Silver"], ("Gold", "Silver")),
        (("Gold", 1, 2.5, True), ("Gold", 1, 2.5, "True")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("operator", ["equals", "not_equals", "contains", "does_not_contain"])
def test_a_value_becomes_what_json_holds(operator: Operator, value: Any, sent: Any) -> None:
    found = Filter("Customer Type", operator, value).value
    assert found == sent
    assert type(found) is type(sent)


def test_an_integer_of_another_type_is_a_number() -> None:
    """NumPy's are no subclass of int."""

    class Number:
        def __index__(self) -> int:
            return 5

    number: Any = Number()
    assert Filter("Amount", "gt", number) == Filter("Amount", "gt", 5)


def test_a_filter_is_a_plain_value() -> None:
    one = Filter("Customer Type", "equals", ["Gold", "Silver"])
    assert one == Filter("Customer Type", "equals", ("Gold", "Silver"))
    assert len({one, Filter("Customer Type", "equals", ["Gold", "Silver"])}) == 1
    # In Python, True is 1.
    assert Filter("VIP", "equals", True) != Filter("VIP", "equals", 1)
    assert Filter("VIP", "equals", True) == Filter("VIP", "equals", "True")
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
    assert copy.deepcopy(one) == copy.copy(one) == one
    with pytest.raises(AttributeError):
        one.name = "Plan"  # type: ignore[misc]
    assert msgspec.json.encode(Filter("Email", "exists")) == (
        b'{"name":"Email","operator":"exists","value":null}'
    )


@pytest.mark.parametrize(
    "operator",
    ["", " ", "is", "==", ">", "Equals", "EQUALS", "greater", "in", 1],
    ids=repr,
)
def test_an_unknown_operator_is_refused_with_those_that_are_known(operator: Any) -> None:
    error = refusal("Amount", operator, 1)
    assert str(error).startswith(f"operator: unknown operator {operator!r}; ")
    assert "; use one of equals, not_equals, contains, " in str(error)


@pytest.mark.parametrize(
    ("operator", "meant"),
    [
        ("equal", "equals"),
        ("EQUALS", "equals"),
        ("greaterthan", "greater_than"),
        ("greater-than-equals", "greater_than_equals"),
        ("doesnt_contain", "does_not_contain"),
        ("exist", "exists"),
        ("=", "equals"),
        ("==", "equals"),
        ("is", "equals"),
        ("eq", "equals"),
        ("!=", "not_equals"),
        ("<>", "not_equals"),
        ("\u2260", "not_equals"),
        ("is not", "not_equals"),
        (">", "greater_than"),
        ("GT", "greater_than"),
        ("Greater Than", "greater_than"),
        (">=", "greater_than_equals"),
        ("=>", "greater_than_equals"),
        ("\u2265", "greater_than_equals"),
        ("at least", "greater_than_equals"),
        ("<", "less_than"),
        ("<=", "less_than_equals"),
        ("\u2264", "less_than_equals"),
        ("like", "contains"),
        ("does not contain", "does_not_contain"),
        ("doesn't contain", "does_not_contain"),
        ("is null", "does_not_exist"),
        ("is not null", "exists"),
    ],
)
def test_a_misspelled_operator_gets_the_one_that_is_meant(operator: Any, meant: str) -> None:
    assert str(refusal("Amount", operator, 1)).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    "name",
    ["", " ", "\t", "a\nb", "\0", "a\x7f", "\ufeffAmount", "a\ud800", 5],
    ids=repr,
)
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    error = refusal(name, "equals", 1)
    assert str(error).startswith("name: ")
    assert repr(name) in str(error)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name: missing; write the name"),
        ((None, "equals", 1), "name: missing; write the name"),
        (("Amount",), "operator: missing; use one of equals, not_equals, contains, "),
        (("Amount", None, 5), "operator: missing; use one of equals, "),
    ],
)
def test_a_missing_argument_is_named_with_what_to_pass(
    arguments: tuple[Any, ...], words: str
) -> None:
    assert str(refusal(*arguments)).startswith(words)


@pytest.mark.parametrize(
    ("operator", "value", "words"),
    [
        ("equals", Decimal("1.5"), "got a value of type Decimal; pass float(value)"),
        ("greater_than", Decimal("1.5"), "got a value of type Decimal; pass float(value)"),
        ("equals", {"jane"}, "got a value of type set; pass a list of values"),
        ("equals", iter(["jane"]), "; pass a list of values"),
        ("equals", date(2026, 1, 1), "; pass the text or the number that the service stores"),
        ("greater_than", [100, 200], "compares numbers, got a list; give one number"),
        ("greater_than", "jane", "compares numbers, got text; give one number"),
        ("equals", {"jane": 1}, "got an object; give text, a number, or true or false"),
        ("equals", [["jane"]], "got a list; give text, a number, or true or false"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_another_type_gets_advice(operator: str, value: Any, words: str) -> None:
    message = str(refusal("Amount", operator, value))
    assert words in message
    assert "jane" not in message


@pytest.mark.parametrize("operator", COMPARING)
def test_a_missing_value_is_refused(operator: str) -> None:
    message = str(refusal("Amount", operator))
    assert message.startswith("value: missing; ")
    assert f"{SHORT.get(operator, operator)} of 'Amount'" in message


@pytest.mark.parametrize("operator", ["exists", "does_not_exist", "not_exists"])
@pytest.mark.parametrize("value", ["", "jane@example.com", 0, False, [], -1])
def test_existence_takes_no_value(operator: str, value: Any) -> None:
    error = refusal("Email", operator, value)
    assert str(error).startswith(f"value: {SHORT.get(operator, operator)} of 'Email' takes no ")
    assert error.value is value
    assert "jane" not in str(error)


@pytest.mark.parametrize("operator", ORDERING)
@pytest.mark.parametrize(
    "value", ["100", "jane@example.com", "$D_1767225600", True, [100], (1, 2), ""], ids=repr
)
def test_an_order_is_one_of_numbers(operator: str, value: Any) -> None:
    error = refusal("Amount", operator, value)
    assert f"{SHORT.get(operator, operator)} of 'Amount' compares numbers" in str(error)
    assert error.value is value
    assert "jane" not in str(error)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        2**63,
        -(2**63) - 1,
        10**5000,
        b"jane",
        bytearray(b"jane"),
        {"jane": 1},
        {"jane"},
        date(2026, 1, 1),
        Decimal("1.5"),
        object(),
        "jane\ud800",
        [],
        (),
        iter(["jane"]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("operator", ["equals", "contains"])
def test_a_value_without_a_form_in_json_is_refused(operator: str, value: Any) -> None:
    error = refusal("Customer Type", operator, value)
    assert str(error).startswith("value: ")
    assert f"{operator} of 'Customer Type'" in str(error)
    assert error.value is value
    assert "jane" not in str(error)


@pytest.mark.parametrize("item", [None, float("nan"), ["Gold"], {"a": 1}, b"Gold", "\ud800"])
def test_an_invalid_item_of_a_list_is_named_by_its_index(item: Any) -> None:
    error = refusal("Customer Type", "equals", ["Silver", item])
    assert str(error).startswith("value[1]: ")
    assert error.value is item
    assert "Silver" not in str(error)
