"""The PostgreSQL sink, against a real server."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altaprofiles import ConfigurationError, ExportError, Profile
from altaprofiles.emulator.people import Population
from altaprofiles.export.sinks import Target
from altaprofiles.export.sinks.postgres import PostgresTarget
from altaprofiles.export.sinks.postgres_json import MAX_DEPTH, fit_json
from altaprofiles.export.sinks.postgres_url import without_password

from ..support.odd import CASES
from ..support.postgres import PASSWORD, Server
from ..support.records import RECORDS
from ..support.sinks import opened, rows_of, target_of
from ..support.thorough import examples


def export(target: Target, records: Sequence[bytes], step: int = 7) -> int:
    target.check()
    sink = opened(target)
    try:
        for start in range(0, len(records), step):
            sink.write(rows_of(records[start : start + step]))
        sink.close()
    except BaseException:
        sink.abort()
        raise
    return sink.mended.total


def line(**record: Any) -> bytes:
    return msgspec.json.encode(record)


def devices(*ids: str) -> list[dict[str, str]]:
    return [{"platform": "Web", "objectId": one} for one in ids]


def test_what_goes_in_comes_out(postgres: Server) -> None:
    population = Population(400, 5)
    records = [line(**population.record(number, app=True)) for number in range(400)]
    target = target_of(postgres.url("people"), flatten=["Plan", "favoriteFood", "Email", "person"])
    assert export(target, records) == 0
    with postgres.connect() as connection:
        cursor = connection.execute("SELECT * FROM people")
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
    assert names[-4:] == ["Plan", "favoriteFood", "profile_data.Email", "profile_data.person"]
    assert len(rows) == len(records)
    found = {row["identity"] or frozenset(row["object_ids"]): row for row in rows}
    for record in records:
        profile = Profile.decode(record)
        row = found[profile.identity or frozenset(profile.object_ids)]
        assert (row["email"], row["name"], row["phone"]) == (
            profile.email,
            profile.name,
            profile.phone,
        )
        assert row["object_ids"] == profile.object_ids
        sent = json.loads(record)
        assert row["profile_data"] == sent.pop("profileData", None)
        assert row["events"] == sent.pop("events", None)
        assert row["platform_info"] == sent.pop("platformInfo", None)
        for name in ("identity", "email", "name", "phone"):
            sent.pop(name, None)
        assert row["extra"] == (sent or None)
        food = row["profile_data"].get("favoriteFood")
        if food is None or isinstance(food, str):
            assert row["favoriteFood"] == food
        else:
            assert json.loads(row["favoriteFood"]) == food


def test_a_second_export_doubles_nobody(postgres: Server) -> None:
    population = Population(300, 5)
    target = target_of(postgres.url("people"))
    for turn in range(3):
        export(target, [line(**population.record(n, turn=turn)) for n in range(300)])
        assert postgres.rows("SELECT count(*) FROM people") == [(300,)]
    before = postgres.rows("SELECT person FROM people ORDER BY person")
    export(target, [line(**population.record(n, turn=1)) for n in range(100)])
    assert postgres.rows("SELECT person FROM people ORDER BY person") == before


def test_people_of_earlier_exports_are_updated_and_others_stay(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", name="A"), line(identity="2", name="B")])
    export(target, [line(identity=2, name="C"), line(identity="3", name="D")])
    assert postgres.rows("SELECT person, identity, name FROM people ORDER BY person") == [
        ("identity:1", "1", "A"),
        ("identity:2", "2", "C"),
        ("identity:3", "3", "D"),
    ]


def test_the_nameless_are_who_shares_a_device(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(
        target,
        [
            line(name="A", platformInfo=devices("a", "b")),
            line(name="B", platformInfo=devices("c")),
            line(name="C", objectId="d"),
            line(name="D", identity="", platformInfo=devices("e")),
            line(name="named", identity="1", platformInfo=devices("a")),
        ],
    )
    export(
        target,
        [
            line(name="A2", platformInfo=devices("z", "b")),
            line(name="C2", platformInfo=devices("y", "d")),
            line(name="D2", platformInfo=devices("f", "e")),
        ],
    )
    found = postgres.rows("SELECT name, object_ids FROM people ORDER BY name")
    assert found == [
        ("A2", ["z", "b"]),
        ("B", ["c"]),
        ("C2", ["y", "d"]),
        ("D2", ["f", "e"]),
        ("named", ["a"]),
    ]


def test_within_one_export_the_first_row_of_a_person_counts(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(name="old", platformInfo=devices("c"))])
    export(
        target,
        [
            line(identity="1", name="first"),
            line(identity=1, name="second"),
            line(name="A", platformInfo=devices("a")),
            line(name="A again", platformInfo=devices("b", "a")),
            # Connected to A, like the old row, only by a row that is itself left out.
            line(name="A once more", platformInfo=devices("c", "b")),
            line(email="x@example.com"),
            line(email="x@example.com"),
        ],
        step=1,
    )
    assert postgres.rows("SELECT name, email FROM people ORDER BY name NULLS LAST") == [
        ("A", None),
        ("first", None),
        (None, "x@example.com"),
    ]


def test_a_person_with_neither_identity_nor_device_comes_once(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    for _ in range(2):
        export(target, [line(email="x@example.com"), b"{}"])
    found = postgres.rows("SELECT person, email FROM people ORDER BY email")
    assert [email for _, email in found] == ["x@example.com", None]
    assert all(person.startswith("record:") for person, _ in found)


HOSTILE: list[tuple[bytes, str, Any, int]] = [
    (rb'{"name":"a\u0000b"}', "name", "a\ufffdb", 1),
    (rb'{"name":"\ud83d"}', "name", "\ufffd", 1),
    (rb'{"name":"a\\u0000"}', "name", r"a\u0000", 0),
    (rb'{"name":"\t\\N\\.\n\\.\n\r\"x\u2028"}', "name", '\t\\N\\.\n\\.\n\r"x\u2028', 0),
    (rb'{"name":"\\N"}', "name", "\\N", 0),
    (b'{"name":""}', "name", "", 0),
    (b'{"phone":1e400000}', "phone", "1e400000", 0),
    (rb'{"profileData":{"a":"\u0000","b":"\\u0000"}}', "profile_data",
     {"a": "\ufffd", "b": "\\u0000"}, 1),
    (rb'{"events":{"\udc00":1}}', "events", {"\ufffd": 1}, 1),
    (rb'{"x":"\ud83d\ude00"}', "extra", {"x": "\U0001f600"}, 0),
    (rb'{"\ud83d":1}', "extra", {"\ufffd": 1}, 1),
    (b'{"events":[1e400000,1e-400000,0e99999999,-1E+131072,1e5,"1e400000"]}', "events",
     ["1e400000", "1e-400000", "0e99999999", "-1E+131072", 100000, "1e400000"], 1),
    (b'{"profileData":"text","platformInfo":{"objectId":"a"}}', "platform_info",
     {"objectId": "a"}, 0),
    (rb'{"objectId":"a\u0000\\\"{},"}', "object_ids",
     ["sha256:" + sha256(b'a\0\\"{},').hexdigest()], 2),
    (b'{"platformInfo":[7,null,{"objectId":8},{"objectId":"NULL"},{"objectId":""}]}',
     "object_ids", ["8", "NULL"], 0),
    (b'{"identity":"' + b"y" * 9000 + b'"}', "identity", "y" * 9000, 0),
    (b'{"identity":{"a" : [1.50]}}', "identity", '{"a":[1.50]}', 0),
]  # fmt: skip


@pytest.mark.parametrize(("record", "column", "value", "mended"), HOSTILE)
def test_odd_data_is_kept_or_mended_and_never_fatal(
    postgres: Server, record: bytes, column: str, value: Any, mended: int
) -> None:
    assert export(target_of(postgres.url("people")), [record, b'{"identity":"z"}']) == mended
    assert postgres.rows(f"SELECT {column} FROM people WHERE identity IS DISTINCT FROM 'z'") == [
        (value,)
    ]


def test_an_identifier_that_no_index_takes_is_shortened(postgres: Server) -> None:
    long = b'{"objectId":"%b"}' % (b"y" * 9000)
    target = target_of(postgres.url("people"))
    for _ in range(2):
        assert export(target, [long]) == 1
    ((ids,),) = postgres.rows("SELECT object_ids FROM people")
    assert len(ids) == 1
    assert ids[0].startswith("sha256:")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_the_deepest_nesting_is_kept_as_text(postgres: Server, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, 50_000):
        deep = opening * depth + b"1" + closing * depth
        fitted, mended = fit_json(deep)
        assert mended == (depth > MAX_DEPTH)
        ((kind,),) = postgres.rows(f"SELECT jsonb_typeof('{fitted.decode()}'::jsonb)")
        assert (kind == "string") == mended


@pytest.mark.parametrize("end", [b"", b",1", b"]", b" ", b"}", b"\n"], ids=repr)
@pytest.mark.parametrize("number", [b"1e140000", b"-2E+999999", b"3.5e-20000", b"7e00140000"])
def test_a_number_out_of_range_is_found_wherever_it_ends(number: bytes, end: bytes) -> None:
    data = b'["0e1234f",%b%b' % (number, end)
    assert fit_json(data) == (b'["0e1234f","%b"%b' % (number, end), True)


@pytest.mark.parametrize("data", [b'["12e9999999"]', b'{"4e5678ab":"1e99999,"}', b"[1e1000]"])
def test_strings_like_numbers_and_large_numbers_are_kept(data: bytes) -> None:
    assert fit_json(data) == (data, False)


def test_a_table_with_the_index_of_an_earlier_version_is_updated(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1"), line(identity="2"), line(objectId="a")])
    postgres.run(
        "DROP INDEX people_object_ids_idx",
        "CREATE INDEX of_all ON people USING gin (object_ids) WITH (fastupdate = off)",
    )
    rows = "SELECT xmin::text, ctid::text FROM people WHERE identity = '2'"
    before = postgres.rows(rows)
    export(target, [line(identity="1", name="A"), line(identity="2"), line(name="B", objectId="a")])
    assert postgres.rows(rows) == before
    assert postgres.rows("SELECT person, name FROM people ORDER BY 1") == [
        ("identity:1", "A"),
        ("identity:2", None),
        ("objectId:a", "B"),
    ]
    assert postgres.rows(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'people' AND indexdef LIKE '%gin%'"
    ) == [("of_all",)]


@pytest.mark.slow
@settings(
    max_examples=examples(12, 30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(records=st.lists(RECORDS, max_size=5))
def test_no_record_is_too_odd(postgres: Server, records: list[dict[str, Any]]) -> None:
    # In ASCII, surrogates and NUL are escapes, as in JSON from other sources.
    lines = [json.dumps(record).encode() for record in records]
    target = target_of(postgres.url("odd"), flatten=["a"])
    export(target, lines)
    before = postgres.rows("SELECT count(*) FROM odd")
    export(target, lines)
    assert postgres.rows("SELECT count(*) FROM odd") == before


def test_an_abandoned_export_leaves_the_table_alone(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    for _ in range(2):
        sink = opened(target)
        sink.write(rows_of([line(identity="1", name="new")]))
        sink.abort()
        sink.abort()
        assert postgres.rows("SELECT to_regclass('people')::text") in ([(None,)], [("people",)])
        if postgres.rows("SELECT to_regclass('people')") == [(None,)]:
            export(target, [line(identity="1", name="old")])
    assert postgres.rows("SELECT name FROM people") == [("old",)]


def test_a_server_that_goes_away_is_an_export_error(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", name="old")])
    sink = opened(target)
    sink.write(rows_of([line(identity="1", name="new")]))
    postgres.cut_exports()
    with pytest.raises(ExportError) as caught:
        for _ in range(1000):
            sink.write(rows_of([line(identity="2", name="x" * 10_000)]))
        sink.close()
    shows_no_password(caught.value)
    sink.abort()
    assert postgres.rows("SELECT name FROM people") == [("old",)]


def test_columns_that_are_missing_are_added(postgres: Server) -> None:
    export(target_of(postgres.url("people")), [line(identity="1"), line(identity="2")])
    target = target_of(postgres.url("people"), flatten=["plan", "a%s;\"b'"])
    export(target, [line(identity="1", profileData={"plan": 7, "a%s;\"b'": "x"})])
    assert postgres.rows('SELECT plan, "a%s;""b\'" FROM people ORDER BY identity') == [
        ("7", "x"),
        (None, None),
    ]
    # A column that an export leaves out does not keep an outdated value.
    export(target_of(postgres.url("people")), [line(identity="1", name="A")])
    assert postgres.rows("SELECT name, plan FROM people ORDER BY identity") == [
        ("A", None),
        (None, None),
    ]


@pytest.mark.parametrize("key", ["number", "nameless", "lifted_0", "c0", "first", "old"])
def test_a_key_may_have_the_name_of_anything_within(postgres: Server, key: str) -> None:
    target = target_of(postgres.url("people"), flatten=[key, "other"])
    for _ in range(2):
        export(target, [line(identity="1", profileData={key: "x", "other": "y"})])
    assert postgres.rows(f'SELECT "{key}", other FROM people') == [("x", "y")]


def test_schema_and_table_may_have_any_name(postgres: Server) -> None:
    postgres.run("CREATE SCHEMA crm", 'CREATE TABLE "Élan" (a int)')
    target = target_of(postgres.url(quote('crm.My "people"; --')))
    export(target, [line(identity="1")])
    assert target.name.endswith('/crm.My "people"; --')
    assert postgres.rows('SELECT identity FROM crm."My ""people""; --"') == [("1",)]
    export(target_of(postgres.url(), table="crm.other"), [line(identity="2")])
    assert postgres.rows("SELECT identity FROM crm.other") == [("2",)]
    export(target_of(postgres.url()), [line(identity="3")])
    assert postgres.rows("SELECT identity FROM profiles") == [("3",)]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["CREATE VIEW people AS SELECT 1 AS x"], "not a table"),
        (["CREATE TABLE people (id int)"], "lacks the columns account, person, identity, email"),
        (["CREATE TABLE people (identity text)"], "lacks a unique key of account and person"),
        (["CREATE TABLE people (person text primary key)"], "lacks a unique key of account and"),
        (
            ["CREATE TABLE people (person text primary key, events text)"],
            "'events' has the type text, and must have jsonb",
        ),
        (["CREATE TABLE people (person int primary key)"], "'person' has the type integer"),
        (["CREATE TABLE people (person text primary key, x int NOT NULL)"], "'x' must not be null"),
    ],
)
def test_a_table_of_another_shape_is_refused_before_anything_is_sent(
    postgres: Server, statements: list[str], said: str
) -> None:
    postgres.run(*statements)
    target = target_of(postgres.url("people"))
    with pytest.raises(ExportError, match=r"name another table, or rename this one$") as caught:
        target.check()
    assert said in str(caught.value)
    sink = opened(target)
    with pytest.raises(ExportError):
        sink.close()
    sink.abort()


def guest_of(postgres: Server) -> str:
    """Return the name of the user that `guest` creates. Roles are the whole server's."""
    return f"guest_of_{postgres.database}"


@pytest.fixture
def guest(postgres: Server) -> Iterator[Callable[[str], Target]]:
    """Create a user with no right but to connect; yield a function that returns their target."""
    name = guest_of(postgres)
    postgres.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    yield lambda table: target_of(postgres.url(table, user=name), flatten=["plan"])
    postgres.run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_the_right_to_use_the_schema_is_named(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    postgres.run("CREATE SCHEMA crm", "CREATE TABLE crm.people (identity text)")
    statement = f"GRANT USAGE ON SCHEMA crm TO {guest_of(postgres)}"
    words = f"permission denied for schema crm .*; let the owner of the schema run: {statement}$"
    with pytest.raises(ExportError, match=words):
        guest("crm.people").check()
    with pytest.raises(ExportError, match=words):
        guest("crm.people").states()
    postgres.run(statement)
    with pytest.raises(ExportError, match="lacks the columns"):
        guest("crm.people").check()


def test_names_in_a_grant_are_quoted_as_the_server_needs_it(postgres: Server) -> None:
    name, schema = f"{postgres.database}Loader", 'Food "n" More; --'
    role, place = (f'"{one}"' for one in (name, schema.replace('"', '""')))
    postgres.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'", f"CREATE SCHEMA {place}")
    try:
        target = target_of(postgres.url(schema + ".people", user=name))
        with pytest.raises(ExportError) as caught:
            target.check()
        _, _, statement = str(caught.value).partition("run: ")
        assert statement == f"GRANT USAGE ON SCHEMA {place} TO {role}"
        postgres.run(statement)
        with pytest.raises(ExportError, match="may not create tables in"):
            target.check()
    finally:
        postgres.run(f"DROP SCHEMA {place} CASCADE", f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_rights_that_are_missing_are_found_first(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    with pytest.raises(ExportError, match="may not create tables in public"):
        guest("people").check()
    with pytest.raises(
        ExportError, match=r"the schema does not exist; create it \(CREATE SCHEMA \"no"
    ):
        guest("nowhere.people").check()
    database, user = postgres.database, guest_of(postgres)
    postgres.run(f"ALTER ROLE {user} IN DATABASE {database} SET search_path = nowhere")
    with pytest.raises(ExportError, match=r"search_path .* name one in the URL"):
        guest("people").check()
    postgres.run(f"ALTER ROLE {user} IN DATABASE {database} RESET search_path")
    export(target_of(postgres.url("people")), [line(identity="1")])
    with pytest.raises(ExportError, match="only the table's owner can add the column plan"):
        guest("people").check()
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(identity="1")])
    with pytest.raises(ExportError, match="lacks the right to SELECT"):
        guest("people").check()
    postgres.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON people TO {guest_of(postgres)}")
    export(guest("people"), [line(identity="2")])
    assert postgres.rows("SELECT count(*) FROM people") == [(2,)]


def test_a_database_of_another_encoding_is_refused(postgres: Server) -> None:
    postgres.run("CREATE DATABASE old ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(ExportError, match="LATIN1"):
            target_of(postgres.url("people").replace(f"/{postgres.database}/", "/old/")).check()
    finally:
        postgres.run("DROP DATABASE old")


def test_the_index_is_made_once(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    for _ in range(3):
        export(target, [line(objectId="a")])
    assert postgres.rows(
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'people' AND indexdef LIKE '%gin%'"
    ) == [(1,)]


def shows_no_password(error: BaseException) -> None:
    texts = ["".join(traceback.format_exception(error)), repr(error), str(error.__context__)]
    texts += [str(pickle.dumps(error)), repr(getattr(error, "__notes__", ""))]
    for text in texts:
        for form in (PASSWORD, quote(PASSWORD, safe=""), PASSWORD[:6]):
            assert form not in text


def test_a_password_is_never_shown(postgres: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = PASSWORD + "x"
    quoted = quote(wrong, safe="")
    place = f"127.0.0.1:{postgres.port}"
    database = postgres.database
    for url in (
        f"postgresql://owner:{quoted}@{place}/{database}/people",
        f"postgresql://owner@{place}/{database}/people?password={quoted}",
        f"postgresql://owner:{quoted}@127.0.0.1:1/{database}/people",
        f"postgresql://owner:{quoted}@{place}/nodatabase/people",
    ):
        target = target_of(url)
        assert quoted not in repr(target)
        assert wrong not in repr(target)
        assert target.name.startswith("postgresql://127.0.0.1:")
        with pytest.raises(ExportError) as caught:
            target.check()
        shows_no_password(caught.value)
        assert caught.value.__context__ is None
        with pytest.raises(TypeError, match="credentials do not pickle"):
            pickle.dumps(target)
    assert PASSWORD[:6] not in caplog.text


NO_FILE = "/nowhere/.pgpass"


@pytest.mark.parametrize(
    ("user", "query", "there", "advice"),
    [
        ("owner", "", {}, "set PGPASSWORD, or write the password into ~/.pgpass"),
        *(
            ("owner", query, there, f"set PGPASSWORD, or write the password into {NO_FILE}")
            for query, there in (("", {"PGPASSFILE": NO_FILE}), (f"?passfile={NO_FILE}", {}))
        ),
        # The right one is not asked for.
        *(
            (
                *(user, query, {"PGPASSWORD": PASSWORD, "PGPASSFILE": NO_FILE}),
                (
                    f"correct the password in the URL, or leave it out there, and set PGPASSWORD "
                    f"or write it into {NO_FILE}"
                ),
            )
            for user, query in (("owner:wrong", ""), ("owner", "?password=wrong"))
        ),
        ("owner", "", {"PGPASSWORD": "wrong"}, "correct the password in PGPASSWORD"),
        (
            *("owner", "?password=", {"PGPASSWORD": PASSWORD}),
            "remove the empty password in the URL, or write the password there",
        ),
        # Neither that one nor the file, which is none, is asked for.
        *(
            (
                *("owner", query, {"PGPASSWORD": PASSWORD, "PGPASSFILE": "/"} | there),
                "correct the password in the service crm",
            )
            for query, there in (("?service=crm", {}), ("", {"PGSERVICE": "crm"}))
        ),
    ],
)
def test_a_password_that_is_refused_is_corrected_where_it_stands(
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    user: str,
    query: str,
    there: dict[str, str],
    advice: str,
) -> None:
    (tmp_path / "services.conf").write_text("[crm]\npassword=wrong\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    for variable in ("PGPASSWORD", "PGPASSFILE", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in there.items():
        monkeypatch.setenv(variable, value)
    url = f"postgresql://{user}@127.0.0.1:{postgres.port}/{postgres.database}/people{query}"
    with pytest.raises(ExportError) as caught:
        target_of(url).check()
    assert str(caught.value).endswith(f"; {advice}")


SECRET = "hunter22"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}/x@h/db/t",
        f"postgresql://u:{SECRET}@x@h/db/t",
        f"postgresql://u:{SECRET}?x@h/db/t",
        f"postgresql://u:{SECRET}#x@h/db/t",
        f"postgresql://u:{SECRET}%zz@h/db/t",
        f"postgresql://u:{SECRET}%E9@h/db/t",
        f"postgresql://u:{SECRET}/db/t",
        f"postgresql://u:{SECRET}@h",
        f"postgresql://u:{SECRET}@h/",
        f"postgresql://u:{SECRET}@h/db/",
        f"postgresql://u:{SECRET}@h/db/a/b",
        # Any other escape that is not UTF-8 would name the same table.
        f"postgresql://u:{SECRET}@h/db/caf%E9",
        f"postgresql://u:{SECRET}@h/db/a.b.c",
        f"postgresql://u:{SECRET}@h/db/t?{SECRET}",
        f"postgresql://u:{SECRET}@h/db/t?nosuchoption=1",
        f"postgresql://u:{SECRET}@h:port/db/t",
        f"postgresql://u:{SECRET}@h/db/{'t' * 64}",
        f"mysql://u:{SECRET}@h/db/t",
        f"postgres+psycopg://u:{SECRET}@h/db/t",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        target_of(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in str(caught.value.__context__)


def test_a_server_that_is_not_there_is_answered_with_the_next_step(postgres: Server) -> None:
    with pytest.raises(ExportError) as caught:
        target_of(postgres.url("people").replace(postgres.database, "nowhere")).check()
    assert 'database "nowhere" does not exist' in str(caught.value)
    assert str(caught.value).endswith("create it, or correct its name in the URL")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(ExportError, match="refused") as caught:
        target_of(f"postgresql://owner@127.0.0.1:{port}/crm/people").check()
    assert str(caught.value).endswith("correct host and port in the URL, or start the server")


def test_an_option_that_the_driver_refuses_has_no_advice_on_the_network(postgres: Server) -> None:
    with pytest.raises(ExportError) as caught:
        target_of(postgres.url("people") + "?connect_timeout=abc").check()
    assert str(caught.value).endswith("bad value for connect_timeout: 'abc'")


def test_a_target_without_a_password_pickles() -> None:
    target = target_of("postgres://owner@db.example.com,b:5433/crm/people?sslmode=verify-full")
    assert pickle.loads(pickle.dumps(target)) == target  # noqa: S301
    assert target.name == "postgresql://db.example.com,b:5433/crm/people"
    assert target.path is None
    assert (target.format, target.typed_flatten) == ("postgres", False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@h:5/d/t", "postgresql://me@h:5/d/t"),
        ("postgres://me@h/d/t?sslmode=require", "postgres://me@h/d/t?sslmode=require"),
        ("POSTGRES://h/d?password=secret", "POSTGRES://h/d"),
        (
            "postgres://h/d?sslmode=require&p%61ssword=secret&sslpassword=secret&user=me",
            "postgres://h/d?sslmode=require&user=me",
        ),
        (
            "postgres://me@h/d?scram_client_key=secret&scram%5Fserver_key=secret",
            "postgres://me@h/d",
        ),
        ("postgres://h/d?oauth_client_secret=secret&user=me", "postgres://h/d?user=me"),
        # Of a libpq to come.
        ("postgres://me@h/d?new_option=secret", "postgres://me@h/d"),
        # Not a valid URL, but still a secret.
        ("postgres://me:se@cr?et@h/d", "postgres://me@h/d"),
        ("people.csv", "people.csv"),
        ("C:\\a:b@c.csv", "C:\\a:b@c.csv"),
        ("https://me:there@h/", "https://me:there@h/"),
    ],
)
def test_a_url_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_options_of_the_url_are_kept(postgres: Server) -> None:
    target = target_of(postgres.url("people") + "?application_name=crm&sslmode=require")
    with pytest.raises(ExportError, match="SSL"):
        target.check()


@pytest.mark.parametrize(
    "flatten", [["plan", "PLAN"], ["x" * 64], ["profile_data.person", "person"], "plan", [""], [1]]
)
def test_keys_that_cannot_be_columns_are_refused(flatten: Any) -> None:
    with pytest.raises(ConfigurationError, match="flatten: "):
        target_of("postgresql://h/db/t", flatten=flatten)


def test_the_table_is_named_once() -> None:
    with pytest.raises(ConfigurationError, match="table: the URL already names"):
        target_of("postgresql://h/db/t", table="u")
    with pytest.raises(ConfigurationError, match="bom: "):
        target_of("postgresql://h/db/t", bom=True)


def test_the_name_of_the_temporary_table_needs_a_schema(postgres: Server) -> None:
    with pytest.raises(ConfigurationError, match="to: the export has a temporary table"):
        target_of(postgres.url("altaprofiles_stage"))
    with pytest.raises(ConfigurationError, match="table: the export has a temporary table"):
        target_of(postgres.url(), table="altaprofiles_stage")
    export(target_of(postgres.url("public.altaprofiles_stage")), [line(identity="1")])
    assert postgres.rows("SELECT identity FROM public.altaprofiles_stage") == [("1",)]


def test_psql_reads_what_was_written(postgres: Server) -> None:
    export(target_of(postgres.url("people")), [line(identity="1", profileData={"plan": "gold"})])
    with psycopg.connect(postgres.url()) as connection:
        found = connection.execute(
            "SELECT identity, profile_data ->> 'plan' FROM people WHERE profile_data @> %s",
            ['{"plan":"gold"}'],
        ).fetchall()
    assert found == [("1", "gold")]


@pytest.mark.parametrize("name", CASES)
def test_a_table_has_the_people_of_a_file(postgres: Server, name: str) -> None:
    records, first = CASES[name]
    target = target_of(postgres.url("people"))
    for _ in range(2):
        export(target, records, step=1)
        found = postgres.rows("SELECT person FROM people")
        assert len(found) == len(first)


# -------------------------------------------------------------- what only the end would have shown


def limited(postgres: Server, *settings: str) -> str:
    """Return the URL of a table, for sessions with these settings."""
    options = quote(" ".join(f"-c {setting}" for setting in settings), safe="")
    return f"{postgres.url('people')}?options={options}"


def test_time_limits_of_the_user_do_not_end_an_export(postgres: Server) -> None:
    limits = ["statement_timeout=5000", "idle_in_transaction_session_timeout=5000"]
    if postgres.rows("SELECT 1 FROM pg_settings WHERE name = 'transaction_timeout'"):
        limits.append("transaction_timeout=5000")
    target = target_of(limited(postgres, *limits))
    target.check()
    sink = opened(target)
    sink.write(rows_of([line(identity="1")]))
    # The copy is one statement, and one transaction, from the first record to the last.
    time.sleep(6)
    sink.write(rows_of([line(identity="2")]))
    sink.close()
    assert postgres.rows("SELECT count(*) FROM people") == [(2,)]


def test_settings_end_with_the_transaction(postgres: Server) -> None:
    """A pooler may give the session to somebody else afterwards."""
    target = target_of(limited(postgres, "statement_timeout=5000"))
    assert isinstance(target, PostgresTarget)
    with target.connect() as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SHOW row_security").fetchone() == ("off",)
        connection.commit()
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)
        assert connection.execute("SHOW row_security").fetchone() == ("on",)


def test_a_stricter_isolation_does_not_refuse_rows_that_others_have_changed(
    postgres: Server,
) -> None:
    export(target_of(postgres.url("people")), [line(identity="1", name="A")])
    target = target_of(limited(postgres, "default_transaction_isolation=serializable"))
    target.check()
    sink = opened(target)
    sink.write(rows_of([line(identity="1", name="C")]))
    postgres.run("UPDATE people SET name = 'B'")
    sink.close()
    assert postgres.rows("SELECT name FROM people") == [("C",)]


SETTINGS = [
    "quote_all_identifiers=on",
    "idle_in_transaction_session_timeout=1",
    "idle_session_timeout=1",
    "lock_timeout=1",
    "gin_fuzzy_search_limit=1",
    "standard_conforming_strings=off",
    "array_nulls=off",
    "row_security=off",
    "session_replication_role=replica",
    "client_encoding=latin1",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_the_user_changes_what_is_written(postgres: Server, setting: str) -> None:
    name = setting.partition("=")[0]
    if not postgres.rows(f"SELECT 1 FROM pg_settings WHERE name = '{name}'"):
        pytest.skip("this server does not have the setting")
    target = target_of(limited(postgres, setting))
    for turn in ("a", "b"):
        export(target, [line(name=turn, objectId=f"é{number}") for number in range(200)])
        found = postgres.rows("SELECT count(*), count(DISTINCT person), min(name) FROM people")
        assert found == [(200, 200, turn)]


def test_a_table_is_never_made_for_the_session_only(postgres: Server) -> None:
    with pytest.raises(ExportError, match=r"the table is temporary, .* take pg_temp out"):
        target_of(limited(postgres, "search_path=pg_temp")).check()
    with pytest.raises(ExportError, match="the schema does not exist"):
        target_of(postgres.url("pg_temp.people")).check()


@pytest.mark.parametrize("level", ["session", "role"])
def test_a_read_only_default_is_found_first_and_the_error_lifts_it(
    postgres: Server, level: str
) -> None:
    reader = f"reader_of_{postgres.database}"
    if level == "role":
        postgres.run(
            f"CREATE ROLE {reader} SUPERUSER LOGIN PASSWORD '{PASSWORD}'",
            f"ALTER ROLE {reader} SET default_transaction_read_only = on",
        )
        url = postgres.url("people", user=reader)
    else:
        url = limited(postgres, "default_transaction_read_only=on")
    try:
        with pytest.raises(ExportError, match="read-only by default") as caught:
            target_of(url).check()
        (advice,) = [word for word in str(caught.value).split() if word.startswith("?options=")]
        export(target_of(url.partition("?")[0] + advice), [line(identity="1")])
    finally:
        if level == "role":
            postgres.run(f"DROP OWNED BY {reader} CASCADE", f"DROP ROLE {reader}")


def test_row_level_security_is_found_first(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(identity="1")])
    postgres.run(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON people TO {guest_of(postgres)}",
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY others ON people USING (identity <> '1')",
    )
    with pytest.raises(ExportError, match="row-level security"):
        guest("people").check()
    sink = opened(guest("people"))
    with pytest.raises(ExportError, match="row-level security"):
        sink.close()
    sink.abort()
    # Its owner sees all rows.
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(identity="2")])
    postgres.run(f"ALTER ROLE {guest_of(postgres)} BYPASSRLS")
    export(guest("people"), [line(identity="3")])
    assert postgres.rows("SELECT count(*) FROM people") == [(3,)]


@pytest.mark.parametrize("name", ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"])
def test_a_system_column_is_no_key(postgres: Server, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^flatten: '{name}' is the name of a system"):
        target_of(postgres.url("people"), flatten=["plan", name])
    # The names differ in case, and `oid` is a name like any other.
    export(target_of(postgres.url("people"), flatten=[name.upper(), "oid"]), [line(identity="1")])


def test_as_many_columns_as_the_server_allows(postgres: Server) -> None:
    keys = [f"k{number}" for number in range(1584)]
    with pytest.raises(ConfigurationError, match=r"^flatten: .* 1,600 columns; leave out 1 key"):
        target_of(postgres.url("people"), flatten=[*keys, "one more"])
    export(target_of(postgres.url("people"), flatten=keys), [line(identity="1")])
    postgres.run("ALTER TABLE people DROP COLUMN k0, DROP COLUMN k1, DROP COLUMN k2")
    with pytest.raises(ExportError, match="would have 1,601 columns, dropped ones included"):
        target_of(postgres.url("people"), flatten=keys).check()
    target_of(postgres.url("people"), flatten=keys[1:]).check()


BIND = "ALTER TABLE people "
UNSUITABLE: dict[str, tuple[list[str], str]] = {
    "generated": (
        [
            "ALTER TABLE people DROP COLUMN name",
            BIND + "ADD name text GENERATED ALWAYS AS ('x') STORED",
        ],
        "the column 'name' is generated",
    ),
    "not null": ([BIND + "ALTER email SET NOT NULL"], "the column 'email' must not be null"),
    "domain": (
        ["CREATE DOMAIN address AS text", BIND + "ALTER email TYPE address"],
        "the column 'email' has the type address",
    ),
    "varchar": (
        [BIND + "ALTER phone TYPE varchar(5)"],
        r"the column 'phone' has the type character varying\(5\)",
    ),
    "collation": (
        [
            "CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false)",
            BIND + "ALTER person TYPE text COLLATE loose",
        ],
        "the column 'person' has a collation",
    ),
    "rule": (
        ["CREATE RULE keep AS ON DELETE TO people DO INSTEAD NOTHING"],
        "the table has rules",
    ),
    "domain that is not null": (
        [
            "CREATE DOMAIN filled AS text NOT NULL",
            "CREATE DOMAIN address AS filled",
            "DROP TABLE people",
            "CREATE TABLE people (account text, person text, more address)",
        ],
        "the column 'more' must not be null",
    ),
    "domain that checks": (
        [
            "CREATE DOMAIN address AS text CHECK (value IS NOT NULL)",
            "DROP TABLE people",
            "CREATE TABLE people (account text, person text, more address)",
        ],
        "the column 'more' must not be null",
    ),
    "partition": (
        [
            "DROP TABLE people",
            "CREATE TABLE everyone (person text PRIMARY KEY) PARTITION BY HASH (person)",
            "CREATE TABLE people PARTITION OF everyone FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        ],
        "the table is a partition, .*; name the partitioned table",
    ),
    "parent": (["CREATE TABLE child () INHERITS (people)"], "other tables inherit from the table"),
    "typed": (
        [
            "DROP TABLE people",
            "CREATE TYPE one AS (account text, person text)",
            "CREATE TABLE people OF one (PRIMARY KEY (account, person))",
        ],
        "the table has the columns of a type",
    ),
    "name of a type": (
        ["DROP TABLE people", "CREATE TYPE people AS ENUM ()", "CREATE TABLE others ()"],
        'type "people" already exists',
    ),
    "disabled rule": (
        [
            "CREATE RULE keep AS ON INSERT TO people DO INSTEAD NOTHING",
            "ALTER TABLE people DISABLE RULE keep",
        ],
        "the table has rules",
    ),
    "partitions": (
        [
            "DROP TABLE people",
            "CREATE TABLE people (person text, email text) PARTITION BY RANGE (person)",
        ],
        "the table was made with write='append', or not by an export",
    ),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_a_table_that_would_refuse_rows_at_the_end_is_found_first(
    postgres: Server, name: str
) -> None:
    export(target_of(postgres.url("people")), [line(identity="1", email="a")])
    statements, reason = UNSUITABLE[name]
    postgres.run(*statements)
    with pytest.raises(ExportError, match=reason):
        target_of(postgres.url("people")).check()


@pytest.mark.parametrize(
    ("column", "ways"),
    [
        ("more text NOT NULL DEFAULT 'x'", ["DROP NOT NULL", "SET DEFAULT 'y'"]),
        ("more filled DEFAULT 'x'", ["SET DEFAULT 'y'"]),
    ],
)
def test_the_error_of_a_column_of_the_user_s_own_says_how_exports_can_leave_it_out(
    postgres: Server, column: str, ways: list[str]
) -> None:
    target = target_of(postgres.url("people"))
    postgres.run("CREATE DOMAIN filled AS text NOT NULL")
    for way in ways:
        export(target, [line(identity="1")])
        alter = 'ALTER TABLE "people" ALTER COLUMN "more"'
        postgres.run(f"ALTER TABLE people ADD {column}", f"{alter} DROP DEFAULT")
        with pytest.raises(ExportError) as caught:
            target.check()
        advice = str(caught.value).partition("no value for it; ")[2]
        named = [one.replace("'y'", "with a value of yours") for one in ways]
        assert advice.startswith(f"run: {alter} {', or '.join(named)}; or name another table")
        postgres.run(f"{alter} {way}")
        export(target, [line(identity="1"), line(identity="2")])
        assert postgres.rows("SELECT count(*) FROM people") == [(2,)]
        postgres.run("DROP TABLE people")


@pytest.mark.parametrize(
    ("column", "advice"),
    [("more", "SET DEFAULT with a value of yours; or name"), ("email", "name")],
)
def test_a_primary_key_is_not_told_to_take_null(postgres: Server, column: str, advice: str) -> None:
    export(target_of(postgres.url("people")), [line(identity="1", email="a")])
    postgres.run(
        "ALTER TABLE people ADD more text DEFAULT 'x'",
        "ALTER TABLE people ALTER more DROP DEFAULT",
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        "CREATE UNIQUE INDEX ON people (account, person)",
        f"ALTER TABLE people ADD PRIMARY KEY ({column})",
    )
    with pytest.raises(ExportError) as caught:
        target_of(postgres.url("people")).check()
    assert f"the column {column!r} must not be null" in str(caught.value)
    assert advice in str(caught.value)
    assert "DROP NOT NULL" not in str(caught.value)
    # A column that only lies beside the key may be null again.
    postgres.run(
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        f"ALTER TABLE people ADD PRIMARY KEY (account, person) INCLUDE ({column})",
        f"ALTER TABLE people ALTER {column} SET NOT NULL",
    )
    with pytest.raises(ExportError, match=f'run: ALTER TABLE "people" .*"{column}" DROP NOT NULL'):
        target_of(postgres.url("people")).check()


def test_a_table_in_partitions_takes_everyone(postgres: Server) -> None:
    postgres.run(
        "CREATE TABLE people (account text, person text, PRIMARY KEY (account, person))"
        " PARTITION BY HASH (person)",
        "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE people_1 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    target = target_of(postgres.url("people"))
    for _ in range(2):
        export(target, [line(identity=str(number)) for number in range(50)])
    assert postgres.rows("SELECT count(*) FROM people") == [(50,)]


def test_rights_on_the_user_s_own_columns_are_needed(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(identity="1")])
    columns = ", ".join(row[0] for row in postgres.rows(COLUMNS))
    postgres.run(
        "ALTER TABLE people ADD note text",
        f"GRANT SELECT, INSERT, DELETE, UPDATE ({columns}) ON people TO {guest_of(postgres)}",
    )
    with pytest.raises(ExportError, match=r"lacks the right to UPDATE in column note$"):
        guest("people").check()
    postgres.run(f"GRANT UPDATE (note) ON people TO {guest_of(postgres)}")
    export(guest("people"), [line(identity="1")])


COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'people'"


def test_a_right_that_a_column_or_a_sequence_lacks_is_found_first(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(identity="1")])
    columns = (
        "account, person, identity, email, name, object_ids, profile_data, events, platform_info,"
        " matched, fetched_at, added_at, plan"
    )
    postgres.run(
        "ALTER TABLE people ADD number serial",
        f"GRANT SELECT, UPDATE, DELETE, INSERT ({columns}) ON people TO {guest_of(postgres)}",
    )
    name = guest_of(postgres)
    statements = [
        f"GRANT INSERT (phone, extra) ON people TO {name}",
        f"GRANT USAGE, UPDATE ON SEQUENCE people_number_seq TO {name}",
    ]
    lacking = (
        r"lacks the right to INSERT in columns phone, extra; "
        r"this user lacks the right to use the sequence people_number_seq, from which "
    )
    with pytest.raises(ExportError, match=lacking) as caught:
        guest("people").check()
    assert str(caught.value).endswith(f"let its owner run: {statements[1]}")
    postgres.run(*statements)
    export(guest("people"), [line(identity="2")])
    assert postgres.rows("SELECT identity, number FROM people ORDER BY 2") == [("1", 1), ("2", 2)]


def test_an_index_that_cannot_be_made_is_logged_and_done_without(
    postgres: Server, guest: Callable[[str], Target], caplog: pytest.LogCaptureFixture
) -> None:
    export(target_of(postgres.url("people"), flatten=["plan"]), [line(objectId="a")])
    ((index,),) = postgres.rows(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'people' AND indexdef LIKE '%gin%'"
    )
    postgres.run(
        f"DROP INDEX {index}",
        f"ALTER TABLE people OWNER TO {guest_of(postgres)}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    export(guest("people"), [line(name="A", objectId="a")])
    assert postgres.rows("SELECT name FROM people") == [("A",)]
    (message,) = caplog.messages
    assert 'CREATE INDEX ON "people" USING gin (object_ids)' in message


def test_a_user_without_temporary_tables_is_found_first(
    postgres: Server, guest: Callable[[str], Target]
) -> None:
    postgres.run(
        f"REVOKE TEMPORARY ON DATABASE {postgres.database} FROM PUBLIC",
        f"GRANT CREATE ON SCHEMA public TO {guest_of(postgres)}",
    )
    try:
        with pytest.raises(ExportError, match="may not create temporary tables"):
            guest("people").check()
    finally:
        postgres.run(f"GRANT TEMPORARY ON DATABASE {postgres.database} TO PUBLIC")
    export(guest("people"), [line(identity="1")])
    assert postgres.rows("SELECT identity FROM people") == [("1",)]


def trigger(postgres: Server, body: str) -> None:
    postgres.run(
        f"CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} "
        "END$$",
        "CREATE OR REPLACE TRIGGER meddles BEFORE INSERT OR UPDATE ON people FOR EACH ROW"
        " EXECUTE FUNCTION meddle()",
    )


def test_a_trigger_that_leaves_rows_out_loses_nobody_unseen(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1")])
    trigger(postgres, "IF NEW.identity = '3' THEN RETURN NULL; END IF; RETURN NEW;")
    with pytest.raises(ExportError, match="took 1 of 2 people"):
        export(target, [line(identity="2"), line(identity="3")])
    assert postgres.rows("SELECT count(*) FROM people") == [(1,)]
    export(target, [line(identity="1"), line(identity="2"), line(identity="2")])
    assert postgres.rows("SELECT count(*) FROM people") == [(2,)]


MEDDLING: dict[str, tuple[str, str, str]] = {
    "keeps who is replaced": ("BEFORE DELETE", "RETURN NULL;", "keeps 1 old rows of people"),
    "keeps old values": (
        "BEFORE UPDATE",
        "RETURN OLD;",
        "other values than the export for 1 people",
    ),
    "changes a value": (
        "BEFORE INSERT OR UPDATE",
        "NEW.name = lower(NEW.name); RETURN NEW;",
        "other values than the export for 2 people",
    ),
    "changes the key": (
        "BEFORE INSERT",
        "NEW.person = 'x' || NEW.person; RETURN NEW;",
        "other values than the export for 2 people",
    ),
    "takes rows out again": (
        "AFTER INSERT",
        "DELETE FROM people WHERE person = NEW.person; RETURN NULL;",
        "other values than the export for 1 people",
    ),
}


@pytest.mark.parametrize("of", ["people", "people_0"])
@pytest.mark.parametrize("name", MEDDLING)
def test_a_trigger_that_changes_what_is_written_is_found_and_named(
    postgres: Server, name: str, of: str
) -> None:
    if of != "people":
        postgres.run(
            "CREATE TABLE people (account text, person text, PRIMARY KEY (account, person))"
            " PARTITION BY HASH (person)",
            "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        )
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", name="A"), line(platformInfo=devices("d1", "d2"))])
    before = postgres.rows("SELECT * FROM people ORDER BY person")
    when, body, fault = MEDDLING[name]
    postgres.run(
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
        f"CREATE TRIGGER meddles {when} ON {of} FOR EACH ROW EXECUTE FUNCTION meddle()",
    )
    again = [line(identity="1", name="B"), line(name="C", platformInfo=devices("d2", "d3"))]
    called = "meddles" if of == "people" else "meddles on people_0"
    with pytest.raises(ExportError, match=rf"{fault}, .* \({called}\); .*nothing was written"):
        export(target, again)
    assert postgres.rows("SELECT * FROM people ORDER BY person") == before
    postgres.run(f"ALTER TABLE {of} DISABLE TRIGGER meddles")
    export(target, again)
    assert postgres.rows("SELECT name, object_ids FROM people ORDER BY name") == [
        ("B", []),
        ("C", ["d2", "d3"]),
    ]


def test_a_trigger_may_fill_columns_of_its_own(postgres: Server) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", name="A")])
    postgres.run("ALTER TABLE people ADD lower_name text")
    trigger(postgres, "NEW.lower_name = lower(NEW.name); RETURN NEW;")
    export(target, [line(identity="1", name="B"), line(identity="2")])
    assert postgres.rows("SELECT name, lower_name FROM people ORDER BY person") == [
        ("B", "b"),
        (None, None),
    ]


IN_PARTITIONS = [
    "DROP TABLE people",
    (
        "CREATE TABLE people (account text, person text, email text, PRIMARY KEY (account, person))"
        " PARTITION BY LIST (person)"
    ),
]
BY_LIST = [*IN_PARTITIONS, "CREATE TABLE rest PARTITION OF people DEFAULT"]


def on_create_table(body: str) -> list[str]:
    """Return the statements after which the server does something about the table `people`."""
    return [
        "DROP TABLE people",
        (
            "CREATE FUNCTION react() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN"
            f" IF to_regclass('people') IS NOT NULL THEN {body} END IF; END$$"
        ),
        (
            "CREATE EVENT TRIGGER reacts ON ddl_command_end WHEN tag IN ('CREATE TABLE')"
            " EXECUTE FUNCTION react()"
        ),
    ]


def fires(when: str, body: str, *, kind: str = "", each: str = "ROW") -> list[str]:
    return [
        f"CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
        (
            f"CREATE {kind} TRIGGER fires {when} ON people"
            f"{' DEFERRABLE INITIALLY DEFERRED' if kind else ''} FOR EACH {each}"
            " EXECUTE FUNCTION fire()"
        ),
    ]


ODD_TABLES: dict[str, list[str]] = {
    "plain": [],
    "another case": ['ALTER TABLE people ADD "Person" text'],
    "unique": ["CREATE UNIQUE INDEX ON people (email)"],
    "exclusion": ["ALTER TABLE people ADD EXCLUDE USING btree (email WITH =)"],
    "check": ["ALTER TABLE people ADD CHECK (email IS NULL)"],
    "foreign key": [
        "CREATE TABLE known (id text PRIMARY KEY)",
        "ALTER TABLE people ADD FOREIGN KEY (email) REFERENCES known DEFERRABLE INITIALLY DEFERRED",
    ],
    "referenced": [
        (
            "CREATE TABLE orders (account text, person text, FOREIGN KEY (account, person)"
            " REFERENCES people)"
        ),
        "INSERT INTO orders SELECT account, person FROM people",
    ],
    "failing default": [
        "CREATE FUNCTION fail() RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$",
        "ALTER TABLE people ADD more text",
        "ALTER TABLE people ALTER more SET DEFAULT fail()",
    ],
    "failing generated column": [
        "ALTER TABLE people ADD more int GENERATED ALWAYS AS (email::int) STORED"
    ],
    "failing index": ["CREATE INDEX ON people ((email::int))"],
    "identity column": ["ALTER TABLE people ADD more int GENERATED ALWAYS AS IDENTITY"],
    "domain with default": [
        "CREATE DOMAIN filled AS int NOT NULL DEFAULT 5",
        "ALTER TABLE people ADD more filled",
    ],
    "replica identity": [
        "CREATE PUBLICATION changes FOR TABLE people",
        "ALTER TABLE people REPLICA IDENTITY NOTHING",
    ],
    "unlogged": ["ALTER TABLE people SET UNLOGGED"],
    "deferrable key": [
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        "ALTER TABLE people ADD PRIMARY KEY (account, person) DEFERRABLE",
    ],
    "wider key": [
        "ALTER TABLE people DROP CONSTRAINT people_pkey",
        "ALTER TABLE people ADD more int DEFAULT 1, ADD PRIMARY KEY (account, person, more)",
    ],
    "partial index": [
        "DROP INDEX people_object_ids_idx",
        "CREATE INDEX ON people USING gin (object_ids) WHERE identity IS NULL",
    ],
    "row-level security": [
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE people FORCE ROW LEVEL SECURITY",
    ],
    "materialized view": ["DROP TABLE people", "CREATE MATERIALIZED VIEW people AS SELECT 1 AS x"],
    "sequence": ["DROP TABLE people", "CREATE SEQUENCE people"],
    "domain of the name": ["DROP TABLE people", "CREATE DOMAIN people AS int"],
    "no partition": IN_PARTITIONS,
    "few partitions": [*IN_PARTITIONS, "CREATE TABLE one PARTITION OF people FOR VALUES IN ('x')"],
    "one partition": BY_LIST,
    "stricter partition": [*BY_LIST, "ALTER TABLE rest ALTER email SET NOT NULL"],
    "trigger that moves rows": [
        *BY_LIST,
        "CREATE TABLE moved PARTITION OF people FOR VALUES IN ('x')",
        *fires("BEFORE INSERT", "NEW.person = 'x'; RETURN NEW;"),
    ],
    "trigger that adds again": fires(
        "AFTER DELETE", "INSERT INTO people SELECT OLD.*; RETURN NULL;"
    ),
    "trigger of a statement": fires(
        "AFTER INSERT", "UPDATE people SET name = 'x'; RETURN NULL;", each="STATEMENT"
    ),
    "deferred trigger": fires(
        "AFTER INSERT",
        "UPDATE people SET name = 'x' WHERE person = NEW.person; RETURN NULL;",
        kind="CONSTRAINT",
    ),
    "trigger that sets a time limit": fires(
        "BEFORE INSERT", "PERFORM set_config('statement_timeout', '1', true); RETURN NEW;"
    ),
    "tables are refused": on_create_table("RAISE 'no';"),
    "tables get security": on_create_table(
        "ALTER TABLE people ENABLE ROW LEVEL SECURITY; ALTER TABLE people FORCE ROW LEVEL SECURITY;"
    ),
    "tables get a column": on_create_table("ALTER TABLE people ADD tenant int NOT NULL;"),
    "tables get a trigger": [
        "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$",
        *on_create_table(
            "CREATE TRIGGER drops BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION drops();"
        ),
    ],
}


@pytest.mark.parametrize("name", ODD_TABLES)
def test_an_odd_table_takes_everyone_or_stays_as_it_is(postgres: Server, name: str) -> None:
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", name="A"), line(platformInfo=devices("a", "b"))])
    postgres.run(*ODD_TABLES[name])
    again = [
        line(identity="1", name="B", email="x"),
        line(identity="2", name="C", email="x"),
        line(name="D", platformInfo=devices("b", "c")),
    ]
    is_table = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('people') AND relkind <> 'S'"
    content = "SELECT * FROM people ORDER BY 1"
    before = postgres.rows(content) if postgres.rows(is_table) == [(1,)] else None
    try:
        export(target, again)
    except ExportError:
        after = postgres.rows(content) if postgres.rows(is_table) == [(1,)] else None
        assert after == before
    else:
        found = postgres.rows("SELECT name, email, object_ids FROM people ORDER BY name")
        assert found == [("B", "x", []), ("C", "x", []), ("D", None, ["b", "c"])]
    finally:
        postgres.run("DROP EVENT TRIGGER IF EXISTS reacts", "DROP PUBLICATION IF EXISTS changes")


PRIVATE = "jack@example.com"
REFUSALS: dict[str, tuple[str, str]] = {
    "check": (
        "ALTER TABLE people ADD CONSTRAINT allowed CHECK (email NOT LIKE 'jack%')",
        "allowed",
    ),
    "unique": ("CREATE UNIQUE INDEX one_each ON people (email)", "one_each"),
    "raised": ("RAISE EXCEPTION 'no %', NEW.email;", "P0001"),
    "raised as another": (
        "RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'no ' || NEW.email;",
        "23505",
    ),
    "invalid value": ("PERFORM NEW.email::int; RETURN NEW;", "22P02"),
    "invalid JSON": ("PERFORM NEW.email::json; RETURN NEW;", "22P02"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_no_value_reaches_the_error_of_a_row_that_the_server_refuses(
    postgres: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = target_of(postgres.url("people"))
    export(target, [line(identity="1", email="a")])
    statement, reason = REFUSALS[name]
    if statement.startswith(("ALTER", "CREATE")):
        postgres.run(statement)
    else:
        trigger(postgres, statement)
    with pytest.raises(ExportError, match=reason) as caught:
        export(target, [line(identity=one, email=PRIVATE) for one in ("2", "3")])
    error = caught.value
    assert "SQLSTATE" in str(error)
    if name.startswith("raised"):
        assert "a trigger or function of the database raised " in str(error)
        assert "is refused again until that trigger or function allows these rows" in str(error)
    assert error.__context__ is error.__cause__ is None
    for text in (str(error), repr(error), str(pickle.dumps(error)), caplog.text):
        assert "jack" not in text
        assert "example.com" not in text


def test_a_server_that_goes_away_is_an_error_of_ours(postgres: Server) -> None:
    sink = opened(target_of(postgres.url("people")))
    postgres.cut_exports()
    with pytest.raises(ExportError, match="postgresql://127"):
        for _ in range(100):
            sink.write(rows_of([line(identity="1", email=PRIVATE, name="x" * 100_000)]))
        sink.close()
    sink.abort()
