"""Messages on what people type who are new to the command line: each names the true next step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..support.terminals import emulated, environment, run

DAYS = ("--from", "2026-01-01", "--to", "2026-01-31")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, {})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sync X --from 2026-01-01 -o a.duckdb", "Did you mean '--since'?"),
        ("sync X --to 2026-01-01 -o a.duckdb", "Did you mean '--until'?"),
        ("export X --since 2026-01-01 -o a.csv", "Did you mean '--from'?"),
        ("count X --until 2026-01-01", "Did you mean '--to'?"),
        ("export X --write-disposition append -o a.csv", "Did you mean '--write'?"),
        ("get --profile shop", "Did you mean '--account'?"),
        ("get --silent", "Did you mean '--quiet'?"),
        ("--debug get", "Did you mean '--verbose'?"),
        ("lookup --by email --file keys.txt", "the name of the file stands by itself"),
        ("lookup --email keys.txt", "write --by email"),
        ("export --event X -o a.csv", "the name of the event stands by itself"),
        ("export X -o a.csv --continue", "the same command resumes"),
        ("export X --force -o a.csv", "a file is replaced, and the rows of a table are updated"),
        ("lookup k.txt --overwrite -o a.csv", "see --write"),
        ("sync X --force -o a.duckdb", "the rows of people who are in the table are updated;"),
        ("sync X --resume -o a.duckdb", "the same command resumes"),
        ("export X --finish -o a.csv", "the same command resumes"),
        ("lookup k.txt --finish -o a.csv", "the same command resumes"),
        ("sync X --finish -o a.duckdb", "the same command resumes"),
        ("status --finish", "Did you mean '--finish-unfinished'?"),
        ("lookup k.txt --to a.csv", "Did you mean '--out'?"),
        ("export X --key Email -o a.csv", "Did you mean '--cdp-key'?"),
        ("export X --last 7 -o a.csv", "write --from -7d --to yesterday"),
        ("cdp --user u1", "Did you mean '--user-id'?"),
        ("status --discard", "Did you mean '--discard-unfinished'?"),
        ("export X --columns a,b -o a.csv", "see `altaprofiles guide into-databases`"),
        ("export X —from -7d --to yesterday -o a.csv", "—from has a long dash"),
        ("count Charged -from -7d --to yesterday", "-from has one dash: write --from"),
        ("count Charged --from -7d -to=yesterday", "-to has one dash: write --to"),
        ("export X --from -7d --to yesterday -out a.csv", "-out has one dash: write --out"),
        ("export X --from -7d --to yesterday -out=a.csv", "-out has one dash: write --out"),
        ("export X -o ut -out", "-out has one dash: write --out"),
        ("export X -output=a.csv", "no such option '-output'. Did you mean '--out'?"),
        ("export X -output a.csv", "no such option '-output'. Did you mean '--out'?"),
        ("lookup k.csv -ouput=a.csv", "no such option '-ouput'. Did you mean '--out'?"),
        ("lookup k.csv -overwrite -o a.csv", "no such option '-overwrite'; leave it out"),
        ("export X -o=a.csv", "-o takes its value without =; write -o VALUE or --out=VALUE"),
        ("status -o=a.csv", "no such option '-o'"),
        ("count X -out=a.csv", "count prints its result: leave out -o"),
        ("count X -output=a.csv", "count prints its result: leave out -o"),
        ("sync X -qo=a.duckdb", "-o takes its value without =; write -o VALUE or --out=VALUE"),
        ("lookup k.csv -by email -o a.csv", "-by has one dash: write --by"),
        ("who -email jane@example.com", "-email has one dash: write --email"),
        ("status -verbose", "-verbose has one dash: write --verbose"),
        ("-quiet status", "-quiet has one dash: write --quiet"),
        ("-version", "-version has one dash: write --version"),
        ("doctor -help", "-help has one dash: write --help"),
        ("export X -since 2026-01-01 -o a.csv", "no such option '-since'. Did you mean '--from'?"),
        ("export -event X -o a.csv", "no such option '-event'; the name of the event stands by"),
        ("export X -jane -o a.csv", "no such option '-j'"),
        ("export X -o -out -j", "no such option '-j'"),
        ("export X --to yesterday —from=-7d -o a.csv", "use --from"),
        ("export X --from -7d --to yesterday –o a.csv", "use -o"),  # noqa: RUF001
        ("export X –from 2026-01-01 --to 2026-01-02 -o a.csv", "use --from"),  # noqa: RUF001
        ("count Charged –-from yesterday –-to yesterday", "–-from has a long dash"),  # noqa: RUF001
        ("count Charged -–from yesterday", "use --from"),  # noqa: RUF001
        ("count Charged --from –7d --to yesterday", "'–7d' has a long dash"),  # noqa: RUF001
        ("count Charged --from=−7d --to yesterday", "write -7d"),  # noqa: RUF001
        ("count “App Launched” --from yesterday", "type straight ones"),
        ("count „App Launched“ --from yesterday", "type straight ones"),
        ("who kunde302@example.de", "--email ADDRESS"),
        ("get --phone +4917155501", "no service looks up phones"),
        ("who --phone +4917155501", 'see `altaprofiles guide look-ups`, "A list of phones"'),
        ("lookup tel.csv --by phone -o a.csv", "--by: no service looks up phones"),
        ("get --account a --account b --email e", "run it once for each, or write the keys"),
        ("--account a --account b who --email e", "got 2; run it once for each, or write the keys"),
        ("doctor --account a --account b", "run it once for each; see"),
        ("lookup k.csv --by email -d ; -o a.csv", "leave it out: commas, semicolons or tabs"),
        ("lookup k.csv --by email --sep ; -o a.csv", "leave it out: commas, semicolons or tabs"),
        ("export X -d ; -o a.csv", '"Excel with semicolons and decimal commas"'),
        ("lookup k.csv --by email -c mail -o a.csv", "Did you mean '--column'?"),
        ("cdp -u u1", "Did you mean '--user-id'?"),
        ("emulator -p 8123", "Did you mean '--port'?"),
        ("-V", "Did you mean '--version'?"),
        ("configure", "did you mean login?"),
        ("ls", "did you mean status?"),
    ],
)
def test_what_others_call_it(env: dict[str, str], command: str, words: str) -> None:
    done = run(env, *command.split())
    assert (done.code, done.stdout) == (2, b"")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("-o ut --format csv --flatten -out", "ut"),
        ("-o ut --format csv --flatten -output=x", "ut"),
        ("-o a.csv --flatten —from", "a.csv"),
        ("-o =a.csv", "=a.csv"),
        ("-o -o=a.csv", "-o=a.csv"),
        ("-oa.csv", "a.csv"),
        ("-oday=1.csv", "day=1.csv"),
    ],
)
def test_a_value_that_reads_like_an_option(tmp_path: Path, words: str, file: str) -> None:
    with emulated(people=5) as emulator:
        env = environment(tmp_path, emulator.environment)
        done = run(env, "export", "App Launched", *DAYS, *words.split(), cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert (tmp_path / file).is_file()


@pytest.mark.parametrize("option", ["--zzz", "--fromage-of-the-day"])
def test_nothing_is_suggested_for_what_is_like_nothing(env: dict[str, str], option: str) -> None:
    done = run(env, "export", "X", option)
    assert done.code == 2
    assert "id you mean" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("sync --refresh", "get --time-zone", "lookup k.txt --from", "describe --force"),
        # Each of these has several meanings in other tools.
        *("status -C", "export X -t", "lookup k.txt -k", "export X -n", "get -H", "export X -f"),
        *("export X -c", "export X -u"),
    ],
)
def test_what_is_only_spelled_alike_is_not_suggested(env: dict[str, str], command: str) -> None:
    done = run(env, *command.split())
    assert done.code == 2
    assert f"no such option '{command.split()[-1]}'; see altaprofiles " in done.stderr


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("export", (*DAYS, "-o", "a.csv")),
        ("count", DAYS),
        ("sync", ("--since", "2026-01-01", "-o", "a.duckdb")),
    ],
)
def test_a_second_account_behind_the_first(
    env: dict[str, str], tmp_path: Path, command: str, rest: tuple[str, ...]
) -> None:
    file = tmp_path / "accounts.toml"
    account = 'account_id = "TEST-1"\npasscode = "p"\nregion = "eu1"\n'
    file.write_text(f"[accounts.eu]\n{account}[accounts.us]\n{account}")
    file.chmod(0o600)
    env = env | {"ALTAPROFILES_CONFIG": str(file)}
    done = run(env, command, "App Launched", "--account", "eu", "us", *rest, cwd=tmp_path)
    assert done.code == 2
    assert "name each by itself, as in --account eu --account us" in done.stderr


def test_an_event_of_two_words_is_quoted(tmp_path: Path) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        command = ("export", "Category", "Viewed", *DAYS, "-o", "a.csv")
        done = run(env, *command, cwd=tmp_path)
        assert done.code == 2
        assert "If these words are one event, quote it: 'Category Viewed'." in done.stderr


@pytest.mark.parametrize("event", [("“App Launched”",), ("“App", "Launched”"), ("«Charged»",)])
def test_quotation_marks_of_a_word_processor_are_named(
    tmp_path: Path, event: tuple[str, ...]
) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        done = run(env, "export", *event, *DAYS, "-o", "a.csv", cwd=tmp_path)
    assert done.code == 2
    assert "has put the quotation marks there, type straight ones." in done.stderr
    assert "quote it" not in done.stderr


def test_files_in_the_place_of_a_pattern_are_no_event(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("theirs")
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        # What a shell makes of `-o *.csv`.
        command = ("export", "Charged", *DAYS, "-o", "a.csv", "b.csv")
        done = run(env, *command, cwd=tmp_path)
        assert done.code == 2
        assert "If the shell has put files in the place of a pattern, name one file." in done.stderr
        assert "quote it" not in done.stderr
        assert (tmp_path / "a.csv").read_text() == "theirs"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("server_error", "Try again later"), ("disconnect", "Try again later")],
)
def test_a_failure_that_can_pass_names_the_next_step(
    tmp_path: Path, fault: str, words: str
) -> None:
    with emulated(people=20, faults={fault: 1.0}) as emulator:
        env = environment(tmp_path, emulator.environment)
        for command in (("get", "--identity", "1"), ("count", "Charged", *DAYS)):
            done = run(env, *command, "--retries", "0", cwd=tmp_path)
            assert done.code == 1
            assert f"{words}, with the same command." in done.stderr


def test_keys_of_stdin_are_its_lines(tmp_path: Path) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        command = ("lookup", "-", "--by", "identity", "-o", "a.ndjson")
        run(env, *command, cwd=tmp_path, stdin=b"1\n\n \n2\n\x01\n")
        [line] = (tmp_path / "a.ndjson.failed.ndjson").read_text().splitlines()
        assert json.loads(line)["message"].startswith("line 5 of standard input: ")
        done = run(env, "cdp", "--file", "-", "--by", "user-id", cwd=tmp_path, stdin=b"1\n\n\x01\n")
        assert b"line 3 of standard input: " in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("k.txt", "name;email\nq;a@b.example\n", "separated by semicolons"),
        ("k.txt", "name,email\nq,a@b.example\n", "give it the ending .csv"),
    ],
)
def test_a_text_that_seems_to_have_columns(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        command = ("lookup", name, "--by", "email", "-o", "a.ndjson")
        done = run(env, *command, cwd=tmp_path)
        assert words in done.stderr
        done = run(env, *command, "--column", "email", cwd=tmp_path)
        assert done.code == 2
        assert "if it has columns, give it the ending .csv" in done.stderr


@pytest.mark.parametrize("rows", [2, 30])
def test_standard_input_that_seems_to_have_columns(tmp_path: Path, rows: int) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        command = ("lookup", "-", "--by", "identity", "-o", "a.ndjson")
        for separator, is_told in ((";", True), ("-", False)):
            keys = "".join(f"a{separator}{number}\n" for number in range(rows))
            done = run(env, *command, cwd=tmp_path, stdin=keys.encode())
            words = "standard input seems to have columns separated by semicolons"
            assert (words in done.stderr) == is_told


def test_capitals_are_told_of_addresses_only(tmp_path: Path) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        for keys, is_told in ((b"A12\nx@y.example\n", False), (b"A@y.example\n", True)):
            command = ("lookup", "-", "--by", "email", "-o", f"{is_told}.ndjson")
            done = run(env, *command, cwd=tmp_path, stdin=keys)
            assert ("upper-case letters" in done.stderr) == is_told


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_of_excel_that_names_its_separator(tmp_path: Path, separator: str) -> None:
    with emulated(people=20) as emulator:
        env = environment(tmp_path, emulator.environment)
        key = emulator.population.identity(0)
        rows = (f"sep={separator}", f"name{separator}id", f"q{separator}{key}")
        (tmp_path / "k.csv").write_text("\ufeff" + "\r\n".join(rows))
        command = ("lookup", "k.csv", "--by", "identity", "--column", "id", "-o", "a.ndjson")
        done = run(env, *command, "--json", cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert json.loads(done.stdout)["found"] == 1


def test_another_separator_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text("sep=|\nname|id\n")
    env = env | {"CLEVERTAP_ACCOUNT_ID": "T", "CLEVERTAP_PASSCODE": "p", "CLEVERTAP_REGION": "eu1"}
    command = ("lookup", "k.csv", "--by", "identity", "--column", "id", "-o", "a.ndjson")
    done = run(env, *command, cwd=tmp_path)
    assert done.code == 2
    assert "save it with commas, semicolons or tabs" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["export X -o a.csv --to 2026-01-31 --from", "count X --from", "sync X -o a.duckdb --since"],
)
@pytest.mark.parametrize("time", ["2026-01-01T00:00:00", "2026-01-01T00:00:00Z"])
def test_the_day_of_a_time_is_the_fix(env: dict[str, str], command: str, time: str) -> None:
    done = run(env, *command.split(), time)
    assert done.code == 2
    assert "is a time, and a day is expected; write 2026-01-01" in done.stderr
