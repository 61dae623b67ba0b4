"""The recipes of the guide on exports choose people whom the test knows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import duckdb
import pytest

from altaprofiles import Session
from altaprofiles.emulator import Emulator

from ..support.guides import GUIDES, block_of
from ..support.odd_people import ODD_PEOPLE, with_odd_people

pytestmark = pytest.mark.anyio

GUIDE = "export-and-resume.md"
JANUARY = 1767600000


def person(name: str, *events: str, **members: Any) -> dict[str, Any]:
    """Return someone who has done the events in January."""
    once = {"count": 1, "first_seen": JANUARY, "last_seen": JANUARY}
    return {"identity": name, "name": name, "events": dict.fromkeys(events, once)} | members


def reachable(name: str, *tokens: str, **answers: Any) -> dict[str, Any]:
    """Return someone with all addresses who was charged, by the answers on each channel."""
    return person(
        name,
        "Charged",
        email=f"{name}@example.com",
        phone="+919876543210",
        platformInfo=[{"platform": "iOS", "push_token": one} for one in tokens],
        profileData={f"MSG-{channel}": answer for channel, answer in answers.items()},
    )


PEOPLE = [
    reachable("ann", "t"),
    reachable("bob", "", "t", email=False, push=True, sms="0", whatsapp=True),
    reachable("cat", "", email="False ", push="true", sms=1, whatsapp="TRUE "),
    reachable("dan", email=True, push=True, sms=False, whatsapp="0"),
    person("eve", "Charged", email=" ", phone=" ", profileData={"MSG-whatsapp": True}),
    person("fay", "Charged", "App Launched", email="fay@example.com"),
]


async def export(session: Session, event: str, to: str) -> None:
    await session.export(event, start=20260101, end=20260131, to=to)


def listed(ending: str = "parquet") -> list[list[str]]:
    code = block_of(GUIDE, "ANTI JOIN")
    if ending == "csv":
        options = """header = true, all_varchar = true, delim = ',', quote = '"', escape = '"'"""
        read = f"read_csv('{{}}.csv', {options})"
        assert read.format("charged") in (GUIDES / GUIDE).read_text("utf-8")
        for name in ("charged", "launched"):
            code = code.replace(f"'{name}.parquet'", read.format(name))
    return written(code, "lapsed.csv")


@pytest.mark.parametrize("ending", ["parquet", "csv"])
async def test_who_did_one_event_and_not_another_has_the_channels_without_an_opt_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    async with (
        Emulator(records=PEOPLE) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        for event, name in (("Charged", "charged"), ("App Launched", "launched")):
            to, bom = f"{name}.{ending}", ending == "csv"
            await session.export(event, start=20260101, end=20260131, to=to, bom=bom)
    head, *rows = listed(ending)
    assert head == ["name", "email", "phone", "by_email", "by_push", "by_sms", "by_whatsapp"]
    assert [(row[0], *row[3:]) for row in rows] == [
        ("ann", "true", "true", "true", "false"),
        ("bob", "false", "true", "false", "true"),
        ("cat", "false", "false", "true", "true"),
        ("dan", "true", "false", "false", "false"),
        ("eve", "false", "false", "false", "false"),
    ]
    unreached = sum("true" not in row[3:] for row in rows)
    assert f"\n{unreached} of them can be reached in none" in capsys.readouterr().out


async def test_an_address_and_a_phone_of_another_type_reach_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # As text, which is what a column has of them.
    phones = ["false", "[12025550000]", "1" * 41, " ", "+49 (0)171 / 555-01", "12025550000"]
    people = [
        person(name, "Charged") | {"email": email, "phone": phone}
        for name, email, phone in zip(
            "abcdef", ["true", "x", "@", "[]", "a@b.c", "7"], phones, strict=True
        )
    ]
    async with Emulator(records=people) as emulator:
        async with Session(clevertap=emulator.clevertap) as session:
            await export(session, "Charged", "charged.parquet")
            await export(session, "App Launched", "launched.parquet")
    _, *rows = listed()
    assert [(row[0], row[3], row[5]) for row in rows] == [
        ("a", "false", "false"),
        ("b", "false", "false"),
        ("c", "false", "false"),
        ("d", "false", "false"),
        ("e", "true", "true"),
        ("f", "false", "true"),
    ]


async def test_who_was_never_charged_is_in_one_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Charged before the days of the export.
    earlier = person("gus", "App Launched")
    earlier["events"]["Charged"] = {
        "count": 1,
        "first_seen": 1_700_000_000,
        "last_seen": 1_700_000_000,
    }
    async with (
        Emulator(records=[*PEOPLE, earlier, person("hal", "App Launched")]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await export(session, "App Launched", "launched.parquet")
    rows = duckdb.execute(block_of(GUIDE, "never charged", "sql")).fetchall()
    assert rows == [("hal", None)]


async def test_odd_records_have_a_row_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with with_odd_people() as session:
        await export(session, "Charged", "charged.parquet")
    async with Emulator(records=PEOPLE) as emulator:
        async with Session(clevertap=emulator.clevertap) as session:
            await export(session, "App Launched", "launched.parquet")
    _, *rows = listed()
    assert len(rows) == len(ODD_PEOPLE)
    assert {row[3] for row in rows} == {"false"}
    assert {row[4] for row in rows} == {"true", "false"}


async def test_a_campaign_has_those_who_have_not_opted_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gold = reachable("gus", "t", push=False)
    gold["profileData"]["Customer Type"] = "Gold"
    async with (
        Emulator(records=[*PEOPLE, gold | {"ls": JANUARY}]) as emulator,
        Session(clevertap=emulator.clevertap) as session,
    ):
        await export(session, "Charged", "people.parquet")
        await export(session, "Charged", "known.parquet")
    head, *rows = written(block_of(GUIDE, "campaign.csv"), "campaign.csv")
    assert head == ["First name", "E-mail", "Plan", "Last seen", "Push"]
    assert rows == [
        ["gus", "gus@example.com", "Gold", "2026-01-05 13:30:00", "no"],
        ["ann", "ann@example.com", "", "", "yes"],
        ["dan", "dan@example.com", "", "", "no"],
        ["fay", "fay@example.com", "", "", "no"],
    ]


@pytest.mark.parametrize(
    "spelling",
    [
        " Ann@example.com",
        "ann@EXAMPLE.com\n",
        "\tann@example.com",
        "ann@example.com\u200b",
        "ann@example.com\ufe0f",
        "ann@example.com\u3164",
    ],
)
async def test_an_address_that_one_of_its_profiles_has_opted_out_is_in_no_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ann = reachable("ann", "t")
    await export_campaign(
        [ann, reachable("cat", "t") | {"email": "-"}, *seen_twice("bob", email="BOB@example.com")],
        known=[opted_out(ann, "MSG-email", email=spelling)],
    )
    _, *rows = written(block_of(GUIDE, "campaign.csv"), "campaign.csv")
    assert [(row[0], row[1], row[3][:10]) for row in rows] == [
        ("bob", "BOB@example.com", "2026-01-06")
    ]


async def test_an_address_with_letters_of_two_forms_is_in_no_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joerg = reachable("joerg", "t") | {"email": "jo\u200b\u0308rg@example.com"}
    await export_campaign(
        [joerg], known=[opted_out(joerg, "MSG-email", email="j\xf6rg@example.com")]
    )
    assert len(written(block_of(GUIDE, "campaign.csv"), "campaign.csv")) == 1


async def test_addresses_that_differ_in_the_mark_of_a_vowel_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Kiran and Karan.
    addresses = ["\u0915\u093f\u0930\u0923@example.com", "\u0915\u0930\u0923@example.com"]
    people = [reachable(f"{n}", "t") | {"email": one} for n, one in enumerate(addresses)]
    await export_campaign(people, known=[])
    _, *rows = written(block_of(GUIDE, "campaign.csv"), "campaign.csv")
    assert {row[1] for row in rows} == {*addresses}


@pytest.mark.parametrize(
    ("phone", "spelling"),
    [
        ("+91 98765 43210", "98765 43210"),
        ("+919876543210", "098765-43210"),
        ("(212) 555-0100", "+1 212 555 0100"),
        ("+49 (0) 171 5550111", "01715550111"),
        ("0049 171 5550111", "+491715550111"),
        ("+65 9123 4567", "9123 4567"),
        ("+49 30 123456", "030 123456"),
        ("+4930123456", "+49 (0)30 123456"),
        ("(212) 555-0100", "2125550100 x12"),
        ("212 555 0100", "212-555-0100;12"),
        ("0171 5550111", "Fax 0171 5550111 / 0171 5550112"),
        ("+52 55 1234 5678", "Mexico 55 1234 5678"),
    ],
)
async def test_a_phone_that_one_of_its_profiles_has_opted_out_gets_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phone: str, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ann = reachable("ann", "t") | {"phone": phone}
    cat = reachable("cat", "t") | {"phone": "-"}
    none = reachable("none", "t") | {"phone": None}
    await export_campaign(
        [ann, cat, none, *seen_twice("bob", phone="+44 20 7946 0018")],
        known=[
            opted_out(ann, "MSG-sms", phone=spelling),
            # What is no phone keeps nobody out.
            opted_out(cat, "MSG-sms", phone="n/a"),
            opted_out(none, "MSG-sms", phone=None),
        ],
    )
    _, *rows = written(block_of(GUIDE, "texts.csv"), "texts.csv")
    assert [(row[0], row[1], row[2][:10]) for row in rows] == [
        ("bob", "+44 20 7946 0018", "2026-01-06")
    ]


async def test_a_campaign_survives_odd_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    addresses = [one | {"email": f"{one['identity']}@example.com"} for one in ODD_PEOPLE]
    async with with_odd_people(addresses) as session:
        await export(session, "Charged", "people.parquet")
        await export(session, "Charged", "known.parquet")
    _, *rows = written(block_of(GUIDE, "campaign.csv"), "campaign.csv")
    assert len(rows) == len(ODD_PEOPLE)
    assert {row[4] for row in rows} == {"yes", "no"}


async def export_campaign(people: list[dict[str, Any]], known: list[dict[str, Any]]) -> None:
    """Write the files of a campaign: who was charged, and who launched the app only."""
    records = [*people, *known]
    async with Emulator(records=records) as emulator, Session(clevertap=emulator.clevertap) as one:
        await export(one, "Charged", "people.parquet")
        await export(one, "App Launched", "known.parquet")


def opted_out(one: dict[str, Any], by: str, **fields: Any) -> dict[str, Any]:
    """Return another profile of somebody, who launched the app only and wants no messages."""
    other = f"{one['identity']} again"
    return one | {
        "identity": other,
        "objectId": other,
        "profileData": {by: False},
        "platformInfo": [],
        "events": {"App Launched": one["events"]["Charged"]},
        **fields,
    }


def seen_twice(name: str, **fields: Any) -> list[dict[str, Any]]:
    """Return two profiles of somebody, of whom the one with these fields was seen last."""
    one = reachable(name, "t") | fields
    other = one | {"email": f"{name}@example.com", "identity": f"{name} 0", "objectId": f"{name} 0"}
    return [other | {"ls": JANUARY, "name": "earlier"}, one | {"ls": JANUARY + 86_400}]


def written(program: str, name: str) -> list[list[str]]:
    """Run a block of the guide, and return the rows of the CSV that it writes."""
    exec(program, {})  # noqa: S102
    with Path(name).open(encoding="utf-8", newline="") as file:
        return [*csv.reader(file)]
