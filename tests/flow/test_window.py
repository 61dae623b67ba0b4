"""Results in order again, and the bounds of those that wait."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.flow.window import MOST, MOST_BYTES, Window


@given(st.permutations(range(30)))
def test_results_leave_in_the_order_of_their_numbers(numbers: list[int]) -> None:
    window: Window[int] = Window(lambda result: result)
    taken: list[int] = []
    for arrived, number in enumerate(numbers, start=1):
        window.put(number, number)
        while window.is_due:
            taken.append(window.take())
        missing = set(range(30)) - set(numbers[:arrived])
        assert taken == list(range(min(missing, default=30)))


@pytest.mark.parametrize(
    ("size", "fits"), [(0, MOST), (1, MOST), (MOST_BYTES // 100, 101), (2 * MOST_BYTES, 1)]
)
def test_a_full_window_allows_no_more_until_the_late_result_is_there(size: int, fits: int) -> None:
    window: Window[int] = Window(lambda result: size)
    allowed = 0
    for number in range(1, fits + 50):
        window.put(number, number)
        allowed += window.allowance()
        assert allowed == min(number, fits - 1)
    window.put(0, 0)
    assert window.allowance() == 0
    taken = []
    while window.is_due:
        taken.append(window.take())
        allowed += window.allowance()
    assert taken == list(range(fits + 50))
    # Each result has allowed exactly one more.
    assert allowed == fits + 50


def test_a_result_that_is_due_has_no_size() -> None:
    """The result that the others wait for may be as large as it likes."""
    window: Window[int] = Window(lambda result: 10 * MOST_BYTES)
    for number in itertools.islice(itertools.count(), 5):
        window.put(number, number)
        assert window.allowance() == 1
        assert window.take() == number
