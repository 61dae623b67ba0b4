"""The tests that a usual run leaves out. With ALTAPROFILES_THOROUGH=1 all of them are run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations, groupby, product
from typing import Any

import pytest

__all__ = ["THOROUGH", "examples", "of_each_kind", "pairwise", "rotating", "with_each_value"]

THOROUGH = os.environ.get("ALTAPROFILES_THOROUGH", "") == "1"


def examples(usual: int, thorough: int) -> int:
    """Return how many random examples are tried."""
    return thorough if THOROUGH else usual


def of_each_kind(
    numbers: Sequence[int], steps: Sequence[str], half: int | None = None
) -> list[int]:
    """Return the steps to die at: of each name the first or the last one, in turn; or all of them.

    Args:
        numbers: the steps to choose from, by their place in `steps`.
        steps: the names of all steps.
        half: 0 or 1 if two tests share the steps, as they have nearly the same: the first ones for
            0, and the last ones for 1.
    """
    if THOROUGH:
        return [*numbers]
    last = {steps[number]: number for number in numbers}
    first = {steps[number]: number for number in reversed(numbers)}
    if half is not None:
        return sorted((first, last)[half].values())
    return sorted({(first, last)[turn % 2][name] for turn, name in enumerate(last)})


def pairwise(*choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return combinations that have each pair of choices at least once, or all combinations."""
    if THOROUGH:
        return [*product(*choices)]
    everything = [*product(*(range(len(choice)) for choice in choices))]
    pairs = [{*combinations(enumerate(one), 2)} for one in everything]
    covered: set[Any] = set()
    chosen = []
    # First those all of whose pairs are new.
    for new in (len(choices) * (len(choices) - 1) // 2, 1):
        for one, of_one in zip(everything, pairs, strict=True):
            if len(of_one - covered) >= new:
                chosen.append(one)
                covered |= of_one
    return [
        tuple(choice[number] for choice, number in zip(choices, one, strict=True)) for one in chosen
    ]


def rotating(cases: Sequence[tuple[Any, ...]], kinds: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return each case with one kind after the other, or each case with all kinds."""
    if THOROUGH:
        return [(*case, kind) for case in cases for kind in kinds]
    # Shifted after each turn, so that a period of the cases is none of the kinds.
    return [
        (*case, kinds[(number + number // len(kinds)) % len(kinds)])
        for number, case in enumerate(cases)
    ]


def with_each_value(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests to run: of those marked so, cases that have each value of each parameter.

    The values meet in fewer combinations. With ALTAPROFILES_THOROUGH=1, all items are returned.
    """
    if THOROUGH:
        return items
    kept = []
    for _, group in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        cases = [*group]
        marked = cases[0].get_closest_marker("each_value") is not None
        kept += _covering(cases) if marked else cases
    return kept


def _covering(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Return cases with each value, by taking the one with the most new values in turn."""
    values = [_values_of(case) for case in cases]
    covered: set[tuple[str, int]] = set()
    chosen = {number for number, of_case in enumerate(values) if not of_case}
    while missing := set().union(*values) - covered:
        most = max(range(len(cases)), key=lambda number: len(values[number] & missing))
        chosen.add(most)
        covered |= values[most]
    return [cases[number] for number in sorted(chosen)]


def _values_of(case: pytest.Item) -> set[tuple[str, int]]:
    spec = getattr(case, "callspec", None)
    # By identity, because pytest uses each value in many cases, and not all can be hashed.
    return set() if spec is None else {(name, id(value)) for name, value in spec.params.items()}
