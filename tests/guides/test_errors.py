"""The recipes of the guide on errors are right whatever the service sends."""

from __future__ import annotations

import pytest

from altaprofiles import CleverTap, Retry, Session

from ..support.guides import function_of
from ..support.servers import always, http, scripted


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [([], 60), (["Retry-After: 0"], 1), (["Retry-After: Thu, 01 Jan 2026 00:00:00 GMT"], 1)],
)
async def test_the_wait_of_a_refusal_is_at_least_a_second(headers: list[str], seconds: int) -> None:
    wait_of = function_of("errors.md", "wait_of")
    refusal = http(b'{"status":"fail"}', "429 Too Many Requests", *headers)
    async with (
        scripted(always(refusal)) as server,
        Session(
            clevertap=CleverTap("A", "P", base_url=server.url), retry=Retry(attempts=1)
        ) as session,
    ):
        assert await wait_of(session, "7") == seconds
