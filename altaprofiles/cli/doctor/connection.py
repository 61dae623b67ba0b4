"""The connection to a service: name resolution, proxy, TLS, clock. Sends no credentials."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from ...errors import ConfigurationError, ConnectError
from ...http.proxies import Proxy, proxy_from_env
from ...http.transport import proxy_refusal
from ..exits import Exit
from .findings import Finding

__all__ = ["check_connection"]

_LARGEST_SKEW = 60.0
"""Difference between this machine's clock and the service's that does no harm, in seconds."""


async def check_connection(service: str, url: str, patience: float) -> AsyncIterator[Finding]:
    """Yield a finding for each step of a connection to a service, and one for its clock.

    The first step that fails is the last finding.

    Args:
        service: its name.
        url: its address.
        patience: the longest wait for each step, in seconds.
    """
    try:
        found = proxy_from_env(url)
    except ConfigurationError as error:
        yield Finding(f"{service}: {error}", "Correct the environment", Exit.FAILED)
        return
    parts = urlsplit(url)
    host, port = _address(urlsplit(url if found is None else found.url))
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            resolved = await loop.getaddrinfo(host, port, type=0)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or f"no answer within {patience:g} s"
        yield Finding(
            f"{service}: the name {host} does not resolve: {reason}",
            f"Check the network, and the proxy that {found.setting} names"
            if found
            else "Check the network, and the region or base URL",
            Exit.FAILED,
        )
        return
    addresses = ", ".join(list(dict.fromkeys(str(entry[4][0]) for entry in resolved))[:3])
    if found:
        yield Finding(f"{service}: {parts.hostname} through the proxy {host}:{port} ({addresses})")
    else:
        yield Finding(f"{service}: {host}" + ("" if host == addresses else f" is {addresses}"))
    connection = _Connection(url, found)
    try:
        async with asyncio.timeout(patience):
            started = time.time()
            head = await connection.greet()
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            f"{service}: the certificate of {parts.hostname} is refused: {error.verify_message}",
            "Check this machine's clock. If a proxy intercepts TLS, let SSL_CERT_FILE name its "
            "certificate",
            Exit.FAILED,
        )
        return
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        reason = getattr(error, "strerror", None) or str(error) or f"no answer in {patience:g} s"
        # What a proxy refuses has the words of the calls.
        is_refused = isinstance(error, ConnectError)
        yield Finding(
            f"{service}: {error if is_refused else f'no connection to {host}:{port}: {reason}'}",
            "Check the network and its firewall"
            if found is None
            else f"Check the proxy that {found.setting} names, or unset it",
            Exit.FAILED,
        )
        return
    finally:
        connection.close()
    yield Finding(
        f"{service}: connected to {':'.join(map(str, _address(parts)))}, {connection.encryption}"
    )
    yield _clock(service, head, (started + time.time()) / 2)


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _Connection:
    """A connection to a service, through the proxy if there is one.

    Attributes:
        encryption: TLS version and certificate, in words.
    """

    def __init__(self, url: str, proxy: Proxy | None) -> None:
        self._service = urlsplit(url)
        self._proxy = proxy
        login = {} if proxy is None else proxy.headers or {}
        self._login = "".join(f"{name}: {value}\r\n" for name, value in login.items())
        self._writer: asyncio.StreamWriter | None = None
        self.encryption = "not connected"

    async def greet(self) -> bytes:
        """Connect, and return the head of the response to a request without credentials.

        Raises:
            ConnectError: the proxy refuses the connection.
            OSError, IncompleteReadError, LimitOverrunError: there is no connection, or no answer.
        """
        host, port = _address(self._service)
        encrypted = self._service.scheme == "https"
        first = self._service if self._proxy is None else urlsplit(self._proxy.url)
        reader, writer = await asyncio.open_connection(*_address(first))
        self._writer = writer
        if first.scheme == "https":
            await writer.start_tls(ssl.create_default_context(), server_hostname=first.hostname)
        path, login = "/", ""
        if self._proxy is not None and encrypted:
            target = f"{host}:{port}"
            writer.write(
                f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._login}\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            status, reason = _status(head)
            if status != 200:
                raise proxy_refusal(self._service.netloc, self._proxy, status, reason)
            await writer.start_tls(ssl.create_default_context(), server_hostname=host)
        elif self._proxy is not None:
            path, login = f"{self._service.geturl()}/", self._login
        writer.write(
            f"HEAD {path} HTTP/1.1\r\nHost: {self._service.netloc}\r\n{login}"
            f"Connection: close\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if self._proxy is not None and _status(head)[0] == 407:
            raise proxy_refusal(self._service.netloc, self._proxy, 407, "")
        tls = writer.get_extra_info("ssl_object") if encrypted else None
        self.encryption = (
            "not encrypted" if tls is None else f"{tls.version()}, certificate trusted"
        )
        return head

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()


def _status(head: bytes) -> tuple[int, str]:
    """Return the status of a response, and the words beside it.

    Raises:
        OSError: it is not HTTP.
    """
    line = head.partition(b"\r\n")[0].decode("latin-1")
    if (found := re.match(r"HTTP/[\d.]+ (\d{3})(.*)", line)) is None:
        raise OSError(f"the answer begins with {line!r}, which is not HTTP")
    return int(found[1]), found[2].strip()


def _clock(service: str, head: bytes, now: float) -> Finding:
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "date":
            try:
                # The header is truncated to whole seconds.
                skew = now - parsedate_to_datetime(value.strip()).timestamp() - 0.5
            except ValueError:
                break
            if abs(skew) <= _LARGEST_SKEW:
                return Finding(
                    f"{service}: this machine's clock is right to {max(abs(skew), 1):.0f} s"
                )
            return Finding(
                f"{service}: this machine's clock is {abs(skew):,.0f} s "
                f"{'ahead' if skew > 0 else 'behind'}",
                "Let it follow a time server: certificates and the date of “today” depend on it",
                Exit.FAILED,
            )
    return Finding(f"{service}: sends no Date header, so the clock is unchecked", is_note=True)
