"""The examination of `altaprofiles doctor`: machine, proxies, and each service with credentials."""

from __future__ import annotations

import platform
import shlex
import shutil
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from ... import __version__
from ...accounts import ENVIRONMENT, Resolved, accounts_path, find_alta, find_clevertap
from ...base.extras import EXTRAS, is_installed
from ...credentials import CleverTap
from ...errors import (
    AltaProfilesError,
    BadRequest,
    ConfigurationError,
    Forbidden,
    StatusError,
    Unauthorized,
)
from ...http.transport import Timeout
from ..app import App
from ..exits import Exit
from .connection import check_connection
from .findings import Finding
from .probe import probe_alta, probe_clevertap, try_regions

__all__ = ["examine"]

_LEAST_SPACE = 1 << 30
"""Bytes of free disk space, below which an export is likely to fail."""


async def examine(
    app: App, regions: Mapping[str, str], *, patience: float = 10.0
) -> AsyncIterator[Finding]:
    """Yield each finding as soon as it is known.

    Args:
        app: names the account.
        regions: where to try CleverTap's credentials if they are refused: base URLs by name.
        patience: the longest wait for a connection, in seconds.
    """
    for finding in (*_machine(), _proxies()):
        yield finding
    account = app.account
    try:
        clevertap, alta = find_clevertap(account), find_alta(account)
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
        async for finding in _clevertap(clevertap, account, regions, patience, app.limits):
            yield finding
    if alta is not None:
        key = alta.credentials
        yield Finding(f"Alta: {key.url}, from {alta.source}")
        async for finding in _service(
            "Alta",
            key.url,
            lambda: probe_alta(key, app.limits),
            accepted="the API key is accepted",
            correction=_correction(alta.source, account),
            patience=patience,
        ):
            yield finding


def _machine() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "msgspec", "anyio"))
    yield Finding(
        f"altaprofiles {__version__} with {libraries}, Python {platform.python_version()}, "
        f"{platform.system()}"
    )
    # Without the extra `cli`, this would not run.
    extras = [extra for extra in EXTRAS if extra != "cli"]
    installed = [extra for extra in extras if is_installed(extra)]
    missing = [extra for extra in extras if extra not in installed]
    yield Finding(
        f"extras installed: {', '.join(installed) or 'none'}; not installed: "
        f"{', '.join(missing) or 'none'}",
        f"Should you need them: pip install 'altaprofiles[{','.join(missing)}]'"
        if missing
        else None,
    )
    try:
        folder = Path.cwd()
        with tempfile.TemporaryFile(dir=folder):
            space = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding(
            f"cannot write to the current folder: {error.strerror}",
            "Exports are written there, unless --out names another folder",
            Exit.FAILED,
        )
        return
    text = f"can write to {folder}; {space / (1 << 30):,.1f} GiB of it are free"
    if space < _LEAST_SPACE:
        advice = "An export gathers all its records there as JSON before it writes its output"
        yield Finding(text, advice, Exit.FAILED)
    else:
        yield Finding(text)


def _proxies() -> Finding:
    urls = {name: url for name, url in urllib.request.getproxies().items() if name != "no"}
    if not urls:
        return Finding("no proxy is set")
    # Without user and password.
    texts = ", ".join(f"{name}: {url.rpartition('@')[2]}" for name, url in urls.items())
    return Finding(f"a proxy is set ({texts})")


async def _clevertap(
    found: Resolved[CleverTap],
    name: str | None,
    regions: Mapping[str, str],
    patience: float,
    limits: Timeout,
) -> AsyncIterator[Finding]:
    account = found.credentials
    place = account.url if account.base_url else f"region {account.region}"
    yield Finding(f"CleverTap: account {account.account_id}, {place}, from {found.source}")
    correction = _correction(found.source, name)
    if not regions:
        option = "" if name is None else f" --account {shlex.quote(name)}"
        correction += f"; for the region: altaprofiles doctor{option} --try-regions"
    is_refused = False
    async for finding in _service(
        "CleverTap",
        account.url,
        lambda: probe_clevertap(account, limits),
        accepted="the credentials are accepted",
        correction=correction,
        patience=patience,
    ):
        is_refused = is_refused or finding.code is Exit.CREDENTIALS
        yield finding
    if is_refused and regions:
        yield await _right_region(found, regions, limits)


async def _service(
    label: str,
    url: str,
    probe: Callable[[], Awaitable[None]],
    *,
    accepted: str,
    correction: str,
    patience: float,
) -> AsyncIterator[Finding]:
    """Check the connection to a service, then its credentials.

    Args:
        label: the service's name.
        url: its address.
        probe: sends it one request with the credentials.
        accepted: the finding if they are accepted.
        correction: the advice if they are refused, with `Exit.CREDENTIALS`.
        patience: the longest wait for a connection, in seconds.
    """
    is_reached = True
    async for finding in check_connection(label, url, patience):
        is_reached = is_reached and finding.code is None
        yield finding
    if not is_reached:
        return
    try:
        await probe()
    except (Unauthorized, Forbidden) as error:
        yield Finding(str(error), correction, Exit.CREDENTIALS)
    except AltaProfilesError as error:
        # A request that the service calls wrong will be wrong again later.
        advice = None if isinstance(error, BadRequest) else "Try again later"
        yield Finding(str(error), advice, Exit.FAILED)
    else:
        yield Finding(f"{label}: {accepted}")


def _correction(source: str, name: str | None) -> str:
    if source == ENVIRONMENT:
        return (
            "Correct the environment; it takes precedence over the file, unless you pass "
            "--account NAME"
        )
    return f"Log in again: altaprofiles login{'' if name is None else f' {shlex.quote(name)}'}"


async def _right_region(
    found: Resolved[CleverTap], regions: Mapping[str, str], limits: Timeout
) -> Finding:
    account = found.credentials
    errors = await try_regions(account.account_id, account.passcode, regions, limits)
    right = [name for name, error in errors.items() if error is None]
    if right:
        return Finding(
            f"CleverTap: the credentials are accepted in region {' and '.join(right)}",
            f"Set CLEVERTAP_REGION={right[0]}, and unset CLEVERTAP_BASE_URL"
            if found.source == ENVIRONMENT
            else f'Write region = "{right[0]}" in {accounts_path()}, and remove base_url',
            is_note=True,
        )
    refused = [name for name, error in errors.items() if isinstance(error, StatusError)]
    unknown = [name for name in errors if name not in refused]
    text = f"CleverTap: refused in {', '.join(refused) or 'no region'}"
    if unknown:
        return Finding(
            f"{text}; no answer from {', '.join(unknown)} ({errors[unknown[0]]})",
            "Check the network, or try again later",
            Exit.FAILED,
        )
    return Finding(
        f"{text}, which is every region",
        "It is not the region: check account ID and passcode in the dashboard, under Settings",
        Exit.CREDENTIALS,
    )
