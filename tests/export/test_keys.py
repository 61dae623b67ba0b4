"""Files of keys: each key is read as the file says, or the fault is named with its line."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import os
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altaprofiles import CleverTap, ConfigurationError, Session
from altaprofiles.export.key_lines import LONGEST, split_lines
from altaprofiles.export.keys import KeyFile
from altaprofiles.export.threads import read_ahead
from altaprofiles.session import MAX_RESPONSE_BYTES
from altaprofiles.tables.layout import CORE

from ..support.sinks import opened, put_in_place, rows_of, target_of
from ..support.terminals import environment, run


def keys_of(
    folder: Path, data: bytes, name: str = "k.csv", column: str | None = None
) -> list[str] | str:
    """Return the keys of a file, or the message of its error."""
    path = folder / name
    path.write_bytes(data)
    try:
        return list(KeyFile(path, "identity", column))
    except ConfigurationError as error:
        return str(error)


# ---------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b'identity,c\n1,"a\n2,b\n3,c\n', 2, "opened and never closed"),
        (b'identity,c\r\n1,a\r\n"2,b\r\n3,c\r\n', 3, "opened and never closed"),
        (b'identity,c\r1,a\r2,"b\r3,c', 3, "opened and never closed"),
        (b'identity,"c\n1,a\n2,b\n', 1, "opened and never closed"),
        # The quote that is never closed stands in the third line of its row.
        (b'identity,c\n"1\n1\n1","b\n2,c\n', 4, "opened and never closed"),
        # Closed by accident, by the next one.
        (b'identity,c\n1,"a\n2,"b"\n3,c\n', 2, "follows the closing quote"),
        (b'identity,c\n1,a\n2,"b"x\n3,c\n', 3, "follows the closing quote"),
        (b'identity,c\n1,a\n2,"b" \n3,c\n', 3, "follows the closing quote"),
        (b'identity,c\n1,a"b\n2,c\n', 2, "in a cell without quotes"),
        (b'identity,c\n1,6" pipe\n2,7" pipe\n', 2, "in a cell without quotes"),
        (b'identity,c\n1, "a"\n', 2, "in a cell without quotes"),
        (b"identity,c\n1,a\n2\n3,c\n", 3, "has 1 column,"),
        (b'identity,c\n1,"a\nb"\n2,b,c\n', 4, "has 3 columns"),
        # The row starts there, although it ends in line 4.
        (b'identity,c\n1,a\n2,"b\nb",c\n', 3, "has 3 columns"),
        (b"identity,c\n1,a\n \n2,b\n", 3, "has 1 column,"),
        (b"identity,c\n1,\0\n2,b\n", 2, "holds a NUL byte"),
        (b"identity,c\n1,a\n2,\xff\n", 3, "is not UTF-8"),
        (b"identity,c\n1,a\n2,\xc3", 3, "is not UTF-8"),
        (b"identity,c\n1,\xed\xa0\x80\n", 2, "is not UTF-8"),
        (b"identity,c\n1,a\n\xef\xbb\xbfidentity,c\n2,b\n", 3, "starts with a byte-order mark"),
        (b'identity,c\n1,a\n\xef\xbb\xbf"2","b"\n', 3, "starts with a byte-order mark"),
    ],
)
def test_malformed_csv_is_named_with_its_line(
    tmp_path: Path, data: bytes, line: int, words: str
) -> None:
    message = keys_of(tmp_path, data, column="identity")
    assert isinstance(message, str)
    assert message.startswith(f"keys: line {line} of {tmp_path / 'k.csv'} ")
    assert words in message


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"identity,c\r1,a\r2,b\r", ["1", "2"]),
        (b"identity,c\n1,a\r\n2,b\r3,c\n4,d", ["1", "2", "3", "4"]),
        (b"identity,c\n", []),
        (b"identity,c", []),
        (b"\xef\xbb\xbfidentity,c\r\n", []),
        (b"\n\nidentity,c\n\n1,a\n\r\n2,b\n\n", ["1", "2"]),
        (b'\xef\xbb\xbf"identity","c"\r\n"1","a"\r\n', ["1"]),
        (b'"identity","c"\n" 1 ","a\r\nb"\n"2\x0c",""\n', [" 1 ", "2\x0c"]),
        (b'identity,c\n"",x\n"say ""1""",""\n', ['say "1"']),
        ("identity,c\n1\u2028,\x85\n2,\u2029".encode(), ["1\u2028", "2"]),
    ],
)
def test_any_csv_that_is_valid_is_read(tmp_path: Path, data: bytes, keys: list[str]) -> None:
    assert keys_of(tmp_path, data, column="identity") == keys


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_named_column_says_what_separates_the_cells(tmp_path: Path, separator: str) -> None:
    r"""A spreadsheet in German writes semicolons, a mark, `\r\n`, and line breaks in cells."""
    rows = [
        ["Name, Vorname", "Kunden-ID", "Notiz\nder Filiale"],
        ["Müller, Hans", "K;1", "a\r\nb"],
        ["Ng; Bo", 'K,"2"', ""],
        ["Ann", "K\t3", "c"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerows(rows)
    for name, mark in itertools.product(
        ["k.csv", "k.tsv"][: 1 + (separator == "\t")], ["", "\ufeff"]
    ):
        (tmp_path / name).write_text(mark + text.getvalue(), "utf-8", newline="")
        file = KeyFile(tmp_path / name, "identity", "Kunden-ID")
        assert list(file) == ["K;1", 'K,"2"', "K\t3"]
        assert [file.place_of(index).split()[1] for index in range(3)] == ["3", "5", "6"]


def test_what_separates_cells_is_no_guess(tmp_path: Path) -> None:
    data = b"a;b,c\n1;2,3\n"
    assert keys_of(tmp_path, data, column="a;b") == ["1;2"]
    assert keys_of(tmp_path, data, column="b,c") == ["2,3"]
    assert "2 columns" in keys_of(tmp_path, data, column="b")
    # One cell, whatever stands between cells.
    assert keys_of(tmp_path, b'"a;b"\n"c\td"\n') == ["a;b", "c\td"]
    assert keys_of(tmp_path, b"identity\na,b\n", "k.tsv") == ["a,b"]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_columns_under_a_header_of_one_are_no_keys(
    tmp_path: Path, separator: str, name: str
) -> None:
    data = f"identity\n1\n\n2{separator}x\n".encode()
    told = keys_of(tmp_path, data)
    assert isinstance(told, str)
    assert f"line 4 of {tmp_path / 'k.csv'} seems to have columns separated by {name}" in told
    assert told.endswith("or, if that is a part of the key, name its column in the call")
    # As some programs write keys that hold such a character.
    assert keys_of(tmp_path, data, column="identity") == ["1", f"2{separator}x"]
    quoted = f'identity\n1\n"2{separator}x"\n'.encode()
    assert keys_of(tmp_path, quoted) == ["1", f"2{separator}x"]
    # A header of several columns says what separates them, and so does one that holds the other.
    assert keys_of(tmp_path, f"identity,b\n2{separator}x,y\n".encode(), column="identity") == [
        f"2{separator}x"
    ]
    odd = f"identity{separator}b"
    data = f"{odd}\n2{separator}x\n".encode()
    assert keys_of(tmp_path, data, column=odd) == [f"2{separator}x"]


def test_a_cell_may_be_large_and_the_limit_of_python_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    cell = b'{""a"":1},\r\n' * 200_000
    assert keys_of(tmp_path, b'c,identity\n"%b",1\n"%b",2\n' % (cell, cell), column="identity") == [
        "1",
        "2",
    ]
    assert csv.field_size_limit() == limit


def test_a_quote_that_is_never_closed_is_not_read_to_the_end_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("altaprofiles.export.csv_rows.LONGEST", 1000)
    data = b'identity,c\n1,a\n2,"b\n' + b"3,c\n" * 1_000_000 + b"\0"
    message = keys_of(tmp_path, data, column="identity")
    assert isinstance(message, str)
    assert message.startswith(f"keys: line 3 of {tmp_path / 'k.csv'} is not valid CSV: a quote is")


RECORDS = [
    {
        "identity": identity,
        "email": f"{identity}@example.com",
        "name": name,
        "phone": "+91 98765-43210",
        "profileData": {"note": name, "long": "x" * 200_000},
    }
    for identity, name in [
        ("1", 'say "hi", twice'),
        (" 2 ", "line\r\nbreak"),
        ("=3", "=1+1"),
        ("@4", "-1+1"),
        ("田中", "a\u2028\x85\x0cb"),
    ]
]


@pytest.mark.parametrize("bom", [False, True])
def test_our_own_csv_is_a_file_of_keys(tmp_path: Path, bom: bool) -> None:
    sink = opened(target_of(tmp_path / "people.csv", bom=bom, flatten=["note"]))
    sink.write(rows_of(map(msgspec.json.encode, RECORDS)))
    put_in_place(sink)

    def column(name: str) -> list[str]:
        return list(KeyFile(tmp_path / "people.csv", "identity", name))

    for name in ("identity", "email", "name", "phone"):
        assert column(name) == [record[name] for record in RECORDS]
    assert column("note") == [record["name"] for record in RECORDS]
    for text, record in zip(column("profile_data"), RECORDS, strict=True):
        assert json.loads(text) == record["profileData"]
    for name in CORE:
        if any(name in record for record in RECORDS):
            column(name)


def test_the_apostrophe_for_spreadsheets_is_no_part_of_a_key(tmp_path: Path) -> None:
    data = b"identity\n'=1\n'+2a\n'@x\n'-3\n'4\n"
    keys = ["=1", "+2a", "@x", "-3", "'4"]
    assert keys_of(tmp_path, b"\xef\xbb\xbf" + data, column="identity") == keys
    # Without a byte-order mark, the file is not for spreadsheets.
    assert keys_of(tmp_path, data, column="identity") == ["'=1", "'+2a", "'@x", "'-3", "'4"]


# Texts in which every rule about apostrophes applies often.
TEXTS = st.text(st.sampled_from("'=@\t\r\n+-1a,\" \ufeff")) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
)


@pytest.mark.parametrize("bom", [False, True])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(TEXTS, max_size=10))
def test_every_text_of_our_own_csv_is_read_as_it_was(
    tmp_path: Path, bom: bool, texts: list[str]
) -> None:
    keys = ("=k", "'=k")
    sink = opened(target_of(tmp_path / "people.csv", bom=bom, flatten=keys))
    names = ("identity", "email", "name", "phone")
    sink.write(
        rows_of(
            msgspec.json.encode(
                {**dict.fromkeys(names, text), "profileData": dict.fromkeys(keys, text)}
            )
            for text in texts
        )
    )
    put_in_place(sink)
    expected = [text for text in texts if text.strip()]
    if not expected:
        return
    for name in (*names, *keys):
        assert list(KeyFile(tmp_path / "people.csv", "identity", name)) == expected


def test_a_column_is_named_as_it_is_shown_or_as_it_was(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf'=id,'+a\n1,2\n"
    for column, key in {"'=id": "1", "=id": "1", "'+a": "2", "+a": "2"}.items():
        assert keys_of(tmp_path, data, column=column) == [key]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_do_not_depend_on_the_pieces(end: bytes, size: int) -> None:
    texts = ["a", "", "b\u2028\u00e9", "\U0001f600" * 5, "", "c"]
    data = end.join(text.encode() for text in texts)
    for whole in (data, data + end, end + data, data + b"\r", data + b"\r\n\r"):
        lines = [line for batch in split_lines(in_pieces(whole, size), "k") for line in batch]
        assert lines == list(io.StringIO(whole.decode(), newline=""))
        for number in range(1, len(lines) + 1):
            faulty = [line.encode() for line in lines]
            faulty[number - 1] = b"\xff" + faulty[number - 1]
            joined = b"".join(faulty)
            with pytest.raises(ConfigurationError, match=f"line {number} of k is not UTF-8"):
                list(split_lines(in_pieces(joined, size), "k"))


def test_a_long_cell_takes_few_copies_of_memory(tmp_path: Path) -> None:
    cell = b'{""a"":1} ' * (3 << 20)
    path = tmp_path / "k.csv"
    path.write_bytes(b'c,identity\n"%b",1\n"%b",2\n' % (cell, cell))
    tracemalloc.start()
    try:
        assert list(KeyFile(path, "identity", "identity")) == ["1", "2"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(cell)


# ------------------------------------------------------------------------------------------- NDJSON


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b'{"id":1}\n{"id":2,"id":3}\n', 2, "has 'id' more than once"),
        (b'{"id":1}\n{"id":2,"i\\u0064":3}\n', 2, "has 'id' more than once"),
        (b'{"id":1}\n{"id":null,"x":{"id":4},"id":3}\n', 2, "has 'id' more than once"),
        (b'{"id":1}{"id":2}\n', 1, "is not JSON"),
        (b'{"id":1}\n{"id":2} {"id":3}\n', 2, "is not JSON"),
        (b'{"id":1}\n{"id":2},\n', 2, "is not JSON"),
        (b'{"id":1}\n\n{"id":2', 3, "is not JSON"),
        (b'{"id":1}\n[{"id":2}]\n', 2, "is not an object"),
        (b'{"id":1}\n{"id":2,"x":' + b"[" * 100_000 + b"]" * 99_999 + b"}\n", 2, "is not JSON"),
        (b'{"id":1}\n{"id":"\0"}\n', 2, "holds a NUL byte"),
        (b'{"id":1}\n{"id":2,"x":"\xff"}\n', 2, "is not UTF-8"),
    ],
)
def test_malformed_ndjson_is_named_with_its_line(
    tmp_path: Path, data: bytes, line: int, words: str
) -> None:
    message = keys_of(tmp_path, data, "k.ndjson", "id")
    assert isinstance(message, str)
    assert re.match(rf"(keys|column):.* line {line} of {tmp_path / 'k.ndjson'} ", message)
    assert words in message


def test_any_ndjson_that_is_valid_is_read(tmp_path: Path) -> None:
    number = "9" * 90
    data = (
        '\ufeff{"id":1}\r\n'
        ' {"x":{"id":9,"id":8},"id":"2"} \n'
        '\ufeff{"id":"\\"id\\":3"}\n'
        "\t\n"
        '{"y":"\\\\","id":" 4 "}\r'
        f'{{"id":{number}}}'
    )
    keys = ["1", "2", '"id":3', " 4 ", number]
    assert keys_of(tmp_path, data.encode(), "k.ndjson", "id") == keys


def test_the_records_of_an_export_are_keys_whatever_stands_beside_them(tmp_path: Path) -> None:
    odd = {
        "phone": b"1e400",
        "x": b"[" * 100_000 + b"]" * 100_000,
        "n": b"9" * 5000,
        "s": b'"\\ud800"',
    }
    lines = [b'{"id":%d,"%b":%b}' % (n, name.encode(), odd[name]) for n, name in enumerate(odd)]
    lines.append(b'{"id":9.19876543210E11}')
    keys = ["0", "1", "2", "3", "919876543210"]
    assert keys_of(tmp_path, b"\n".join(lines), "k.ndjson", "id") == keys


# --------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"1\r\n 2 \r\n\r\n3\t\r\n", ["1", " 2 ", "3\t"]),
        (b"1\r2\r\r3", ["1", "2", "3"]),
        (b"\xef\xbb\xbf1\n2\n\xef\xbb\xbf3\n\xef\xbb\xbf\n4", ["1", "2", "3", "4"]),
        (
            "1\x0c\n\x0c\n2\u20283\n4\x855\n6\x1c7".encode(),
            ["1\x0c", "2\u20283", "4\x855", "6\x1c7"],
        ),
        (b'"1"\n2,3\n', ['"1"', "2,3"]),
    ],
)
def test_text_is_read_line_by_line(tmp_path: Path, data: bytes, keys: list[str]) -> None:
    assert keys_of(tmp_path, data, "k.txt") == keys


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("k.txt", b"1\n2\0\n3\n", "line 2 of .* holds a NUL byte"),
        ("k.txt", b"1\n2\n\xe9\n", "line 3 of .* is not UTF-8"),
        (
            "k.csv",
            b"id;name\r\n1;J\xf6rg\r\n",
            r"line 2 of .* CSV UTF-8, .*: iconv -f WINDOWS-1252 -t UTF-8 .*k.csv > .*k-utf-8.csv$",
        ),
        ("k.txt", "1\n2\n".encode("utf-16"), "is not UTF-8 but UTF-16; save it as UTF-8"),
        ("k.csv", "identity\n2\n".encode("utf-16"), "is not UTF-8 but UTF-16; save it as UTF-8"),
        ("k.ndjson", "1\n2\n".encode("utf-32"), "is not UTF-8 but UTF-32; save it as UTF-8"),
        ("k.txt", "1\n2\n".encode("utf-16-le"), "line 1 of .* holds a NUL byte"),
        ("k.csv", "1\n2\n".encode("utf-16-be"), "line 1 of .* holds a NUL byte"),
        ("k.csv", b"\x1f\x8b\x08\0\0\0\0\0", "is compressed with gzip; unpack it first"),
        ("k.txt", b"\x28\xb5\x2f\xfd\0\0", "is compressed with zstd; unpack it first"),
        ("k.csv", b"PK\x03\x04\0\0", "is a ZIP file or an Excel workbook"),
        ("k.csv.gz", b"identity\n1\n", "is not text: unpack it"),
        ("k.ndjson.ZST", b"1\n", "is not text: unpack it"),
        ("k.zip", b"1\n", "is not text: unpack it"),
        ("k.json", b'["1","2"]', "is not text: give it the ending .ndjson"),
    ],
)
def test_other_files_are_refused_with_the_fix(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    message = keys_of(tmp_path, data, name)
    assert isinstance(message, str)
    assert re.match(f"keys: .*{words}", message)


def test_faults_are_found_wherever_pieces_of_the_file_end(tmp_path: Path) -> None:
    """The file is read in pieces; characters, line ends and quotes may fall apart there."""
    for size in range((1 << 18) - 6, (1 << 18) + 2):
        filler = b"x" * (size - len(b"identity,c\r\n1,\r\n"))
        data = b"identity,c\r\n1,%b\r\n" % filler
        rest = 'é,"a\r\nb"\r\n2,c\r\n'.encode()
        assert keys_of(tmp_path, data + rest, column="identity") == ["1", "é", "2"]
        message = keys_of(tmp_path, data + rest + b"3,\xc3\r\n", column="identity")
        assert f"line 6 of {tmp_path / 'k.csv'} is not UTF-8" in message


def test_a_file_without_keys_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, data in (("k.csv", b"identity\r\n"), ("k.txt", b"\n \n"), ("k.ndjson", b"")):
        assert keys_of(tmp_path, data, name) == []
        assert caplog.messages.pop() == f"{tmp_path / name} holds no keys: nothing is looked up"


@pytest.mark.parametrize("change", ["grown", "shrunk"])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "k.txt"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(100_000)))
    keys = iter(KeyFile(path, "identity", None))
    assert next(keys) == "0"
    if change == "grown":
        with path.open("ab") as file:
            file.write(b"12")
    else:
        os.truncate(path, 500_000)
    with pytest.raises(ConfigurationError, match=f"keys: {path} was changed while it was read"):
        list(keys)


def test_a_pipe_with_a_name_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"1\n2\n3",))
    writer.start()
    assert list(KeyFile(path, "identity", None)) == ["1", "2", "3"]
    writer.join()


@pytest.mark.anyio
async def test_a_pipe_to_which_nobody_writes_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "k.txt"
    os.mkfifo(path)
    async with Session(clevertap=CleverTap("A", "P", base_url="http://127.0.0.1:9")) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await session.export_lookups(path, by="identity", to=tmp_path / "p.ndjson")
    assert [one.name for one in tmp_path.iterdir()] == ["k.txt"]
    # The thread that waits to open the pipe ends with it.
    os.close(os.open(path, os.O_WRONLY))


@pytest.mark.anyio
async def test_what_is_read_ahead_arrives_in_order_and_ends_with_its_error() -> None:
    def source() -> Iterator[int]:
        yield from range(100)
        raise ConfigurationError("the end")

    read: list[int] = []
    with pytest.raises(ConfigurationError, match="the end"):
        async for item in read_ahead(source()):
            read.append(item)
    assert read == list(range(100))


@pytest.mark.anyio
async def test_a_reader_that_is_closed_lets_its_thread_end() -> None:
    ended = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            ended.set()

    reader = read_ahead(source())
    assert await anext(reader) == 0
    await reader.aclose()
    assert await asyncio.to_thread(ended.wait, 60)


# ----------------------------------------------------------------------------------- standard input


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1\n2\0\n", "line 2 of standard input holds a NUL byte"),
        (b"1\n2\n\xe9\n", "line 3 of standard input is not UTF-8"),
        (b"1\n2\n\xc3", "line 3 of standard input is not UTF-8"),
        ("1\n2\n".encode("utf-16"), "standard input is not UTF-8 but UTF-16"),
        (b"\x1f\x8b\x08\0", "standard input is compressed with gzip"),
        (b"", "standard input is empty"),
    ],
)
@pytest.mark.parametrize("command", ["lookup", "cdp"])
def test_standard_input_is_as_strict(tmp_path: Path, command: str, data: bytes, words: str) -> None:
    arguments = {
        "lookup": ["lookup", "-", "--by", "identity", "-o", str(tmp_path / "p.ndjson")],
        "cdp": ["cdp", "--file", "-", "--by", "user-id", "--retries", "0"],
    }[command]
    env = environment(
        tmp_path,
        CLEVERTAP_ACCOUNT_ID="A",
        CLEVERTAP_PASSCODE="P",
        CLEVERTAP_BASE_URL="http://127.0.0.1:9",
        ALTA_TOKEN="app-T",
        ALTA_BASE_URL="http://127.0.0.1:9",
    )
    done = run(env, *arguments, stdin=data)
    assert done.code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_largest_cell_is_one_of_our_own() -> None:
    # In CSV, each quote of a record is written twice.
    assert LONGEST >= 2 * MAX_RESPONSE_BYTES
