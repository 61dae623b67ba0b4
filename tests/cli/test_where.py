"""The grammar of `--where` and `--profile-where`."""

from __future__ import annotations

from typing import Any

import pytest

from altaprofiles import ConfigurationError
from altaprofiles.cli.where import GrammarError, parse_filter


@pytest.mark.parametrize(
    ("text", "name", "operator", "value"),
    [
        # each operator
        ("Customer Type = Gold", "Customer Type", "equals", "Gold"),
        ("Customer Type != Gold", "Customer Type", "not_equals", "Gold"),
        ("Amount > 100", "Amount", "greater_than", 100),
        ("Amount >= 100", "Amount", "greater_than_equals", 100),
        ("Amount < 100", "Amount", "less_than", 100),
        ("Amount <= 100", "Amount", "less_than_equals", 100),
        ("City contains Bad ", "City", "contains", "Bad"),
        ("City does not contain Bad", "City", "does_not_contain", "Bad"),
        ("Email exists", "Email", "exists", None),
        ("Email does not exist", "Email", "does_not_exist", None),
        # blanks
        ("Amount>100", "Amount", "greater_than", 100),
        ("Amount>=100", "Amount", "greater_than_equals", 100),
        ("Amount!=100", "Amount", "not_equals", 100),
        ("Customer Type=Gold", "Customer Type", "equals", "Gold"),
        ("  Amount\t>  100 \n", "Amount", "greater_than", 100),
        ("City  does  not\tcontain   New  York ", "City", "does_not_contain", "New  York"),
        ("Email  does not  exist ", "Email", "does_not_exist", None),
        # values
        ("Amount > -1.5", "Amount", "greater_than", -1.5),
        ("Amount > 1e3", "Amount", "greater_than", 1000.0),
        ("Amount = 100.0", "Amount", "equals", 100.0),
        ("Amount = 0", "Amount", "equals", 0),
        ("Amount = -0.0", "Amount", "equals", 0.0),
        ("Code contains 42", "Code", "contains", 42),
        ("VIP = true", "VIP", "equals", "True"),
        ("VIP != False", "VIP", "not_equals", "False"),
        ("VIP = TRUE", "VIP", "equals", "True"),
        ("VIP = null", "VIP", "equals", "null"),
        ("VIP = yes", "VIP", "equals", "yes"),
        # text, because JSON has no such numbers: postcodes and phones keep their zeros
        ("Postcode = 01067", "Postcode", "equals", "01067"),
        ("Phone = +4915112345678", "Phone", "equals", "+4915112345678"),
        ("Ratio = .5", "Ratio", "equals", ".5"),
        ("Ratio = 1_000", "Ratio", "equals", "1_000"),
        ("Ratio = 1,5", "Ratio", "equals", "1,5"),
        ("Ratio = 0x10", "Ratio", "equals", "0x10"),
        ("Ratio = NaN", "Ratio", "equals", "NaN"),
        ("Ratio = Infinity", "Ratio", "equals", "Infinity"),
        ("Ratio = ١٢", "Ratio", "equals", "١٢"),
        # JSON text
        ('"a = b" = "x > y"', "a = b", "equals", "x > y"),
        ('"Amount">100', "Amount", "greater_than", 100),
        ('"Amount"  contains  x', "Amount", "contains", "x"),
        ('"Email" exists', "Email", "exists", None),
        ('"Email"does not exist', "Email", "does_not_exist", None),
        ('ID = "100"', "ID", "equals", "100"),
        ('VIP = "true"', "VIP", "equals", "true"),
        ('Note = ""', "Note", "equals", ""),
        ('Note = " two blanks "', "Note", "equals", " two blanks "),
        (r'Note = "5\" \u00e9"', "Note", "equals", '5" é'),
        (r'"a\"b" = 1', 'a"b', "equals", 1),
        ('"City contains" exists', "City contains", "exists", None),
        # the first operator counts
        ("Note = a = b", "Note", "equals", "a = b"),
        ("Note contains a = b", "Note", "contains", "a = b"),
        ("Note contains contains", "Note", "contains", "contains"),
        ("Note = it contains salt", "Note", "equals", "it contains salt"),
        ("Note contains = 5", "Note", "contains", "= 5"),
        ("Note = 5 > 4", "Note", "equals", "5 > 4"),
        ("Email exists flag = yes", "Email exists flag", "equals", "yes"),
        ("contains = x", "contains", "equals", "x"),
        ("exists = x", "exists", "equals", "x"),
        ("exists exists", "exists", "exists", None),
        ("contained = x", "contained", "equals", "x"),
        ("Notexists = x", "Notexists", "equals", "x"),
        ("It contains_not = x", "It contains_not", "equals", "x"),
        ("Note = ~x", "Note", "equals", "~x"),
        ("Note = !x", "Note", "equals", "!x"),
        ("!x = 5", "!x", "equals", 5),
        ('5" screen = yes', '5" screen', "equals", "yes"),
        ('Note = a "b"', "Note", "equals", 'a "b"'),
        ("Note = [1]", "Note", "equals", "[1]"),
    ],
)
def test_a_condition_is_a_filter(text: str, name: str, operator: str, value: Any) -> None:
    found = parse_filter(text)
    assert (found.name, found.operator, found.value) == (name, operator, value)
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no name"),
        ("  ", "no name"),
        ("Customer Type = 'Gold'", "in quotation marks that JSON does not have"),
        ("Customer Type != \u2018Gold\u2019", "in quotation marks that JSON does not have"),
        ("Customer Type = \u201cGold\u201d", "in quotation marks that JSON does not have"),
        ("'Customer Type' = Gold", "the name is in quotation marks"),
        ("`Customer Type` exists", "the name is in quotation marks"),
        ("Amount", "no operator"),
        ("Amount 100", "no operator"),
        ("Email exist", "no operator"),
        ("Email exists yes", "no operator"),
        ("City Contains Bad", "no operator"),
        ("Cityexists", "no operator"),
        ("Amount is 100", "no operator"),
        ("> 100", "no name"),
        ("=", "no name"),
        ("contains x", "no name"),
        ("exists", "no name"),
        ("does not exist", "no name"),
        ("does not contain x", "no name"),
        ("Amount >", "no value behind >"),
        ("Amount >= ", "no value behind >="),
        ("City contains", "no value behind contains"),
        ("City does not contain  ", "no value behind does not contain"),
        ("Amount == 100", "two operators"),
        ("Amount === 100", "two operators"),
        ("Amount > = 100", "two operators"),
        ("Amount => 100", "two operators"),
        ("Amount =< 100", "two operators"),
        ("Amount <> 100", "two operators"),
        ("Amount >> 100", "two operators"),
        ("Amount >== 100", "two operators"),
        ("City =~ Bad", "two operators"),
        ("City =! Bad", "two operators"),
        ("City ! = Bad", "a part of an operator"),
        ("City not = Bad", "a part of an operator"),
        ("City is not = Bad", "a part of an operator"),
        ("City not contains Bad", "a part of an operator"),
        ("City does not contains Bad", "a part of an operator"),
        ("City doesn't contains Bad", "a part of an operator"),
        ("Email not exists", "a part of an operator"),
        ("Email does not exists", "a part of an operator"),
        ("Email does exists", "a part of an operator"),
        ('"Amount', "the name is not JSON text"),
        ('"Amount > 100', "the name is not JSON text"),
        ('"a\nb" > 100', "the name is not JSON text"),
        ('"Amount" 100', "no operator behind the name"),
        ('"Amount"', "no operator behind the name"),
        ('"Amount" is > 100', "no operator behind the name"),
        ('"Email" exists yes', "exists takes no value"),
        ('"Email" does not exist yes', "does not exist takes no value"),
        ('Note = "a', "is not JSON text"),
        ('Note = "a" b', "is not JSON text"),
        (r'Note = "\x"', "is not JSON text"),
    ],
)
def test_another_text_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    assert words in str(caught.value)
    assert "write '" in str(caught.value) or "write NAME OP VALUE such as '" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Email jane@example.com",
        "Email == jane@example.com",
        "Email > jane@example.com",
        "Email exists jane@example.com",
        '"Email jane@example.com',
        '"Email" jane@example.com',
        '"Email" exists jane@example.com',
        'Email = "jane@example.com',
        'Email > "jane@example.com"',
        "= jane@example.com",
    ],
)
def test_a_value_is_not_in_the_message(text: str) -> None:
    with pytest.raises((GrammarError, ConfigurationError)) as caught:
        parse_filter(text)
    assert "jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Amount > Gold", "greater_than of 'Amount' compares numbers"),
        ("Amount > true", "greater_than of 'Amount' compares numbers"),
        ('Amount <= "100"', "less_than_equals of 'Amount' compares numbers"),
        ("Amount > +5", "greater_than of 'Amount' compares numbers"),
        ("Amount > 1e999", "not finite"),
        ("ID = 9223372036854775808", "64 bits"),
        ("ID = " + "9" * 5000, "64 bits"),
        ("ID = -" + "9" * 5000, "64 bits"),
        ('"" = x', "name: empty"),
        ('" " exists', "name: empty"),
        ('"a\\nb" = x', "name: holds the control character"),
        ('Note = "\\ud800"', "surrogate"),
        ("Note = \udce9", "surrogate"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_as_in_the_library(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_filter(text)
    assert words in str(caught.value)
