"""Records, usual and odd, and reports of progress."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from altaprofiles import ChainStatus, ExportProgress, LookupProgress

FULL = (
    b'{"identity":"7","email":"a@example.com","name":"Ann","phone":4915112345678,"objectId":"d0",'
    b'"all_identities":["7",8,null],"badKs":["x"],"profileData":{"plan":"gold","since":"$D_0"},'
    b'"events":{"Charged":{"count":6,"first_seen":1457962417,"last_seen":1458041276}},'
    b'"platformInfo":[{"platform":"iOS","os_version":10.2,"objectId":"d1"},{"platform":"Web"},'
    b'{"objectId":"d1","phone":5},{"objectId":"d0"}],"ls":1}'
)


DEEP = b"[" * 20_000 + b"]" * 20_000


ODD: list[tuple[bytes, str, Any]] = [
    (b'{"identity":{"a" : [1, 2.50]}}', "identity", '{"a":[1,2.50]}'),
    (b'{"identity":1e400000}', "identity", "1e400000"),
    (b'{"phone":%b}' % (b"1" * 5000), "phone", "1" * 5000),
    (b'{"name":%b}' % DEEP, "name", DEEP.decode()),
    (b'{"name":true}', "name", "true"),
    (b'{"email":""}', "email", ""),
    (b'{"platformInfo":{"objectId":"a"}}', "object_ids", []),
    (b'{"platformInfo":{"objectId":"a"}}', "platform_info", b'{"objectId":"a"}'),
    (b'{"platformInfo":[{"objectId":7},null,3,[],{"objectId":"b"}]}', "object_ids", ["7", "b"]),
    (b'{"platformInfo":[{"objectId":{"a":1}}]}', "object_ids", ['{"a":1}']),
    (b'{"platformInfo":%b,"objectId":"b"}' % DEEP, "object_ids", ["b"]),
    (b'{"objectId":""}', "object_ids", []),
    (b'{"profileData":[1]}', "profile_data", b"[1]"),
    (b'{"profileData":[1]}', "a", None),
    (b'{"profileData":"{"}', "a", None),
    (b'{"profileData":{"a":[1, 2]}}', "a", "[1,2]"),
    (b'{"profileData":{"a":1.50}}', "a", "1.50"),
    (b'{"profileData":{"a":1e999}}', "a", "1e999"),
    (b'{"profileData":{"a":%b}}' % DEEP, "a", DEEP.decode()),
    (b'{"profileData":{"\\u0061":"x"}}', "a", "x"),
    (b'{"profileData":{"a":""}}', "a", ""),
    (b'{"profileData":{"a":"\xc3\xab"}}', "a", "ë"),
    (b'{ "x" : { "y" : 1 } }', "extra", b'{"x":{ "y" : 1 }}'),
    (b'{"a\\"b\\u0000":1}', "extra", b'{"a\\"b\\u0000":1}'),
]


BROKEN = (
    rb'{"\udc00":1, "identity":"\ud83d", "name":"fine \\ud83d", "profileData":{"a":"\ud800", '
    rb'"b":"x","\ud801":2},"events":{"A":"\udfff"},"platformInfo":[{"objectId":"\ud83dz"}],'
    rb'"x":"\ud83d\ude00"}'
)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


RECORDS = st.dictionaries(
    st.sampled_from(
        ["identity", "email", "name", "phone", "objectId", "profileData", "events", "platformInfo"]
    )
    | st.text(),
    JSON,
    max_size=8,
)


AT = ExportProgress(
    stage="reading",
    chains=[ChainStatus("<b>", 20260101, 20260131, 50, 1, False, 0, 200)],
    records=50,
    total=200,
    resumed=0,
    finished=0,
    people=0,
    requests=3,
    retries=1,
    in_flight=2,
    slots=3,
    seconds=2.0,
)


LOOKING_UP = LookupProgress(
    stage="asking",
    keys=10,
    found=1,
    not_found=2,
    failed=3,
    resumed=0,
    finished=0,
    requests=6,
    retries=2,
    in_flight=1,
    slots=1,
    seconds=1.0,
)
