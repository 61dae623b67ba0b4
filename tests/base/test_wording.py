"""Advice as text for a person."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altaprofiles.base.wording import looks_like_another


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("Cafe\u0301", "COMBINING ACUTE ACCENT (U+0301)"),
        ("\u212bkad", "ANGSTROM SIGN (U+212B)"),
        ("\u1112\u1161\u11ab", "HANGUL JUNGSEONG A (U+1161)"),
        ("\u0421harged", "CYRILLIC CAPITAL LETTER ES (U+0421)"),
        ("\u0417a\u043a\u0430\u0437", "LATIN SMALL LETTER A (U+0061)"),
        ("\u0391pp Launched", "GREEK CAPITAL LETTER ALPHA (U+0391)"),
        ("App\u00a0Launched", "NO-BREAK SPACE (U+00A0)"),
        ("Char\u200bged", "ZERO WIDTH SPACE (U+200B)"),
    ],
)
def test_a_name_that_looks_like_another(name: str, odd: str) -> None:
    [clause] = looks_like_another(["Charged", name])
    assert clause == (
        f"{name!r} may be another name than it looks, because it has {odd}; type it again"
    )


@pytest.mark.parametrize(
    "name",
    ["Charged", "Café", "Заказ", "注文 Charged", "Order #1 (new)", "한글", "ἄλφα", "\U0001f600"],
)
def test_a_name_that_looks_like_itself(name: str) -> None:
    assert [*looks_like_another([name])] == []


@given(st.text())
def test_any_name_can_be_looked_at(name: str) -> None:
    clauses = [*looks_like_another([name])]
    assert len(clauses) <= 1
    assert clauses or unicodedata.is_normalized("NFC", name)
