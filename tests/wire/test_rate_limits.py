"""The limits that an answer states in its headers."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from altaprofiles.wire.reading import read_rate_limit

NOW = int(time.time())
DATE = formatdate(NOW, usegmt=True)
FAR = formatdate(NOW - 3 * 86_400, usegmt=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("5.0", 5),
        ("5, 100", 5),
        ("5;w=60", 5),
        ("5, 5;w=60, 100;w=3600", 5),
        ("", None),
        ("-1", None),
        ("many", None),
        ("1_0", None),
        ("\u0665", None),
        ("1e300", None),
        ("nan", None),
        ("inf", None),
        ("5 requests", None),
    ],
)
def test_a_number_of_requests_is_read_as_gateways_write_it(text: str, number: int | None) -> None:
    for name, field in (("Remaining", "remaining"), ("Limit", "limit")):
        stated = read_rate_limit({f"X-RateLimit-{name}": text})
        assert stated is not None
        assert getattr(stated[0], field) == number


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_reset_is_a_time_in_any_unit(unit: int) -> None:
    headers = {"X-RateLimit-Remaining": "0", "Date": DATE}
    headers["X-RateLimit-Reset"] = str((NOW + 90) * unit)
    stated = read_rate_limit(headers)
    assert stated is not None
    assert stated[0].reset == NOW + 90
    assert stated[1] == 90


@pytest.mark.parametrize("text", ["90", "90, 3600", "90;w=60"])
def test_a_reset_is_a_number_of_seconds(text: str) -> None:
    stated = read_rate_limit(
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": text, "Date": DATE}
    )
    assert stated is not None
    assert stated[0].reset == NOW + 90
    assert stated[1] == 90


def test_a_reset_without_a_meaning_is_ignored() -> None:
    for text in ("1e300", "1_0", "soon", "-5", ""):
        stated = read_rate_limit({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": text})
        assert stated is not None
        assert (stated[0].reset, stated[1]) == (None, None)


def test_the_clock_of_a_server_that_is_wrong_is_used_for_its_own_times() -> None:
    headers = {"X-RateLimit-Remaining": "0", "Date": FAR}
    headers["X-RateLimit-Reset"] = str(NOW - 3 * 86_400 + 90)
    stated = read_rate_limit(headers)
    assert stated is not None
    assert stated[1] == 90


def test_the_date_of_a_cache_is_not_used() -> None:
    headers = {"X-RateLimit-Remaining": "0", "Date": FAR, "X-RateLimit-Reset": str(NOW + 80_000)}
    stated = read_rate_limit(headers)
    assert stated is not None
    assert stated[1] is not None
    assert stated[1] <= 80_000
