"""The services' own host names on loopback: a proxy leads all of them to one TLS server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trustme
from anyio.from_thread import start_blocking_portal

from altaprofiles.credentials import ENDPOINTS, REGIONS

from .servers import http, join, listening, read_request

__all__ = ["Hosts", "hosted"]


class Hosts:
    """The server behind all host names.

    Attributes:
        env: the variables that lead a process there.
        connected: the hosts that a connection was made to, in order.
        heads: the host and the head of each request.
    """

    def __init__(self, answer: Callable[[str, str], bytes]) -> None:
        self.env: dict[str, str] = {}
        self.connected: list[str] = []
        self.heads: list[tuple[str, str]] = []
        self._answer = answer

    @property
    def got_credentials(self) -> list[str]:
        """The hosts that were sent credentials, each once."""
        told = [host for host, head in self.heads if "\r\nAuthorization: Bearer " in head]
        told += [host for host, head in self.heads if "\r\nX-CleverTap-Passcode: " in head]
        return list(dict.fromkeys(told))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data, _ = await read_request(reader)
            head = data.decode()
            host = next(line[6:] for line in head.split("\r\n") if line.startswith("Host: "))
            self.heads.append((host, head))
            is_greeting = head.startswith("HEAD ")
            writer.write(http(b"") if is_greeting else self._answer(host, head))
            await writer.drain()


@contextmanager
def hosted(folder: Path, answer: Callable[[str, str], bytes]) -> Iterator[Hosts]:
    """Serve all hosts of both services until the block is left.

    Args:
        folder: for the certificate of their authority.
        answer: returns the response for a host and the head of a request.
    """
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(_served(folder, answer)) as hosts:
            yield hosts


@asynccontextmanager
async def _served(folder: Path, answer: Callable[[str, str], bytes]) -> AsyncIterator[Hosts]:
    authority = trustme.CA()
    certificate = folder / "hosts.pem"
    authority.cert_pem.write_to_path(certificate)
    names = [urlsplit(url).netloc for url in (*ENDPOINTS.values(), *REGIONS.values())]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    hosts = Hosts(answer)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(hosts.serve, context))

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head, _ = await read_request(reader)
            hosts.connected.append(head.split()[1].decode().removesuffix(":443"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await join(reader, writer, "127.0.0.1", port)

        proxy = await stack.enter_async_context(listening(tunnel))
        hosts.env = {
            "HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
            "NO_PROXY": "127.0.0.1",
            "SSL_CERT_FILE": str(certificate),
        }
        yield hosts
