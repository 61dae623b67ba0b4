"""The live display of an export on terminals of any size."""

from __future__ import annotations

import io
import math
import re
import time
from itertools import product

import msgspec
import pytest
from rich.console import Console

from altaprofiles.cli.account_progress import AccountsView
from altaprofiles.cli.progress import View
from altaprofiles.export.report import ChainStatus, ExportProgress, LookupProgress

from ..support.records import AT, LOOKING_UP


def chains(number: int, *, counted: int | None = 40_000) -> list[ChainStatus]:
    """Return chains of two events: some done, some being read, and the rest waiting."""
    return [
        ChainStatus(
            event=("App Launched", "A rather long name of an event, Größe")[place % 2],
            start=20260101 + place,
            end=20260102 + place,
            records=counted or 9000 if place < 2 else 1234 if place < 8 else 0,
            pages=1 if place < 8 else 0,
            done=place < 2,
            restarts=int(place == 9),
            counted=counted,
        )
        for place in range(number)
    ]


def of(number: int, **changes: object) -> ExportProgress:
    return msgspec.structs.replace(AT, chains=chains(number), **changes)


def drawn(
    at: ExportProgress | LookupProgress, columns: int = 80, rows: int = 24, encoding: str = "utf-8"
) -> list[str]:
    """Return the lines of the display."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(file=file, width=columns, height=rows, color_system=None, highlight=False)
    console.print(View(at))
    file.seek(0)
    return [line.rstrip() for line in file.read().splitlines()]


@pytest.mark.parametrize(
    ("columns", "rows", "number"),
    list(product([20, 40, 80, 200], [6, 10, 24, 60], [1, 2, 8, 9, 400])),
)
def test_it_fits(columns: int, rows: int, number: int) -> None:
    for at in (
        of(number),
        of(number, total=None),
        of(number, stage="finishing", records=10**9),
        of(number, records=10**8, total=10**9, retries=10**6, seconds=10**6),
    ):
        lines = drawn(at, columns, rows)
        assert len(lines) < rows
        assert all(len(line) <= min(columns, 110) for line in lines)
        # A terminal can show "^C" behind it without another line.
        assert len(lines[-1]) <= columns - 2


def test_a_wide_one() -> None:
    first, *_, last, figures = drawn(of(3, records=3_000, total=120_000), columns=100)
    assert re.fullmatch(r"App Launched +01-01 to 01-02 ━+ 40,000 +done", first)
    assert re.fullmatch(r"reading ━+╸ +3,000 of 120,000   2 %", last)
    assert figures == "1,500 records/s, 2 of 3 slots, 1 retry, 0:00:02, 0:01:18 left"


def test_a_narrow_one_shows_those_that_are_being_read() -> None:
    *shown, rest, total, counted, figures, more = drawn(
        of(30, records=3_000, total=1_200_000), columns=40
    )
    assert len(shown) == 7
    # The width differs by some columns between versions of rich.
    assert re.fullmatch(r"App L\w+… 01-03 to 01-04 +1,234 +3 %", shown[0])
    assert re.search(" 0 +waiting$", shown[6])
    assert rest == "2 of 30 chains done, 23 not shown"
    assert re.fullmatch(r"reading +0 %", total)
    assert counted == "3,000 of 1,200,000"
    assert figures == "1,500 records/s, 2 of 3 slots"
    assert more == "1 retry, 0:00:02, 0:13:18 left"


def test_states_of_chains() -> None:
    few = [*chains(3, counted=None), *chains(10, counted=None)[8:]]
    told = drawn(msgspec.structs.replace(AT, chains=few))
    words = [line.split()[-1] for line in told[:5]]
    assert words == ["done", "done", "reading", "waiting", "restart"]


def test_the_place_of_a_figure_does_not_hang_on_its_length() -> None:
    early = drawn(of(3, records=1, total=100_000))
    late = drawn(of(3, records=99_999, total=100_000))
    assert early[3].index(" of ") == late[3].index(" of ")
    assert len(early[3]) == len(late[3])


def test_what_is_the_same_of_all_chains_is_not_shown() -> None:
    one = [ChainStatus("e", 20260101, 20260101 + day, 5, 1, False, 0) for day in (0, 1)]
    assert drawn(msgspec.structs.replace(AT, chains=one))[0].startswith("01-01    ")
    others = [ChainStatus(name, 20260101, 20260102, 5, 1, False, 0) for name in ("a", "b")]
    assert "01-01" not in "".join(drawn(msgspec.structs.replace(AT, chains=others)))
    years = [ChainStatus("e", 20251201 + 8900 * n, 20260101, 5, 1, False, 0) for n in (0, 1)]
    assert "2025-12-01 to 2026-01-01" in drawn(msgspec.structs.replace(AT, chains=years))[0]
    times = [ChainStatus("e", 1767225600, 1767225600 + n, 5, 1, False, 0) for n in (3600, 7200)]
    assert "01-01 00:00 to 01-01 01:00" in drawn(msgspec.structs.replace(AT, chains=times))[0]


def test_lookups() -> None:
    bar, outcomes, figures = drawn(LOOKING_UP)
    assert bar.endswith(" 6 of 10  60 %")
    assert outcomes == "1 found, 2 not found, 3 failed"
    assert figures == "6 keys/s, 1 of 1 slot, 2 retries, 0:00:01, 0:00:01 left"
    assert drawn(msgspec.structs.replace(LOOKING_UP, stage="reading")) == [
        "reading 10 keys",
        "0:00:01",
    ]
    finishing = drawn(msgspec.structs.replace(LOOKING_UP, stage="finishing", finished=1))
    assert finishing[0].endswith("1 of 1 100 %")


def test_a_terminal_that_cannot_show_bars() -> None:
    assert "".join(drawn(of(30), encoding="ascii")).isascii()
    assert "reading ---" in "\n".join(drawn(of(30), encoding="latin-1"))


def test_what_went_wrong_last_is_shown_on_one_line() -> None:
    trouble = "CleverTap answered HTTP 400: " + "a long story\n\x1b[2J" * 10
    at = of(3, records=3_000, total=120_000, trouble=trouble)
    file = io.StringIO()
    Console(file=file, width=60, color_system=None).print(View(at))
    *_, last = file.getvalue().splitlines()
    assert last.startswith("retried: CleverTap answered HTTP 400: a long story \\x1b")
    assert len(last) <= 60


def test_the_time_left_is_reckoned_with_what_this_run_has_received() -> None:
    at = msgspec.structs.replace(of(3, records=600, total=1000), resumed=500, seconds=10.0)
    assert (at.pace, at.eta) == (10.0, 40.0)


def test_a_wait_for_a_rate_limit_is_in_every_progress_line() -> None:
    soon = time.time() + 60
    at = of(3, records=3_000, total=120_000, throttled=True, waits_until=soon, in_flight=0)
    clock = time.strftime("%H:%M:%S", time.gmtime(math.ceil(soon)))
    words = f"waiting for the rate limit until {clock} UTC"
    assert f", 0 of 3 slots, {words}, 1 retry, " in str(at)
    assert words in drawn(at)
    assert drawn(msgspec.structs.replace(at, waits_until=None))[-1] == "waiting for the rate limit"
    far = msgspec.structs.replace(at, waits_until=soon + 86_400)
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d UTC", str(far))
    assert "no calendar" in str(msgspec.structs.replace(at, waits_until=1e300))
    assert words in str(msgspec.structs.replace(LOOKING_UP, throttled=True, waits_until=soon))
    # Behind the last answer nobody waits.
    done = [msgspec.structs.replace(chain, done=True) for chain in at.chains]
    assert "waiting" not in str(msgspec.structs.replace(at, chains=done))
    assert "waiting" not in str(msgspec.structs.replace(at, stage="finishing"))
    over = msgspec.structs.replace(LOOKING_UP, throttled=True, found=LOOKING_UP.keys)
    assert "waiting" not in str(over)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_wait_fits_even_small_terminals(columns: int) -> None:
    lines = drawn(of(9, throttled=True, waits_until=time.time() + 60), columns, 6)
    assert len(lines) < 6
    assert all(len(line) <= columns for line in lines)


# ------------------------------------------------------------------------------- several accounts


class Account(msgspec.Struct):
    progress: ExportProgress | LookupProgress | None
    has_failed: bool = False


def drawn_of(shares: dict[str, Account], columns: int = 80, rows: int = 24) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=columns, height=rows, color_system=None, highlight=False)
    console.print(AccountsView(shares))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_two_accounts() -> None:
    shares = {
        "shop": Account(of(3, records=3_000, total=60_000)),
        "outlet": Account(of(2, records=30_000, total=60_000, trouble="no connection")),
    }
    first, second, total, figures, trouble = drawn_of(shares)
    assert re.fullmatch(r"shop +[━╸╺]+ +3,000 +5 %", first)
    assert re.fullmatch(r"outlet +[━╸╺]+ +30,000 +50 %", second)
    assert re.fullmatch(r"reading [━╸╺]+ +33,000 of 120,000  27 %", total)
    assert "4 of 6 slots" in figures
    assert trouble == "outlet: retried: no connection"
    assert max(map(len, (first, second, total))) <= 80


def test_accounts_that_wait_or_have_failed() -> None:
    shares = {
        "a": Account(None),
        "b": Account(of(2, records=10, total=20, trouble="refused"), has_failed=True),
        "c": Account(of(2, stage="finishing", records=10, finished=5, total=20)),
    }
    lines = drawn_of(shares)
    assert [line.split()[-1] for line in lines[:2]] == ["waiting", "failed"]
    assert lines[2].endswith("50 %")
    assert lines[3].startswith("finishing 5 records")
    assert not any("refused" in line for line in lines)
    # Nobody has anything to report.
    assert len(drawn_of({"a": Account(None), "b": Account(None, has_failed=True)})) == 2


@pytest.mark.parametrize(("columns", "rows"), list(product([20, 40, 80, 200], [6, 10, 24])))
def test_accounts_fit(columns: int, rows: int) -> None:
    for number in (1, 2, 9, 30):
        shares = {
            f"an account with the name {place}": Account(
                of(2, records=10**8, total=10**9, trouble="refused" * 30)
            )
            for place in range(number)
        }
        lines = drawn_of(shares, columns, rows)
        assert len(lines) < rows
        assert all(len(line) <= min(columns, 110) for line in lines)
