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
        ("\u6ce8\u6587\u00a0Charged", "NO-BREAK SPACE (U+00A0)"),
        ("\U0001f389 App\u202fLaunched", "NARROW NO-BREAK SPACE (U+202F)"),
        ("App\u3000Launched", "IDEOGRAPHIC SPACE (U+3000)"),
        ("Char\u200bged", "ZERO WIDTH SPACE (U+200B)"),
        ("Charged\u200d", "ZERO WIDTH JOINER (U+200D)"),
        ("\u0417\u0430\u043a\u0430\u0437\ufeff", "ZERO WIDTH NO-BREAK SPACE (U+FEFF)"),
        ("\u0417\u0430\u043a\u0430\u0437 iPh\u043ene", "CYRILLIC SMALL LETTER O (U+043E)"),
    ],
)
def test_a_name_that_looks_like_another(name: str, odd: str) -> None:
    [clause] = looks_like_another(["Charged", name])
    assert clause == (
        f"{name!r} may be another name than it looks, because it has {odd}; compare it with the "
        "name in the dashboard"
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Charged",
            "Café",
            "Заказ",
            "注文 Charged",
            "Order #1 (new)",
            "한글",
            "ἄλφα",
            "\U0001f600",
        ),
        # Words of two scripts, and words whose letters show of which script they are.
        *("Оплата Visa", "Заказ iPhone", "Бонус B2B", "order_\u0421\u043e", "VIPом"),  # noqa: RUF001
        *("Price in μ", "Price in \u00b5", "Δ price", "Δprice", "μTorrent"),
        # What is not seen is part of emoji, and of the spelling of other scripts.
        *("\U0001f469\u200d\U0001f4bb Signed Up", "\u2764\ufe0f\u200d\U0001f525 Liked"),
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f Signed Up",
        "\u062b\u0628\u062a\u200c\u0646\u0627\u0645",
        "\u0928\u092e\u0938\u094d\u200d\u0924\u0947",
        "\u0d05\u0d35\u0d28\u0d4d\u200d Charged",
        "\u1791\u17b7\u1789\u200b\u17a0\u17be\u1799",
        *("\u8cfc\u5165\u3000\u5b8c\u4e86", "\u6ce8\u6587 iPhone\u3000Visa"),
    ],
)
def test_a_name_that_looks_like_itself(name: str) -> None:
    assert [*looks_like_another([name])] == []


@given(st.text())
def test_any_name_can_be_looked_at(name: str) -> None:
    clauses = [*looks_like_another([name])]
    assert len(clauses) <= 1
    assert clauses or unicodedata.is_normalized("NFC", name)
