"""Days as callers pass them, and as they are sent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, InvalidArgument, windows
from altaprofiles.wire.days import check_day, check_range, date_of, day_in


class Text(str):
    """Text of a class of its own, such as NumPy's."""

    __slots__ = ()


@pytest.mark.parametrize(
    "day",
    [
        date(2026, 1, 31),
        20260131,
        "2026-01-31",
        # Airflow's `ds_nodash`.
        "20260131",
        Text("2026-01-31"),
    ],
)
def test_forms_of_a_day(day: Any) -> None:
    assert check_day("start", day) == 20260131
    assert check_range(day, "2026-02-01") == (20260131, 20260201)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "2026",
        "2026-01",
        "2026-1-31",
        "2026-W02",
        "2026-W02-1",
        "2026W021",
        "2026-031",
        "2026031",
        "26-01-31",
        "260131",
        "31.01.2026",
        "01/31/2026",
        " 2026-01-31",
        "2026-01-31 ",
        "2026-01-31\n",
        "2026 01 31",
        "2026_01_31",
        "2026-01-31T00:00",
        "2026-01-31T00:00:00Z",
        "+2026-01-31",
        "-2026-01-31",
        "02026-01-31",
        "2026-13-01",
        "20261301",
        "2026-11-00",
        "0000-01-01",
        "0000-01-32",
        "00000000",
        "٢٠٢٦-٠١-٣١",  # noqa: RUF001
        "２０２６０１３１",  # noqa: RUF001
        "2026‐01‐31",  # noqa: RUF001
        "1767225600",
        "today",
        "yesterday",
        "-7d",
    ],
)
def test_other_text_is_not_a_day(text: str) -> None:
    assert day_in(text) is None
    with pytest.raises(ConfigurationError) as caught:
        check_day("start", text)
    message = str(caught.value)
    assert message.startswith("start: ")
    assert repr(text) in message
    assert "'2026-01-31'" in message


@pytest.mark.parametrize(
    ("day", "length"),
    [
        ("2026-11-31", "2026-11 has 30 days"),
        ("20261131", "2026-11 has 30 days"),
        (20261131, "2026-11 has 30 days"),
        ("2026-01-32", "2026-01 has 31 days"),
        ("2026-02-29", "2026-02 has 28 days"),
        ("2028-02-30", "2028-02 has 29 days"),
        ("2026-11-31T02:00:00Z", "2026-11 has 30 days"),
        ("2026-11-31 02:00", "2026-11 has 30 days"),
        ("0999-11-31", "0999-11 has 30 days"),
    ],
)
def test_a_day_past_its_month_is_refused_with_the_length_of_that(
    day: int | str, length: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_day("start", day)
    assert str(caught.value) == f"start: {day!r} is not a day: {length}"


@pytest.mark.parametrize(
    ("number", "day"),
    [
        (46327, "2026-11-01"),
        ("46327", "2026-11-01"),
        (46023, "2026-01-01"),
        (36526, "2000-01-01"),
        ("73050", "2099-12-31"),
    ],
)
def test_a_number_of_excel_is_shown_as_its_day(number: int | str, day: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_day("start", number)
    assert str(caught.value).startswith(f"start: {number!r} is Excel's number of {day}; pass ")


@pytest.mark.parametrize("number", [36525, 73051, 4632, 463270])
def test_other_numbers_are_not_taken_for_those_of_excel(number: int) -> None:
    with pytest.raises(InvalidArgument, match="has neither 8 nor 10 digits"):
        check_day("start", number)


def test_a_day_and_a_second_are_not_one_range() -> None:
    with pytest.raises(ConfigurationError, match=r"^end: 1767225600 does not have the form"):
        check_range("2026-01-31", 1767225600)
    with pytest.raises(ConfigurationError, match=r"^end: 2026-01-30 is before `start`"):
        check_range("2026-01-31", "2026-01-30")


@pytest.mark.parametrize(
    ("start", "end", "n", "expected"),
    [
        (date(2026, 1, 1), date(2026, 1, 31), 1, [(20260101, 20260131)]),
        ("2026-01-01", 20260104, 2, [(20260101, 20260102), (20260103, 20260104)]),
        ("20260131", "2026-02-01", 9, [(20260131, 20260131), (20260201, 20260201)]),
        (20240228, 20240301, 2, [(20240228, 20240228), (20240229, 20240301)]),
        (20260101, 20260101, 10**30, [(20260101, 20260101)]),
        (
            1767225600,
            1767225609,
            2,
            [(1767225600, 1767225604), (1767225605, 1767225609)],
        ),
        (1767225600, 1767225600, 5, [(1767225600, 1767225600)]),
    ],
)
def test_windows(start: Any, end: Any, n: int, expected: list[tuple[int, int]]) -> None:
    assert windows(start, end, n) == expected


@given(
    st.dates(date(1000, 1, 1)), st.integers(0, 800), st.integers(1, 900), st.sampled_from([0, 1, 2])
)
def test_windows_hold_each_day_once(start: date, days: int, n: int, form: int) -> None:
    end = min(start.toordinal() + days, date.max.toordinal())
    span = end - start.toordinal() + 1
    forms = (lambda day: day, date.isoformat, lambda day: int(day.isoformat().replace("-", "")))
    parts = windows(forms[form](start), forms[form](date.fromordinal(end)), n)
    assert len(parts) == min(n, span)
    lengths = []
    following = start.toordinal()
    for first, last in parts:
        assert date_of(first).toordinal() == following
        following = date_of(last).toordinal() + 1
        lengths.append(following - date_of(first).toordinal())
    assert following == end + 1
    assert max(lengths) - min(lengths) <= 1
    # Each is a range as calls take it.
    assert [check_range(*part) for part in parts] == parts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((20260101, 20260131, 0), "n: expected a whole number of at least 1, got 0"),
        ((20260101, 20260131, True), "n: expected a whole number of at least 1, got True"),
        ((20260101, 20260131, 2.0), "n: expected a whole number of at least 1, got 2.0"),
        ((20260101, 20260131, "auto"), "n: expected a whole number of at least 1, got 'auto'"),
        ((20260131, 20260101, 2), "end: 20260101 is before `start`"),
        ((20260131, 1767225600, 2), "end: 1767225600 does not have the form of `start`"),
        ((datetime(2026, 1, 1, tzinfo=UTC), 20260101, 2), "start: got the datetime "),
        ((20260101, "soon", 2), "end: 'soon' is not a day"),
        (("1767225600", 20260131, 2), "start: '1767225600' is text, and epoch seconds are an int"),
        ((1767225600, "1769904000", 2), "end: '1769904000' is text, and epoch seconds are an int"),
        ((None, None, 2), "start: got the NoneType None"),
        ((date(999, 12, 1), date(999, 12, 31), 2), "start: 0999-12-01 is before the year 1000"),
        ((20260101, "0999-12-31", 2), "end: 0999-12-31 is before the year 1000"),
    ],
)
def test_windows_refuse_what_is_no_range(arguments: Any, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        windows(*arguments)
    assert str(caught.value).startswith(words)
