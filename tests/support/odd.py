"""Records that some decoders refuse, as JSON text: nobody's `json.dumps` writes most of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st

__all__ = ["CASES", "DEEP", "MEMBERS", "PARTS", "RECORDS", "pretty", "written"]

DEEP = "[" * 4000 + '"x"' + "]" * 4000

NUMBERS = [
    "0", "-0", "7", "7.0", "70e-1", "0.7e1", "1.50", "-1.5", "1e400", "-1E+400", "1e-400", "1e99",
    "1e100", "9.19876543210E11", "919876543210", "9007199254740993", "9.007199254740993e15",
    "1e1000000", "0e1000000", "1" * 5000, "1" * 5000 + ".0", "1e" + "9" * 5000,
]  # fmt: skip
STRINGS = [
    '""', '"7"', '"7.0"', '"919876543210"', r'"\ud800"', r'"\udc00x"', '"\ufffd"',
    r'"\ud83d\ude00"', r'"a\u0000b"', '"a  b"', r'"\"identity\":\"7\""', '"é\u2028"', r'"\\ud800"',
]  # fmt: skip
CONTAINERS = [
    "[]", "{}", '["a","b"]', '{"a":[1.50,{"b":null}]}', r'["\ud800"]', r'{"\ud800":1}',
    '{"a":1,"a":2}', DEEP, '{"a":' * 4000 + "1" + "}" * 4000, '[[["a"],[{}]],"  "]',
    f'[{{"objectId":"d1","x":{DEEP}}}]', '{"objectId":"d1"}',
    '[{"objectId":"d1"},7,null,[],{"objectId":1e400},{"objectId":"d1"}]', '[{"platform":1.50}]',
    '{"A":{"count":1e400}}', '{"A":7}', '{"A":{"count":"2"}}', "[7]",
]  # fmt: skip

PARTS = st.sampled_from(["null", "true", "false", *NUMBERS, *STRINGS, *CONTAINERS])
"""Values of members."""

KEYS = st.sampled_from(
    [
        "identity",
        "email",
        "name",
        "phone",
        "objectId",
        "all_identities",
        "profileData",
        "events",
        "platformInfo",
        "ls",
        r"\u0069dentity",
        r"\ud800",
        "",
        "é",
        r"a\"b",
        "platformInfo ",
    ]
)

MEMBERS = st.lists(st.tuples(KEYS, PARTS), max_size=7)
"""Members of a record. A key can come twice."""


def written(members: Sequence[tuple[str, str]]) -> bytes:
    """Return a record without white space."""
    return ("{" + ",".join(f'"{key}":{value}' for key, value in members) + "}").encode()


RECORDS = st.builds(written, MEMBERS)

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},:]', re.DOTALL)


def pretty(data: bytes, newline: bytes = b"\r\n") -> bytes:
    """Return JSON with white space between all tokens."""

    def spaced(token: re.Match[bytes]) -> bytes:
        sign = token[0]
        if sign in (b"{", b"[", b","):
            return sign + newline + b"\t "
        return newline + sign if sign in (b"}", b"]") else sign + b" "

    return _TOKENS.sub(spaced, data)


CASES: dict[str, tuple[list[bytes], list[int]]] = {
    "the same twice": ([b'{"identity":"7"}', b'{"identity":"7","a":1}'], [0]),
    "numbers and text": (
        [b'{"identity":%b}' % sent for sent in (b"7", b'"7"', b"7.0", b"70e-1", b'"7.0"')],
        [0, 4],
    ),
    "a number in another notation": (
        [b'{"identity":9.1987654321E10}', b'{"identity":91987654321}'],
        [0],
    ),
    "beyond 2**53": (
        [b'{"identity":9007199254740993.0}', b'{"identity":9007199254740992}'],
        [0, 1],
    ),
    "no identity in three ways": (
        [b'{"objectId":"d","identity":%b}' % sent for sent in (b"null", b'""')]
        + [b'{"objectId":"d"}'],
        [0],
    ),
    "half a surrogate pair": (
        [
            rb'{"identity":"u\ud83d"}',
            rb'{"identity":"u\uDE00"}',
            '{"identity":"u\ufffd"}'.encode(),
            rb'{"identity":"u\ufffd"}',
            rb'{"identity":"\u0075\uD83D"}',
            rb'{"x":"\ud800","identity":"u\ufffd"}',
            rb'{"identity":{"\ud83d":1}}',
            rb'{"identity":{"\ud83e":1}}',
            rb'{"identity":{"\uD83D": 1}}',
        ],
        [0, 1, 2, 6, 7],
    ),
    "half a surrogate pair in a device": (
        [
            rb'{"objectId":"u\ud83d"}',
            rb'{"platformInfo":[{"objectId":"u\ude00"}]}',
            '{"platformInfo":[{"objectId":"u\ufffd"}]}'.encode(),
            rb'{"platformInfo":[{"objectId":"a"},{"objectId":"\u0075\uD83D"}]}',
            rb'{"objectId":"a"}',
            rb'{"objectId":"u\uDE00"}',
        ],
        [0, 1, 2],
    ),
    "NUL in a device is not its replacement": (
        [rb'{"objectId":"a\u0000"}', '{"objectId":"a\ufffd"}'.encode()],
        [0, 1],
    ),
    "NUL is not its replacement": (
        [rb'{"identity":"a\u0000"}', '{"identity":"a\ufffd"}'.encode()],
        [0, 1],
    ),
    "the last of two members counts": (
        [b'{"identity":"1","identity":"2"}', rb'{"identity":"3","\u0069dentity":"2"}'],
        [0],
    ),
    "devices in any order": (
        [
            b'{"platformInfo":[{"objectId":"a"},{"objectId":"b"}]}',
            b'{"objectId":"c","platformInfo":[{"objectId":"b"}]}',
            b'{"platformInfo":[{"objectId":"d"},{"objectId":"c"}]}',
            b'{"objectId":"e"}',
        ],
        [0, 3],
    ),
    "two that a third connects too late": (
        [
            b'{"objectId":"a"}',
            b'{"objectId":"b"}',
            b'{"platformInfo":[{"objectId":"a"},{"objectId":"b"}]}',
        ],
        [0, 1],
    ),
    "first nameless, then named": (
        [b'{"objectId":"a"}', b'{"identity":"1","objectId":"a"}', b'{"objectId":"a"}'],
        [0, 1],
    ),
    "neither identity nor device": (
        [b'{"name":"A"}', b'{"name":"B"}', b'{"name":"A"}', b"{}", b"{ }", b'{"name":\n"A"}'],
        [0, 1, 3],
    ),
    "neither identity nor device, spelled otherwise": (
        [
            '{"name":"Bö","x":[1,{"a":"/"}]}'.encode(),
            rb'{"name":"B\u00f6","x":[1,{"a":"\/"}]}',
            rb'{"x":[1.0,{"\u0061":"/"}],"name":"B\u00F6"}',
            rb'{"name":"\ud800","x":"\u00f6"}',
            '{"name": "\\uD800","x":"ö"}'.encode(),
            rb'{"name":"\ud801","x":"\u00f6"}',
            '{"name":"\ufffd","x":"ö"}'.encode(),
            b'{"name":"B","x":[1,{"a":"/"}]}',
        ],
        [0, 3, 5, 6, 7],
    ),
    "devices that cannot be read": (
        [
            b'{"objectId":"a","platformInfo":"x"}',
            b'{"objectId":"a","platformInfo":7}',
            b'{"platformInfo":{"objectId":"a"}}',
            b'{"platformInfo":[7,{"objectId":"a"}]}',
            b'{"platformInfo":[{"objectId":"b","x":%b}]}' % (b"[" * 5000 + b"]" * 5000),
            b'{"objectId":"b","x":1e400}',
        ],
        [0, 2, 4],
    ),
    "an identity is not a device": ([b'{"identity":"a"}', b'{"objectId":"a"}'], [0, 1]),
    "long ones": (
        [b'{"identity":"%b"}' % (b"x" * 5000), b'{"identity":%b}' % (b"1" * 5000)] * 2,
        [0, 1],
    ),
}
"""Records, and the places of those that are the first of their person."""
