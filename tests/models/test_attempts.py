"""Counters of requests as text."""

from __future__ import annotations

from altaprofiles import Stats


def test_stats_are_one_line_for_a_person() -> None:
    assert str(Stats()) == "0 requests, 0 retries, 0 bytes"
    few = Stats(requests=1, retries=1, unsent=1, bytes=5_100_000)
    assert str(few) == "1 request, 1 retry, 1 call not sent, 5.1 MB"
    many = Stats(requests=1234, retries=56, throttles=7, not_ready=8, unsent=9, bytes=10)
    assert str(many) == (
        "1,234 requests, 56 retries, 7 throttled, 8 not ready, 9 calls not sent, 10 bytes"
    )
    assert repr(few).startswith("Stats(requests=1, retries=1, ")
