"""Records that some decoders refuse, as JSON text: nobody's `json.dumps` writes most of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st

__all__ = ["DEEP", "MEMBERS", "PARTS", "RECORDS", "pretty", "written"]

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
