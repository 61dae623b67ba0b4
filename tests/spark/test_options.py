"""Options of a read by Spark, and the tasks that they make. Needs no Spark."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from altaprofiles import CleverTap, InvalidArgument, MissingExtra, windows
from altaprofiles.spark import register
from altaprofiles.spark.options import Options, Part, clevertap_of

OPTIONS = {"event": "Charged", "start": "2026-01-01", "end": "2026-01-31"}


def parts_of(**options: str) -> list[Part]:
    # Spark pickles it.
    made: Options = pickle.loads(pickle.dumps(Options(OPTIONS | options)))  # noqa: S301
    return made.parts(made.first, made.last)


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, [1, 1, 1]),
        ({"slots": "8"}, [1] * 8),
        ({"slots": "8", "windows": "3"}, [3, 3, 2]),
        ({"slots": "3", "windows": "40"}, [1, 1, 1]),
        ({"slots": "40"}, [2] * 9 + [1] * 22),
        ({"slots": "1", "windows": "5"}, [1]),
        ({"event": '["a","b"]', "slots": "3"}, [1, 1, 1]),
        ({"account": '["x","y"]', "slots": "2"}, [1, 1, 1, 1]),
    ],
)
def test_tasks_share_the_slots_of_an_account(options: dict[str, str], slots: list[int]) -> None:
    parts = parts_of(**options)
    assert [part.slots for part in parts] == slots
    accounts = {part.account for part in parts}
    for account in accounts:
        mine = [part for part in parts if part.account == account]
        assert sum(part.slots for part in mine) == int(options.get("slots", "3"))
        queries = [query for part in mine for query in part.queries]
        events = json.loads(options["event"]) if "event" in options else ["Charged"]
        for event in events:
            days = sorted(query.window or (0, 0) for query in queries if query.event == event)
            assert days == windows("2026-01-01", "2026-01-31", len(days))
        assert len(set(queries)) == len(queries)


def test_options_are_those_of_the_query() -> None:
    [part] = parts_of(slots="1", batchSize="46", app="True", events="false", profile="FALSE")
    [query] = part.queries
    assert (query.batch_size, query.app, query.summaries, query.profile) == (46, True, False, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"event": ""}, "event: expected a name"),
        ({"event": "[]"}, "event: expected a name"),
        ({"event": '["a",7]'}, "event: expected a name"),
        ({"event": '["a"'}, "event: '[\"a\"' is not JSON"),
        ({"event": '["a","a"]'}, "event: a name is in it twice"),
        ({"account": '["a","a"]'}, "account: a name is in it twice"),
        ({"start": "1767225600"}, "start: '1767225600' is not a day; write it as 2026-01-31"),
        ({"end": "2025-12-31"}, "end: 2025-12-31 is before `start`"),
        ({"slots": "0"}, "slots: expected a whole number of at least 1, got 0"),
        ({"slots": "many"}, "slots: expected a whole number of at least 1, got 'many'"),
        ({"windows": "auto"}, "windows: expected a whole number of at least 1, got 'auto'"),
        ({"batchSize": "50"}, "batch_size: 50 is not a multiple of 23"),
        ({"app": "yes"}, "app: expected true or false, got 'yes'"),
        ({"flatten": "{"}, "flatten: '{' is not JSON"),
        ({"flatten": '{"plan":"struct"}'}, "flatten: the type of 'plan' is 'struct'"),
        ({"evnt": "x"}, "evnt: there is no such option; use event, start, end, windows"),
        ({"passcode": "of-a-test"}, "passcode: credentials are no options"),
        ({"CLEVERTAP_PASSCODE": "of-a-test"}, "clevertap_passcode: credentials are no options"),
        ({"alta.token": "of-a-test"}, "alta.token: credentials are no options"),
    ],
)
def test_a_read_that_cannot_work_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Options(OPTIONS | options)
    assert str(caught.value).startswith(words)
    assert "of-a-test" not in str(caught.value)


def test_flattened_keys_take_no_name_of_a_column() -> None:
    schema = Options(OPTIONS | {"flatten": '["person","account","plan"]'}).schema
    assert schema.names[:2] == ["account", "person"]
    assert schema.names[-3:] == ["profile_data.person", "profile_data.account", "plan"]
    assert Options(OPTIONS | {"flatten": "plan"}).schema.names[-1] == "plan"


def test_credentials_come_with_a_share_of_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEVERTAP_ACCOUNT_ID", "W9R")
    monkeypatch.setenv("CLEVERTAP_PASSCODE", "pass-of-a-test")
    monkeypatch.setenv("CLEVERTAP_REGION", "in1")
    found = clevertap_of(None, 2)
    assert found == CleverTap("W9R", "pass-of-a-test", region="in1", max_in_flight=2)
    assert b"pass-of-a-test" not in pickle.dumps(Options(OPTIONS))


def test_spark_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altaprofiles.spark.source.DataSource", object)
    spark: Any = None
    with pytest.raises(MissingExtra, match=r"^altaprofiles\.spark\.register needs Spark 4; "):
        register(spark)
