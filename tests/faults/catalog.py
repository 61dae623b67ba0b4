"""Every fault of HTTP that the server can commit, each with a name."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache

from .account import forged
from .server import End, Exchange, Fault, Idle, Steps

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["BOMB_LIMIT", "FAULTS", "JUNK", "cut", "flipped", "junk"]

BOMB_LIMIT = 4 * 1024 * 1024
"""The `max_response_bytes` of the sessions that meet a bomb, in bytes."""

READ, RIGHT, ERROR, EITHER = "read", "right", "error", "either"


def _fixed(make: Callable[[Exchange], bytes]) -> Callable[[Exchange], Steps]:
    return lambda exchange: iter((make(exchange),))


def _closed(make: Callable[[Exchange], bytes]) -> Callable[[Exchange], Steps]:
    return lambda exchange: iter((make(exchange), End.CLOSE))


def _held(make: Callable[[Exchange], bytes]) -> Callable[[Exchange], Steps]:
    return lambda exchange: iter((make(exchange), End.HOLD))


def _prefixed(data: bytes) -> Callable[[Exchange], Steps]:
    return _fixed(lambda e: data + e.reply.whole)


def _with_body(body: Callable[[bytes], bytes], *headers: str) -> Callable[[Exchange], Steps]:
    """Return steps of an answer whose body is another one, of the right length."""

    def steps(exchange: Exchange) -> Steps:
        changed = exchange.reply._replace(body=body(exchange.reply.body))
        yield changed.head(*headers) + changed.body

    return steps


def _with_headers(*headers: str, **options: bool) -> Callable[[Exchange], Steps]:
    return _fixed(lambda e: e.reply.head(*headers, **options) + e.reply.body)


def _with_status(status: str, *headers: str, body: bytes | None = None) -> Callable[..., Steps]:
    def steps(exchange: Exchange) -> Steps:
        reply = exchange.reply._replace(status=status)
        if body is not None:
            reply = reply._replace(body=body)
        yield reply.head(*headers) + reply.body

    return steps


def _with_line(line: bytes) -> Callable[[Exchange], Steps]:
    return _fixed(lambda e: line + e.reply.whole[e.reply.whole.index(b"\r\n") :])


# ------------------------------------------------------------------------- bytes nobody asked for


def junk(target: str) -> dict[str, bytes]:
    """Return bytes that nobody asked for, behind or before an answer to `target`."""
    whole = forged(target)
    return {
        "a-byte": b"X",
        "a-line-end": b"\r\n",
        "half-an-answer": whole[: len(whole) // 2],
        "a-head": whole[: whole.index(b"\r\n\r\n") + 4],
        "an-answer": whole,
        "two-answers": whole * 2,
        "an-interim-answer": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "nothing-like-http": bytes(range(256)) * 4,
        "a-flood": whole * (4_000_000 // len(whole)),
    }


JUNK = tuple(junk("/1/profile.json"))


def _unasked() -> Iterator[Fault]:
    for name in JUNK:

        def behind(exchange: Exchange, name: str = name) -> Steps:
            yield exchange.reply.whole + junk(exchange.target)[name]

        def later(exchange: Exchange, name: str = name) -> Steps:
            yield exchange.reply.whole
            yield Idle(junk(exchange.target)[name])

        def behind_chunks(exchange: Exchange, name: str = name) -> Steps:
            body = _chunk(exchange.reply.body) + b"0\r\n\r\n"
            yield _chunked_head(exchange) + body + junk(exchange.target)[name]

        def behind_closed(exchange: Exchange, name: str = name) -> Steps:
            yield exchange.reply.head("Connection: close") + exchange.reply.body
            yield junk(exchange.target)[name]

        yield Fault(f"behind:{name}", behind, READ)
        yield Fault(f"idle:{name}", later, READ)
        yield Fault(f"behind-chunks:{name}", behind_chunks, READ)
        yield Fault(f"behind-close:{name}", behind_closed, READ)
    yield Fault("before:line-ends", _fixed(lambda e: b"\r\n" + e.reply.whole), RIGHT)
    yield Fault("before:a-byte", _fixed(lambda e: b"X" + e.reply.whole), RIGHT)
    yield Fault("before:a-kilobyte", _fixed(lambda e: b"junk " * 200 + e.reply.whole), RIGHT)


# --------------------------------------------------------------------------------- interim answers


def _interim() -> Iterator[Fault]:
    for status in ("100 Continue", "102 Processing", "103 Early Hints", "199 Odd"):
        line = f"HTTP/1.1 {status}\r\n\r\n".encode()
        number = status[:3]
        yield Fault(f"{number}-before", _prefixed(line), READ)
        yield Fault(f"{number}-a-thousand", _prefixed(line * 1000), RIGHT)

    def flood(exchange: Exchange) -> Steps:
        for _ in range(40):
            yield b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 500
            yield 0.0
        yield exchange.reply.whole

    def alone(exchange: Exchange) -> Steps:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield End.CLOSE

    yield Fault("100-flood", flood)
    yield Fault("100-and-the-end", alone, RIGHT)
    yield Fault(
        "100-with-a-body",
        _prefixed(b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n{}"),
        RIGHT,
    )
    yield Fault(
        "101-switching",
        _fixed(
            lambda e: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + e.reply.body
        ),
    )
    yield Fault("101-bare", _closed(lambda e: b"HTTP/1.1 101 Switching Protocols\r\n\r\n"))


# ------------------------------------------------------------------------------------ lying lengths


def _lengths() -> Iterator[Fault]:
    def with_length(value: str) -> Callable[[Exchange], bytes]:
        return lambda e: (
            e.reply.head(f"Content-Length: {value.format(len(e.reply.body))}", length=False)
            + e.reply.body
        )

    for name, value in {
        "negative": "-1",
        "minus-zero": "-0",
        "plus": "+{}",
        "hexadecimal": "0x{}",
        "underscore": "1_{}",
        "words": "many",
        "empty": "",
        "list": "{0}, {0}",
        "fraction": "{}.0",
        "arabic-digits": "٣",
        "two-numbers": "{0} {0}",
        "leading-zeros": "000{}",
    }.items():
        outcome = RIGHT if name != "leading-zeros" else EITHER
        yield Fault(f"length:{name}", _closed(with_length(value)), outcome)
    yield Fault("length:zero", _closed(with_length("0")), RIGHT)
    yield Fault("length:zero-kept-alive", _fixed(with_length("0")), RIGHT)
    yield Fault("length:huge", _closed(with_length("9" * 25)), RIGHT)
    yield Fault("length:huge-held", _held(with_length("99999999999")), RIGHT, slow=True)
    for by in (1, 2, 9):
        short, long = (
            lambda e, by=by: (
                e.reply.head(f"Content-Length: {len(e.reply.body) - by}", length=False)
                + e.reply.body
            ),
            lambda e, by=by: (
                e.reply.head(f"Content-Length: {len(e.reply.body) + by}", length=False)
                + e.reply.body
            ),
        )
        yield Fault(f"length:{by}-too-short", _fixed(short), RIGHT)
        yield Fault(f"length:{by}-too-long", _closed(long), RIGHT)
        yield Fault(f"length:{by}-too-long-held", _held(long), RIGHT, slow=True)
    yield Fault("length:twice-the-same", _with_headers("Content-Length: 5", length=True), RIGHT)
    yield Fault(
        "length:twice",
        _fixed(lambda e: e.reply.head(f"Content-Length: {len(e.reply.body)}") + e.reply.body),
        RIGHT,
    )
    yield Fault("length:none", _closed(lambda e: e.reply.head(length=False) + e.reply.body), READ)
    yield Fault(
        "length:none-cut", _closed(lambda e: e.reply.head(length=False) + e.reply.body[:-3]), RIGHT
    )
    yield Fault(
        "length:none-held",
        _held(lambda e: e.reply.head(length=False) + e.reply.body),
        RIGHT,
        slow=True,
    )


# ------------------------------------------------------------------------------------------- chunks


def _chunk(data: bytes, size: str | None = None) -> bytes:
    return (size or f"{len(data):x}").encode() + b"\r\n" + data + b"\r\n"


def _chunked_head(exchange: Exchange, *headers: str, coding: str = "chunked") -> bytes:
    return exchange.reply.head(f"Transfer-Encoding: {coding}", *headers, length=False)


def _chunks() -> Iterator[Fault]:
    def chunked(
        encode: Callable[[bytes], bytes], *headers: str, coding: str = "chunked"
    ) -> Callable[[Exchange], bytes]:
        return lambda e: _chunked_head(e, *headers, coding=coding) + encode(e.reply.body)

    def whole(body: bytes) -> bytes:
        return _chunk(body) + b"0\r\n\r\n"

    smuggled = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 49\r\n\r\n"
        b'{"status":"success","record":{"identity":"evil"}}'
    )
    for name, encode, outcome in (
        ("whole", whole, READ),
        ("bytes", lambda b: b"".join(_chunk(b[n : n + 1]) for n in range(min(len(b), 3000)))
         + (_chunk(b[3000:]) if len(b) > 3000 else b"") + b"0\r\n\r\n", READ),
        ("extension", lambda b: _chunk(b, f"{len(b):x};a=b") + b"0;end\r\n\r\n", READ),
        ("leading-zeros", lambda b: _chunk(b, f"{len(b):08X}") + b"000\r\n\r\n", READ),
        ("trailers", lambda b: _chunk(b) + b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", READ),
        ("smuggled-trailer", lambda b: _chunk(b) + b"0\r\nX: y\r\n" + smuggled, EITHER),
        ("answer-behind", lambda b: _chunk(b) + b"0\r\n\r\n" + smuggled, READ),
        ("trailing-length", lambda b: _chunk(b) + b"0\r\nContent-Length: 3\r\n\r\n", RIGHT),
        ("many-trailers", lambda b: _chunk(b) + b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", EITHER),
        ("long-trailer", lambda b: _chunk(b) + b"0\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", EITHER),
        ("bad-trailer", lambda b: _chunk(b) + b"0\r\nno colon here\r\n\r\n", EITHER),
        ("long-extension", lambda b: _chunk(b, f"{len(b):x};" + "a" * 200_000), EITHER),
        ("size-in-words", lambda b: _chunk(b, "zz") + b"0\r\n\r\n", RIGHT),
        ("size-negative", lambda b: _chunk(b, f"-{len(b):x}") + b"0\r\n\r\n", RIGHT),
        ("size-plus", lambda b: _chunk(b, f"+{len(b):x}") + b"0\r\n\r\n", RIGHT),
        ("size-0x", lambda b: _chunk(b, f"0x{len(b):x}") + b"0\r\n\r\n", RIGHT),
        ("size-underscore", lambda b: _chunk(b, f"1_{len(b):x}") + b"0\r\n\r\n", RIGHT),
        ("size-huge", lambda b: _chunk(b, "F" * 17) + b"0\r\n\r\n", RIGHT),
        ("size-empty", lambda b: b"\r\n" + b + b"\r\n0\r\n\r\n", RIGHT),
        ("size-too-small", lambda b: _chunk(b, f"{len(b) - 1:x}") + b"0\r\n\r\n", RIGHT),
        ("size-too-big", lambda b: _chunk(b, f"{len(b) + 1:x}") + b"0\r\n\r\n", RIGHT),
        ("size-blank", lambda b: _chunk(b, f" {len(b):x} ") + b"0\r\n\r\n", EITHER),
        ("bare-line-feeds", lambda b: whole(b).replace(b"\r\n", b"\n"), EITHER),
        ("no-line-end", lambda b: _chunk(b)[:-2] + b"0\r\n\r\n", RIGHT),
        ("not-chunked", lambda b: b, RIGHT),
        ("nothing", lambda b: b"", RIGHT),
        ("no-end", _chunk, RIGHT),
        ("half-an-end", lambda b: _chunk(b) + b"0\r\n", EITHER),
        ("cut", lambda b: _chunk(b)[:-9], RIGHT),
    ):  # fmt: skip
        yield Fault(f"chunks:{name}", _closed(chunked(encode)), outcome)
    yield Fault("chunks:kept-alive", _fixed(chunked(whole)), READ)
    yield Fault("chunks:no-end-held", _held(chunked(_chunk)), RIGHT, slow=True)
    for coding in (
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "xchunked",
        "chunked;x=1",
        "CHUNKED",
    ):
        outcome = READ if coding == "CHUNKED" else EITHER
        yield Fault(f"chunks:coding-{coding}", _closed(chunked(whole, coding=coding)), outcome)
    for length in (3, 300):
        yield Fault(
            f"chunks:and-length-{length}", _closed(chunked(whole, f"Content-Length: {length}"))
        )
    yield Fault(
        "chunks:http-1.0",
        _closed(lambda e: chunked(whole)(e).replace(b"HTTP/1.1", b"HTTP/1.0", 1)),
    )


# ------------------------------------------------------------------------------- ends, and slowness


def cut(at: int, end: End) -> Fault:
    """Return the fault that ends the connection after `at` bytes of the answer."""

    def steps(exchange: Exchange) -> Steps:
        yield exchange.reply.whole[:at]
        yield end

    return Fault(f"cut:{end.value}-after-{at}", steps, RIGHT)


def _ends() -> Iterator[Fault]:
    for end in (End.CLOSE, End.RESET):
        for name, share in (("nothing", 0.0), ("half", 0.5), ("all-but-a-byte", 1.0)):

            def steps(exchange: Exchange, end: End = end, share: float = share) -> Steps:
                whole = exchange.reply.whole
                yield whole[: int((len(whole) - 1) * share)]
                yield end

            yield Fault(f"{end.value}-after-{name}", steps, RIGHT)

        def after_head(exchange: Exchange, end: End = end) -> Steps:
            yield exchange.reply.head()
            yield end

        def after_all(exchange: Exchange, end: End = end) -> Steps:
            yield exchange.reply.whole
            yield end

        yield Fault(f"{end.value}-after-the-head", after_head, RIGHT)
        yield Fault(f"{end.value}-after-all", after_all, RIGHT)

    def silence(exchange: Exchange) -> Steps:
        yield End.HOLD

    def half_then_silence(exchange: Exchange) -> Steps:
        yield exchange.reply.whole[: -len(exchange.reply.body) // 2]
        yield End.HOLD

    def pieces(exchange: Exchange) -> Steps:
        whole = exchange.reply.whole
        size = max(1, len(whole) // 400)
        for start in range(0, len(whole), size):
            yield whole[start : start + size]
            yield 0.0

    def drip(exchange: Exchange) -> Steps:
        for byte in exchange.reply.whole:
            yield bytes([byte])
            yield 0.02

    yield Fault("silence", silence, RIGHT, slow=True)
    yield Fault("half-then-silence", half_then_silence, RIGHT, slow=True)
    yield Fault("in-pieces", pieces, READ)
    yield Fault("drip", drip, RIGHT, slow=True)


# ------------------------------------------------------------------------------------------ codings


@cache
def _bomb(coding: str) -> bytes:
    plain = b" " * (6 * BOMB_LIMIT)
    return gzip.compress(plain, 1) if coding == "gzip" else zstd.compress(plain, 1)


def _codings() -> Iterator[Fault]:
    def packed(pack: Callable[[bytes], bytes], coding: str = "gzip") -> Callable[[Exchange], Steps]:
        return _with_body(pack, f"Content-Encoding: {coding}")

    zipped = gzip.compress
    for name, pack, outcome in (
        ("whole", zipped, READ),
        ("trailing-zeros", lambda b: zipped(b) + bytes(512), READ),
        ("a-trailing-zero", lambda b: zipped(b) + bytes(1), READ),
        ("trailing-garbage", lambda b: zipped(b) + b"garbage", EITHER),
        ("members", lambda b: zipped(b[:5]) + zipped(b[5:]), READ),
        ("an-empty-member", lambda b: zipped(b) + zipped(b""), READ),
        ("a-second-body", lambda b: zipped(b) + zipped(b), RIGHT),
        ("half-a-member-more", lambda b: zipped(b) + zipped(b"   ")[:12], RIGHT),
        ("cut", lambda b: zipped(b)[:-9], RIGHT),
        ("cut-before-the-sum", lambda b: zipped(b)[:-8], RIGHT),
        ("wrong-sum", lambda b: zipped(b)[:-8] + bytes(4) + zipped(b)[-4:], RIGHT),
        ("wrong-size", lambda b: zipped(b)[:-4] + bytes(4), RIGHT),
        ("empty", lambda b: b"", RIGHT),
        ("of-nothing", lambda b: zipped(b""), RIGHT),
        ("not-packed", bytes, RIGHT),
        ("nested", lambda b: zipped(zipped(b)), EITHER),
        ("deflated", zlib.compress, RIGHT),
        ("garbage", lambda b: b"\x1f\x8b" + b"garbage" * 20, RIGHT),
    ):
        yield Fault(f"gzip:{name}", packed(pack), outcome)
    for name, pack, outcome in (
        ("whole", zstd.compress, READ),
        ("cut", lambda b: zstd.compress(b)[:-3], RIGHT),
        ("not-packed", bytes, RIGHT),
        ("trailing-garbage", lambda b: zstd.compress(b) + b"garbage", EITHER),
        ("frames", lambda b: zstd.compress(b[:5]) + zstd.compress(b[5:]), READ),
    ):
        yield Fault(f"zstd:{name}", packed(pack, "zstd"), outcome)
    yield Fault("gzip:bomb", packed(lambda b: _bomb("gzip")), ERROR)
    yield Fault("gzip:nested-bomb", packed(lambda b: zipped(_bomb("gzip"))), EITHER)
    yield Fault("gzip:bomb-behind", packed(lambda b: zipped(b) + _bomb("gzip")), ERROR)
    yield Fault("zstd:bomb", packed(lambda b: _bomb("zstd"), "zstd"), ERROR)
    yield Fault("plain-bomb", _with_body(lambda b: b + b" " * (BOMB_LIMIT + 1)), ERROR)
    for coding in ("br", "deflate", "bogus", "gzip, gzip", "gzip, identity", "\xff"):
        yield Fault(f"coding:{coding!a}", packed(zipped, coding), EITHER)
    yield Fault("coding:x-gzip", packed(zipped, "x-gzip"), READ)
    yield Fault("coding:GZIP", packed(zipped, "GZIP"), READ)
    yield Fault("coding:identity", packed(bytes, "identity"), READ)
    yield Fault("coding:unnamed", _with_body(zipped), RIGHT)
    yield Fault(
        "coding:twice", _with_body(zipped, "Content-Encoding: gzip", "Content-Encoding: gzip")
    )


# -------------------------------------------------------------------------------------------- texts


def flipped(bit: int) -> Fault:
    """Return the fault that flips one bit of the body, counted from its first byte's lowest."""

    def flip(body: bytes) -> bytes:
        changed = bytearray(body)
        changed[bit // 8 % len(body)] ^= 1 << bit % 8
        return bytes(changed)

    return Fault(f"flipped:{bit // 8}.{bit % 8}", _with_body(flip))


def _texts() -> Iterator[Fault]:
    for name, body, outcome in (
        ("byte-order-mark", lambda b: b"\xef\xbb\xbf" + b, READ),
        ("two-byte-order-marks", lambda b: b"\xef\xbb\xbf" * 2 + b, EITHER),
        ("utf-16", lambda b: b.decode().encode("utf-16"), EITHER),
        ("utf-16-le", lambda b: b.decode().encode("utf-16-le"), EITHER),
        ("utf-32", lambda b: b.decode().encode("utf-32"), EITHER),
        ("utf-7", lambda b: b.decode().encode("utf-7"), EITHER),
        ("latin-1-inside", lambda b: b[:-2] + b',"\xeb":1' + b[-2:], RIGHT),
        ("latin-1-key", lambda b: b'{"\xeb":1,' + b[1:], RIGHT),
        ("latin-1-value", lambda b: b'{"x":"\xeb",' + b[1:], RIGHT),
        ("overlong", lambda b: b'{"x":"\xc0\xaf",' + b[1:], RIGHT),
        ("surrogate-bytes", lambda b: b'{"x":"\xed\xa0\x80",' + b[1:], RIGHT),
        ("white-space", lambda b: b" \t\r\n" + b + b"\r\n ", READ),
        ("nul-behind", lambda b: b + b"\0", RIGHT),
        ("comma-behind", lambda b: b + b",", RIGHT),
        ("twice", lambda b: b + b, RIGHT),
        ("comment", lambda b: b"/* hello */" + b, RIGHT),
        ("nan", lambda b: b'{"x":NaN,' + b[1:], RIGHT),
        ("cut", lambda b: b[:-1], RIGHT),
        ("missing-quote", lambda b: b.replace(b'"', b"", 1), RIGHT),
        ("null", lambda b: b"null", RIGHT),
        ("a-list", lambda b: b"[]", RIGHT),
        ("a-list-of-it", lambda b: b"[" + b + b"]", RIGHT),
        ("a-string", lambda b: b'"' + b.replace(b'"', b"'") + b'"', RIGHT),
        ("a-number", lambda b: b"7", RIGHT),
        ("an-object", lambda b: b"{}", RIGHT),
        ("nothing", lambda b: b"", RIGHT),
        ("html", lambda b: b"<html><body>Bad day</body></html>", RIGHT),
        ("an-object-first", lambda b: b"{}" + b, RIGHT),
        ("deep", lambda b: b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"," + b[1:], EITHER),
        ("deep-and-open", lambda b: b'{"x":' + b"[" * 100_000, RIGHT),
        ("long-number", lambda b: b'{"x":' + b"9" * 10_000 + b"," + b[1:], EITHER),
        ("big-exponent", lambda b: b'{"x":1e9999,' + b[1:], EITHER),
        ("lone-surrogate", lambda b: b'{"x":"\\ud800",' + b[1:], READ),
        ("null-escape", lambda b: b'{"x\\u0000":"\\u0000",' + b[1:], READ),
        ("key-escape", lambda b: b.replace(b'"status"', b'"st\\u0061tus"'), READ),
    ):  # fmt: skip
        yield Fault(f"text:{name}", _with_body(body), outcome)
    for charset in ("latin-1", "utf-16", "nonsense", ""):
        yield Fault(
            f"text:charset-{charset or 'empty'}",
            _with_headers(f"Content-Type: application/json; charset={charset}"),
            READ,
        )
    yield Fault(
        "text:no-type", _fixed(lambda e: e.reply.whole.replace(b"Content-Type", b"X", 1)), RIGHT
    )
    yield Fault(
        "text:odd-type",
        _fixed(lambda e: e.reply.whole.replace(b"application/json", b"\xff/;;=", 1)),
    )


# ------------------------------------------------------------------------------ headers and lines


def _headers() -> Iterator[Fault]:
    for size, outcome in ((9_000, READ), (60_000, READ), (70_000, EITHER), (1_000_000, EITHER)):
        yield Fault(f"headers:one-of-{size}", _with_headers("X-Long: " + "y" * size), outcome)
    yield Fault("headers:long-name", _with_headers("X" * 60_000 + ": y"), EITHER)
    yield Fault("headers:64-of-900", _with_headers(*["X-Many: " + "y" * 890] * 64), READ)
    yield Fault("headers:ten-thousand", _with_headers(*["X: y"] * 10_000), EITHER)
    for name, line in {
        "blank-in-name": "X Y: 1",
        "blank-before-colon": "X : 1",
        "no-name": ": 1",
        "no-colon": "just words",
        "brackets": "X(Y): 1",
        "letters": "X\xfc: 1",
        "at": "X@Y: 1",
        "nul-in-name": "X\0Y: 1",
        "nul-in-value": "X: a\0b",
        "control-in-value": "X: a\x01b\x7f",
        "folded": "X: a\r\n b",
        "bare-cr": "X: a\rY: b",
        "bare-lf": "X: a\nY: b",
        "latin-1": "X: \xeb\xff",
        "empty": "X:",
        "cookies": "Set-Cookie: a=b; Domain=.com; Path=/",
        "bad-cookie": "Set-Cookie: \x01=;;;==",
        "expect": "Expect: 100-continue",
        "upgrade": "Upgrade: h2c",
        "retry-after": "Retry-After: soon",
        "bad-date": "Date: yesterday",
        "keep-alive": "Keep-Alive: timeout=-1, max=x",
        "trailer": "Trailer: Content-Length",
        "location": "Location: http://127.0.0.1:1/elsewhere",
        "authenticate": "WWW-Authenticate: Basic",
    }.items():
        yield Fault(f"headers:{name}", _with_raw_header(line))
    yield Fault(
        "lines:bare-line-feeds",
        _fixed(lambda e: e.reply.head().replace(b"\r\n", b"\n") + e.reply.body),
    )
    yield Fault(
        "lines:bare-returns",
        _closed(lambda e: e.reply.head().replace(b"\r\n", b"\r") + e.reply.body),
    )
    yield Fault(
        "lines:one-bare-line-feed",
        _fixed(lambda e: e.reply.head().replace(b"\r\n", b"\n", 1) + e.reply.body),
    )
    for name, start, outcome in (
        ("http-1.0", b"HTTP/1.0 200 OK", READ),
        ("http-1.2", b"HTTP/1.2 200 OK", EITHER),
        ("http-2.0", b"HTTP/2.0 200 OK", EITHER),
        ("http-11.1", b"HTTP/11.1 200 OK", EITHER),
        ("http-alone", b"HTTP 200 OK", EITHER),
        ("lower-case", b"http/1.1 200 OK", EITHER),
        ("no-reason", b"HTTP/1.1 200", READ),
        ("blank-reason", b"HTTP/1.1 200 ", READ),
        ("blanks", b"HTTP/1.1   200   OK", EITHER),
        ("tab", b"HTTP/1.1\t200\tOK", EITHER),
        ("icy", b"ICY 200 OK", EITHER),
        ("odd-reason", b"HTTP/1.1 200 \xe2\x98\x83 \xff", EITHER),
        ("long-reason", b"HTTP/1.1 200 " + b"O" * 50_000, EITHER),
        ("short-status", b"HTTP/1.1 20 OK", EITHER),
        ("long-status", b"HTTP/1.1 2000 OK", EITHER),
        ("negative-status", b"HTTP/1.1 -200 OK", EITHER),
        ("status-in-words", b"HTTP/1.1 two OK", RIGHT),
        ("arabic-status", "HTTP/1.1 ٢٠٠ OK".encode(), RIGHT),
        ("a-request", b"GET / HTTP/1.1", RIGHT),
        ("ssh", b"SSH-2.0-OpenSSH_9.6", RIGHT),
    ):
        yield Fault(f"lines:{name}", _closed_line(start), outcome)
    yield Fault(
        "lines:http-1.0-kept-alive",
        _fixed(
            lambda e: (
                e.reply.head("Connection: keep-alive").replace(b"1.1", b"1.0", 1) + e.reply.body
            )
        ),
        READ,
    )
    yield Fault("lines:http-0.9", _closed(lambda e: e.reply.body), RIGHT)
    yield Fault("lines:http-2", _closed(lambda e: b"\0\0\x12\4\0\0\0\0\0" + bytes(18)), RIGHT)
    yield Fault("lines:tls-alert", _closed(lambda e: b"\x15\x03\x03\0\2\2\x28"), RIGHT)
    yield Fault("lines:an-empty-line", _closed(lambda e: b"\r\n\r\n"), RIGHT)
    yield Fault("close:said-and-kept", _with_headers("Connection: close"), RIGHT)
    yield Fault("close:not-said", lambda e: iter((e.reply.whole, End.CLOSE)), READ)
    yield Fault(
        "close:keep-alive-said",
        lambda e: iter((e.reply.head("Connection: keep-alive") + e.reply.body, End.CLOSE)),
        READ,
    )
    yield Fault("close:both-said", _with_headers("Connection: close, keep-alive"), READ)


def _with_raw_header(line: str) -> Callable[[Exchange], Steps]:
    def steps(exchange: Exchange) -> Steps:
        first, rest = exchange.reply.head().split(b"\r\n", 1)
        yield first + b"\r\n" + line.encode("latin-1") + b"\r\n" + rest + exchange.reply.body

    return steps


def _closed_line(line: bytes) -> Callable[[Exchange], Steps]:
    def steps(exchange: Exchange) -> Steps:
        whole = exchange.reply.whole
        yield line + whole[whole.index(b"\r\n") :]
        yield End.CLOSE

    return steps


# ----------------------------------------------------------------------------------------- statuses

_TRANSIENT = {408, 429, *range(500, 600)}


def _bare(status: int) -> Callable[[Exchange], bytes]:
    return lambda exchange: f"HTTP/1.1 {status} Odd\r\n\r\n".encode()


def _statuses() -> Iterator[Fault]:
    for status in (201, 202, 203, 299):
        yield Fault(
            f"status:{status}", _with_status(f"{status} Fine"), READ if status != 202 else RIGHT
        )
    for status in (204, 205, 206, 304):
        yield Fault(f"status:{status}-with-a-body", _with_status(f"{status} Odd"))
        yield Fault(f"status:{status}", _closed(_bare(status)))
    for status in (300, 301, 302, 303, 307, 308, 399):
        steps = _with_status(f"{status} Away", "Location: http://127.0.0.1:1/x", body=b"")
        yield Fault(f"status:{status}", steps, ERROR)
        yield Fault(f"status:{status}-with-the-body", _with_status(f"{status} Away"), ERROR)
    for status in (
        *(400, 401, 403, 405, 407, 408, 409, 410, 413, 418, 421, 425, 429, 431, 451, 499),
        *(500, 501, 502, 503, 504, 505, 511, 520, 522, 525, 599),
    ):
        outcome = RIGHT if status in _TRANSIENT else ERROR
        page = b"<html>no luck \xeb</html>"
        yield Fault(f"status:{status}", _with_status(f"{status} No", body=page), outcome)
        yield Fault(f"status:{status}-with-the-body", _with_status(f"{status} No"), outcome)
        yield Fault(f"status:{status}-empty", _with_status(f"{status} No", body=b""), outcome)
    for text in ("000", "099", "600", "999", "1000"):
        yield Fault(f"status:{text}", _with_status(f"{text} What"))


FAULTS = {
    fault.name: fault
    for family in (
        _unasked,
        _interim,
        _lengths,
        _chunks,
        _ends,
        _codings,
        _texts,
        _headers,
        _statuses,
    )
    for fault in family()
}
