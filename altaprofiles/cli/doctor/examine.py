"""`altaprofiles doctor`: what could be wrong, looked at one by one."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ... import __version__
from ...accounts import ENVIRONMENT, Resolved, accounts_path, find_alta, find_clevertap
from ...credentials import REGIONS, Alta, CleverTap
from ...errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    Forbidden,
    StatusError,
    Unauthorized,
)
from ...session import Session
from ..app import App
from ..consoles import output_console
from ..exits import Exit
from .connection import look_at_connection
from .findings import Finding
from .probe import QUICK, ask_alta, ask_clevertap, try_regions

__all__ = ["examine", "examine_all"]

_LEAST_ROOM = 1 << 30

_EXTRAS = {
    "parquet": ("pyarrow",),
    "duckdb": ("duckdb", "pyarrow"),
    "postgres": ("psycopg",),
    "keyring": ("keyring",),
    "speedups": ("isal",) if sys.platform == "win32" else ("isal", "uvloop"),
    "zstd": ("compression.zstd",) if sys.version_info >= (3, 14) else ("backports.zstd",),
}


def examine_all(app: App, *, try_regions: bool) -> None:
    """Print the report, line by line, and exit with what it comes to."""
    console = output_console()
    worst: list[Exit] = []

    async def main() -> None:
        async for finding in examine(app, REGIONS if try_regions else {}):
            if finding.code is not None:
                worst.append(finding.code)
            console.print(finding.line(), soft_wrap=True)

    app.run(main)
    if worst:
        sys.exit(max(worst))


async def examine(
    app: App, regions: Mapping[str, str], *, patience: float = 10.0
) -> AsyncIterator[Finding]:
    """Yield what there is to say.

    Args:
        app: says which account.
        regions: where to try CleverTap's credentials if they are refused: name to base URL.
        patience: seconds to wait for a connection.
    """
    for finding in (*_machine(), *_proxies()):
        yield finding
    try:
        clevertap, alta = find_clevertap(app.account), find_alta(app.account)
    except ConfigurationError as error:
        yield Finding(str(error), code=Exit.CREDENTIALS)
        return
    if clevertap is None and alta is None:
        yield Finding(
            f"no credentials, neither in the environment nor in {accounts_path()}",
            "Run: altaprofiles login; or set CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and "
            "CLEVERTAP_REGION, or ALTA_TOKEN",
            Exit.CREDENTIALS,
        )
    if clevertap is not None:
        async for finding in _clevertap(clevertap, app.account, regions, patience):
            yield finding
    if alta is not None:
        async for finding in _alta(alta, app.account, patience):
            yield finding


def _machine() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "msgspec", "anyio"))
    yield Finding(
        f"altaprofiles {__version__} with {libraries}, Python {platform.python_version()}, "
        f"{platform.system()}"
    )
    there = [name for name, modules in _EXTRAS.items() if all(map(_is_installed, modules))]
    missing = [name for name in _EXTRAS if name not in there]
    yield Finding(
        f"extras installed: {', '.join(there) or 'none'}; not installed: "
        f"{', '.join(missing) or 'none'}",
        f"Should you need them: pip install 'altaprofiles[{','.join(missing)}]'"
        if missing
        else None,
    )
    try:
        here = Path.cwd()
        with tempfile.TemporaryFile(dir=here):
            room = shutil.disk_usage(here).free
    except OSError as error:
        yield Finding(
            f"cannot write to the current folder: {error.strerror}",
            "Exports go there, unless --out says otherwise",
            Exit.FAILED,
        )
        return
    text = f"can write to {here}; {room / (1 << 30):,.1f} GiB are free there"
    if room < _LEAST_ROOM:
        advice = "An export gathers all its records there as JSON, and then writes its output"
        yield Finding(text, advice, Exit.FAILED)
    else:
        yield Finding(text)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _proxies() -> Iterator[Finding]:
    found = {name: url for name, url in urllib.request.getproxies().items() if name != "no"}
    if not found:
        yield Finding("no proxy is set")
        return
    # Without user and password.
    shown = ", ".join(f"{name}: {url.rpartition('@')[2]}" for name, url in found.items())
    yield Finding(f"a proxy is set ({shown})")


async def _clevertap(
    found: Resolved[CleverTap], name: str | None, regions: Mapping[str, str], patience: float
) -> AsyncIterator[Finding]:
    account = found.credentials
    where = account.url if account.base_url else f"region {account.region}"
    yield Finding(f"CleverTap: account {account.account_id}, {where}, from {found.source}")
    reached = True
    async for finding in look_at_connection("CleverTap", account.url, patience):
        reached = reached and finding.code is None
        yield finding
    if not reached:
        return
    try:
        async with Session(clevertap=account, retry=QUICK, trust_env=True) as session:
            await ask_clevertap(session)
    except (Unauthorized, Forbidden) as error:
        option = "" if name is None else f" --account {shlex.quote(name)}"
        advice = _correct(found.source, name)
        if not regions:
            advice += f"; for the region: altaprofiles doctor{option} --try-regions"
        yield Finding(str(error), advice, Exit.CREDENTIALS)
        if regions:
            yield await _right_region(found, regions)
    except AltaProfilesError as error:
        yield Finding(str(error), _later(error), Exit.FAILED)
    else:
        yield Finding("CleverTap: the credentials are accepted")


def _later(error: AltaProfilesError) -> str | None:
    # What is refused as it is will be refused again.
    return None if isinstance(error, BadRequest) else "Try again later"


async def _right_region(found: Resolved[CleverTap], regions: Mapping[str, str]) -> Finding:
    account = found.credentials
    results = await try_regions(account.account_id, account.passcode, regions)
    right = [name for name, error in results.items() if error is None]
    if right:
        return Finding(
            f"CleverTap: the credentials are accepted in region {' and '.join(right)}",
            f"Set CLEVERTAP_REGION={right[0]}, and leave CLEVERTAP_BASE_URL out"
            if found.source == ENVIRONMENT
            else f'Write region = "{right[0]}" in {accounts_path()}, and leave base_url out',
            note=True,
        )
    refused = [name for name, error in results.items() if isinstance(error, StatusError)]
    unknown = [name for name in results if name not in refused]
    text = f"CleverTap: refused in {', '.join(refused) or 'no region'}"
    if unknown:
        return Finding(
            f"{text}; no answer from {', '.join(unknown)} ({results[unknown[0]]})",
            "Check the network, or try again later",
            Exit.FAILED,
        )
    return Finding(
        f"{text}, which is every region",
        "It is not the region: check account ID and passcode in the dashboard, under Settings",
        Exit.CREDENTIALS,
    )


async def _alta(found: Resolved[Alta], name: str | None, patience: float) -> AsyncIterator[Finding]:
    key = found.credentials
    yield Finding(f"Alta: {key.url}, from {found.source}")
    reached = True
    async for finding in look_at_connection("Alta", key.url, patience):
        reached = reached and finding.code is None
        yield finding
    if not reached:
        return
    try:
        async with Session(alta=key, retry=QUICK, trust_env=True) as session:
            await ask_alta(session)
    except (Unauthorized, Forbidden) as error:
        yield Finding(str(error), _correct(found.source, name), Exit.CREDENTIALS)
    except AltaProfilesError as error:
        yield Finding(str(error), _later(error), Exit.FAILED)
    else:
        yield Finding("Alta: the API key is accepted")


def _correct(source: str, name: str | None) -> str:
    if source == ENVIRONMENT:
        return "Correct the environment; it goes before the file, unless you pass --account NAME"
    return f"Log in again: altaprofiles login{'' if name is None else f' {shlex.quote(name)}'}"
