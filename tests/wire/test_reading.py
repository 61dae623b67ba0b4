"""Every body is UTF-8 before anything of it is believed."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from altaprofiles import DecodeError, Forbidden, RateLimited, ServerError, StatusError, Unauthorized
from altaprofiles.flow.slices import at_once
from altaprofiles.wire import alta, clevertap
from altaprofiles.wire.messages import Response
from altaprofiles.wire.reading import checked, read_date

MIB = 1 << 20
BOM = codecs.BOM_UTF8


def answer(body: bytes, status: int = 200) -> Response:
    return Response(status, CIMultiDict(), body)


def is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(
    st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=6).map(str.encode)), max_size=6),
    # Around the ends of the slices in which a body is checked.
    st.sampled_from([0, MIB // 2 - 3, MIB // 2 - 1, MIB // 2, MIB - 2, MIB + 1]),
)
def test_a_body_passes_if_all_of_it_is_utf8(pieces: list[bytes], before: int) -> None:
    body = b"x" * before + b"".join(pieces)
    if is_utf8(body):
        assert at_once(checked(answer(body))).body == body.removeprefix(BOM)
    else:
        with pytest.raises(DecodeError, match="utf-8"):
            at_once(checked(answer(body)))
        assert at_once(checked(answer(body, 500))).is_garbled


@pytest.mark.parametrize("character", ["é", "密", "🎂"])
@pytest.mark.parametrize("shift", range(5))
def test_a_character_on_the_edge_of_a_slice_is_whole(character: str, shift: int) -> None:
    text = "x" * (MIB // 2 - shift) + character * 300_000
    response = answer(text.encode())
    assert at_once(checked(response)) is response


@pytest.mark.parametrize("place", ["key", "value", "unknown", "end"])
@pytest.mark.parametrize("records", [1, 2_000])
def test_one_flipped_bit_is_found_wherever_it_is(records: int, place: str) -> None:
    page = {
        "status": "success",
        "records": [{"identity": str(n), "unknown": "x" * 700} for n in range(records)],
        "end": "x",
    }
    body = json.dumps(page).encode()
    at = {
        "key": body.rindex(b'"records"') + 2,
        "value": body.rindex(b'"identity": "') + 13,
        "unknown": body.rindex(b"xxx"),
        "end": body.rindex(b'"end"') + 2,
    }[place]
    flipped = body[:at] + bytes([body[at] ^ 0x80]) + body[at + 1 :]
    with pytest.raises(DecodeError):
        at_once(checked(answer(flipped)))


def test_a_large_body_is_checked_in_slices() -> None:
    assert len(list(checked(answer("é".encode() * (4 * MIB))))) >= 10


def test_a_byte_order_mark_is_no_part_of_a_body() -> None:
    for body in (b"{}", "é".encode() * MIB, b""):
        assert at_once(checked(answer(BOM + body))).body == body


LATIN = '{"status":"fail","error":"trouvé","message":"é","code":3}'.encode("latin-1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, StatusError),
        (401, Unauthorized),
        (403, Forbidden),
        (404, StatusError),
        (429, RateLimited),
        (500, ServerError),
        (502, ServerError),
    ],
)
def test_an_error_status_keeps_its_meaning_without_a_readable_body(
    status: int, kind: type[StatusError]
) -> None:
    response = at_once(checked(answer(LATIN, status)))
    for read in (clevertap.read_profile, clevertap.read_cursor, alta.read_users):
        with pytest.raises(kind) as caught:
            read(response)
        assert caught.value.status == status
        # The code in the body is not believed.
        assert caught.value.code is None


@pytest.mark.parametrize(
    ("headers", "time"),
    [
        pytest.param({"Date": "Sat, 10 Jan 2026 02:00:00 GMT"}, 1_768_010_400.0, id="usual"),
        pytest.param({}, None, id="missing"),
        pytest.param({"Date": "soon"}, None, id="garbled"),
        pytest.param({"Date": "Sat, 10 Jan 2026 02:00:00 GMT", "Age": "86400"}, None, id="cached"),
    ],
)
def test_an_answer_is_dated_by_its_service(headers: dict[str, str], time: float | None) -> None:
    assert read_date(CIMultiDict(headers)) == time
