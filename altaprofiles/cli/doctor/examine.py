"""The examination of `altaprofiles doctor`: machine, proxies, and each service with credentials."""

from __future__ import annotations

import platform
import shutil
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

from ... import __version__
from ...accounts import ENVIRONMENT, Resolved, accounts_path, find_alta, find_clevertap
from ...base.extras import CORE, EXTRAS, is_installed, outdated, update_of, version_of
from ...base.open_files import limit_of_open_files
from ...base.wording import duration
from ...credentials import Alta, CleverTap, InvalidSetting, ignored_variables
from ...errors import (
    AltaProfilesError,
    ConfigurationError,
    Forbidden,
    RateLimited,
    Unauthorized,
)
from ...models import RateLimit
from ..app import App
from ..exits import Exit
from ..option_names import foreign_texts, rewritten
from ..waits import remedy
from .connection import check_connection
from .findings import Finding
from .forecast import renews_in
from .probe import QUICK, Limits, may_be_elsewhere
from .services import Service, alta_service, clevertap_service
from .sharing import check_sharing

__all__ = ["examine"]

C = TypeVar("C", CleverTap, Alta)

_LEAST_FILES = 256
"""Files that can be open at once, below which many requests at once may fail."""

_LEAST_SPACE = 1 << 30
"""Bytes of free disk space, below which an export is likely to fail."""


async def examine(
    app: App,
    regions: Mapping[str, str],
    platforms: Mapping[str, str] = MappingProxyType({}),
    *,
    patience: float = 10.0,
) -> AsyncIterator[Finding]:
    """Yield each finding as soon as it is known.

    Args:
        app: names the account.
        regions: where to try CleverTap's credentials if they are refused: base URLs by name.
        platforms: likewise for Alta's API key.
        patience: the longest wait for a connection, in seconds.
    """
    for finding in (*_machine(), _proxies()):
        yield finding
    account = app.account
    clevertap, of_clevertap = _found(find_clevertap, account)
    alta, of_alta = _found(find_alta, account)
    faults = [fault for fault in (of_clevertap, of_alta) if fault is not None]
    # A fault of the whole file is the same for both services.
    for fault in dict.fromkeys(faults):
        yield fault
    for prefix in ("CLEVERTAP", "ALTA"):
        if account is None and (ignored := ignored_variables(prefix)):
            yield Finding(ignored, is_note=True)
    if clevertap is None and alta is None and not faults:
        yield Finding(
            f"no credentials, neither in the environment nor in {accounts_path()}",
            "Run: altaprofiles login; or set CLEVERTAP_ACCOUNT_ID, CLEVERTAP_PASSCODE and "
            "CLEVERTAP_REGION, or ALTA_TOKEN and ALTA_ENDPOINT",
            Exit.CREDENTIALS,
        )
    services: list[Service] = []
    limits = Limits(app.limits, app.retry(QUICK), app.waits(usual=QUICK).note)
    if clevertap is not None:
        services.append(clevertap_service(clevertap, regions, limits))
    if alta is not None:
        services.append(alta_service(alta, platforms, limits))
    for service in services:
        async for finding in _service(service, app, patience):
            yield finding


def _found(
    find: Callable[[str | None], Resolved[C] | None], account: str | None
) -> tuple[Resolved[C] | None, Finding | None]:
    """Return the credentials of a service, or the finding on the fault of their configuration."""
    try:
        return find(account), None
    except InvalidSetting as error:
        return None, Finding(str(error), code=Exit.USAGE)
    except ConfigurationError as error:
        return None, Finding(str(error), code=Exit.CREDENTIALS)


def _machine() -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version_of(name)}" for name in CORE)
    yield Finding(
        f"altaprofiles {__version__} with {libraries}, Python {platform.python_version()}, "
        f"{platform.system()}"
    )
    # One of `CORE` that is too old has ended the command by now.
    modules = dict.fromkeys(name for names in EXTRAS.values() for name in names)
    if old := [one for one in map(outdated, modules) if one is not None]:
        yield Finding(
            " and ".join(map(str, old)),
            f"What needs it here may fail. Run: {update_of(old)}",
            is_note=True,
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
    limit = limit_of_open_files()
    if limit is not None and limit < _LEAST_FILES:
        yield Finding(
            f"a process may have {limit} files and connections open here",
            "An export, or many requests at once, can need more: ulimit -n 1024",
            is_note=True,
        )
    try:
        folder = Path.cwd()
        with tempfile.TemporaryFile(dir=folder):
            space = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding(
            f"cannot write to the current folder: {error.strerror}",
            "Exports are written there, unless --out names another folder, and so are the "
            "manifests of PostgreSQL tables",
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


async def _service(service: Service, app: App, patience: float) -> AsyncIterator[Finding]:
    """Check the connection to a service, then its credentials, here and elsewhere.

    Args:
        service: the service.
        app: names the account.
        patience: the longest wait for a connection, in seconds.
    """
    label = service.label

    def in_its_words(error: AltaProfilesError) -> str:
        return rewritten(str(error), foreign_texts(error), service.found.in_its_words)

    yield Finding(f"{label}: {service.account}, from {service.found.source}")
    sharing = await check_sharing(label, service.found)
    yield sharing
    if sharing.code is not None:
        return
    is_reached = True
    async for finding in check_connection(label, service.url, patience):
        is_reached = is_reached and finding.code is None
        yield finding
    if not is_reached:
        return
    try:
        probe = await service.probe()
    except (Unauthorized, Forbidden) as error:
        if not may_be_elsewhere(error):
            # Its hint is the next step.
            yield Finding(in_its_words(error), None, Exit.CREDENTIALS)
            return
        advice = _correction(service, app)
        yield Finding(in_its_words(error), advice, Exit.CREDENTIALS)
    except AltaProfilesError as error:
        yield Finding(in_its_words(error), remedy(error), Exit.FAILED)
        return
    else:
        yield Finding(f"{label}: {service.accepted}")
        if probe.finding is not None:
            yield Finding(f"{label}: {probe.finding}")
        if (limit := _limit(label, probe.stated)) is not None:
            yield limit
        yield Finding(f"{label}: {service.forecast(probe)}")
        return
    if service.places and service.found.is_at_gateway(service.places):
        yield _without_places(service)
    elif service.places:
        hosts = ", ".join(urlsplit(url).netloc for url in service.places.values())
        yield Finding(f"{label}: --try-regions sends {service.secrets} to {hosts}", is_note=True)
        yield _right_place(service, await service.try_places())


def _without_places(service: Service) -> Finding:
    """Return the note that credentials of a gateway are not sent to the vendor's own hosts."""
    return Finding(
        f"{service.label}: --try-regions is skipped, because {service.secrets} may be meant for "
        f"{service.url} only",
        f"To send them to every {service.place} all the same: "
        f"{service.found.step_without('base_url')}",
        is_note=True,
    )


def _limit(label: str, stated: RateLimit) -> Finding | None:
    """Return the finding on the limit that a service states, or None if it states none."""
    if stated.remaining is None:
        return (
            None if stated.limit is None else Finding(f"{label}: allows {stated.limit:,} requests")
        )
    of = "" if stated.limit is None else f" of {stated.limit:,}"
    text = f"{label}: {stated.remaining:,}{of} requests are left"
    if (wait := renews_in(stated)) is not None:
        text = f"{text}, and all again in {duration(wait)}"
    if stated.remaining == 0:
        return Finding(text, "Until then every request is refused", is_note=True)
    return Finding(text)


def _correction(service: Service, app: App) -> str:
    if service.found.source == ENVIRONMENT:
        text = (
            "Correct the environment; it takes precedence over the file, unless you pass "
            "--account NAME"
        )
    else:
        text = f"Log in again: {app.logging_in()}"
    if service.places:
        return text
    return f"{text}; for the {service.place}: {app.trying_regions(service.found)}"


def _right_place(service: Service, errors: Mapping[str, AltaProfilesError | None]) -> Finding:
    """Return the finding on the places where the credentials were tried.

    Args:
        service: the service.
        errors: for each place None if it accepts the credentials, else the error.
    """
    label, noun, at = service.label, service.place, service.preposition
    right = [name for name, error in errors.items() if error is None]
    known = [name for name, error in errors.items() if _knows_the_credentials(error)]
    if right or known:
        name = (right or known)[0]
        text = f"{label}: {service.accepted} {at} {noun} {' and '.join(right)}"
        if not right:
            text = f"{label}: {noun} {name} knows {service.secrets}, and answers: {errors[name]}"
        found = service.found
        place, base_url = found.name_of(service.argument), found.name_of("base_url")
        advice = f"Set {place}={name}, and unset {base_url}"
        if found.source != ENVIRONMENT:
            advice = f'Write {place} = "{name}" in {accounts_path()}, and remove {base_url}'
        return Finding(text, advice, is_note=True)
    refused = [
        name for name, error in errors.items() if isinstance(error, Unauthorized | Forbidden)
    ]
    unknown = [name for name in errors if name not in refused]
    text = f"{label}: refused {at} {', '.join(refused) or f'no {noun}'}"
    if unknown:
        return Finding(
            f"{text}; no answer from {', '.join(unknown)} ({errors[unknown[0]]})",
            "Check the network, or try again later",
            Exit.FAILED,
        )
    return Finding(
        f"{text}, which is every {noun}",
        f"It is not the {noun}: {service.advice}",
        Exit.CREDENTIALS,
    )


def _knows_the_credentials(error: AltaProfilesError | None) -> bool:
    """Return whether the service itself refuses an account that it knows: its plan, its rate."""
    if not isinstance(error, Forbidden | RateLimited) or error.code is None:
        return False
    # CleverTap may forbid an account that it does not know.
    return not may_be_elsewhere(error)
