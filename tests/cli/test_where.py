"""The grammar of `--where` and `--profile-where`."""

from __future__ import annotations

from typing import Any

import pytest

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
        ("City ! = Bad", "! = is not an operator"),
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
    ("text", "meant"),
    [
        ("Amount == 100", "="),
        ("Amount === 100", "="),
        ("Amount := 100", "="),
        ("Amount equals 100", "="),
        ("Amount Equals 100", "="),
        ("Amount is 100", "="),
        ("Amount is equal to 100", "="),
        ("Amount eq 100", "="),
        ('"Amount" is 100', "="),
        ("Amount is = 100", "="),
        ("Amount equals a = b", "="),
        ("Amount <> 100", "!="),
        ("Amount \u2260 100", "!="),
        ("Amount ! = 100", "!="),
        ("Amount is not 100", "!="),
        ("Amount not_equals 100", "!="),
        ("Amount isn't 100", "!="),
        ("Amount gt 100", ">"),
        ("Amount GT 100", ">"),
        ("Amount greater than 100", ">"),
        ("Amount greater_than 100", ">"),
        ("Amount is greater than 100", ">"),
        ("Amount is more than 100", ">"),
        ("Amount is > 100", ">"),
        ('"Amount" is > 100', ">"),
        ("Amount => 100", ">="),
        ("Amount > = 100", ">="),
        ("Amount \u2265 100", ">="),
        ("Amount\u2265100", ">="),
        ("Amount gte 100", ">="),
        ("Amount at least 100", ">="),
        ("Amount greater than or equal to 100", ">="),
        ("Amount lt 100", "<"),
        ("Amount less than 100", "<"),
        ("Amount =< 100", "<="),
        ("Amount \u2264 100", "<="),
        ("Amount at most 100", "<="),
        ("City Contains Bad", "contains"),
        ("City CONTAINS Bad", "contains"),
        ("City contain Bad", "contains"),
        ("City contians Bad", "contains"),
        ("City like Bad", "contains"),
        ("City =~ Bad", "contains"),
        ("City ~ Bad", "contains"),
        ("City DOES NOT CONTAIN Bad", "does not contain"),
        ("City not contains Bad", "does not contain"),
        ("City does not contains Bad", "does not contain"),
        ("City does_not_contain Bad", "does not contain"),
        ("City doesn't contain Bad", "does not contain"),
        ("City !~ Bad", "does not contain"),
        ("Email EXISTS", "exists"),
        ("Email exist", "exists"),
        ("Email exsits", "exists"),
        ("Email is set", "exists"),
        ("Email is not null", "exists"),
        ("Email DOES NOT EXIST", "does not exist"),
        ("Email not exists", "does not exist"),
        ("Email does not exists", "does not exist"),
        ("Email doesn't exist", "does not exist"),
        ("Email is null", "does not exist"),
    ],
)
def test_another_spelling_of_an_operator_gets_the_one_that_is_meant(text: str, meant: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    assert f"did you mean {meant}? write NAME OP VALUE such as '" in str(caught.value)
    assert f" {meant}" in str(caught.value).partition("such as")[2].partition(",")[0]


@pytest.mark.parametrize(
    "text", ["Amount", "Amount 100", "Amount == 100", "Email EXISTS", "> 100", '"Amount" 100']
)
def test_the_advice_holds_every_operator(text: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    every = "=, !=, >, >=, <, <=, contains, does not contain; or 'Email exists', "
    assert f"{every}'Email does not exist'" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Amount > 100 and City = Berlin",
        "Amount > 100 AND Amount < 500",
        "Amount > 100 and < 500",
        "City = Berlin and Amount > 100",
        "City = Berlin or City = York",
        "City = Berlin && Amount > 100",
        "City = Berlin, Amount > 100",
        "City contains Berlin and Email exists",
        "Email exists and Amount > 100",
        "Email does not exist or Amount > 100",
    ],
)
def test_two_conditions_are_two_options(text: str) -> None:
    with pytest.raises(GrammarError, match="pass the option once for each, and all must hold"):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Note = Tom and Jerry", "Tom and Jerry"),
        ("Note = red, green, blue", "red, green, blue"),
        ('Note = "a = b and c = d"', "a = b and c = d"),
        ("Note contains 1,000", "1,000"),
        ('Note = "1,000"', "1,000"),
        ("Phone = 0151 123 456", "0151 123 456"),
    ],
)
def test_a_value_with_such_words_is_still_a_value(text: str, value: str) -> None:
    assert parse_filter(text).value == value


@pytest.mark.parametrize("text", ["Amount > 1,000", "Amount = 1,000", "Amount <= -1,234,567.5"])
def test_a_number_with_separators_is_refused(text: str) -> None:
    with pytest.raises(GrammarError, match=r"separators between its digits; .* 1000'"):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Amount between 1 and 5", "there is no 'between'; write two conditions"),
        ("Type in (a, b)", "a list of values in the file of --query"),
        ("100 < Amount", "the name stands in front"),
    ],
)
def test_forms_of_other_languages_get_advice(text: str, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    assert words in str(caught.value)


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
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    assert "jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Amount > Gold", "> compares numbers"),
        ("Amount > true", "> compares numbers"),
        ('Amount <= "100"', "<= compares numbers"),
        ("Amount > +5", "> compares numbers"),
        ("Amount > 1e999", "not finite"),
        ("ID = 9223372036854775808", "64 bits"),
        ("ID = " + "9" * 5000, "64 bits"),
        ("ID = -" + "9" * 5000, "64 bits"),
        ('"" = x', "the name is empty"),
        ('" " exists', "the name is empty"),
        ('"a\\nb" = x', "the name holds a control character"),
        ('"a\\ud800" = x', "or one that is not UTF-8"),
        ('Note = "\\ud800"', "surrogate"),
        ("Note = \udce9", "not UTF-8"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_in_words_of_the_grammar(text: str, words: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse_filter(text)
    message = str(caught.value)
    assert words in message
    for word in ("greater_than", "type str", "an int", "value:", "operator:"):
        assert word not in message
