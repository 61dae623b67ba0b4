"""Days as callers pass them, and as they are sent."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from altaprofiles import ConfigurationError
from altaprofiles.wire.days import check_day, check_range, day_in


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
        "2026-02-30",
        "20260230",
        "2026-13-01",
        "0000-01-01",
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


def test_a_day_and_a_second_are_not_one_range() -> None:
    with pytest.raises(ConfigurationError, match=r"^end: 1767225600 does not have the form"):
        check_range("2026-01-31", 1767225600)
    with pytest.raises(ConfigurationError, match=r"^end: 2026-01-30 is before `start`"):
        check_range("2026-01-31", "2026-01-30")
