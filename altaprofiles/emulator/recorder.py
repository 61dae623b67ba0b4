"""A proxy on loopback that writes a run against the real services down as a replay, scrubbed."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from ..http.proxies import Proxies, hide_proxy
from ..http.transport import Timeout, check_context, translated
from .exchanges import HEADER, recognize, scrub
from .listener import Listener
from .scrubber import Scrubber

if TYPE_CHECKING:
    from os import PathLike
    from ssl import SSLContext

    from ..credentials import Alta, CleverTap

__all__ = ["Recorder"]

_NOT_FORWARDED = frozenset(
    {
        *("host", "connection", "keep-alive", "content-length", "transfer-encoding", "te"),
        *("trailer", "upgrade", "expect", "accept-encoding", "proxy-authorization"),
        "proxy-connection",
    }
)
"""Headers of one connection, which the next one has on its own."""

_TIMEOUT = Timeout(connect=30.0, read=300.0, total=None)

_RETURNED = ("content-type", "retry-after")
_RETURNED_FAMILY = "x-ratelimit-"


class Recorder:
    """Records a run against the real services into a file that `Emulator(replay=…)` serves.

    An async context manager: a proxy on loopback, between a client and the services. Any client can
    be recorded. It keeps its own credentials, and its base URLs are `url`, as in `clevertap`,
    `alta` and `environment`. The proxy passes requests on byte for byte, and answers as soon as
    they are whole. It neither retries nor limits.

    The file is a replay without anything of a person. Every value of a record or of a binding is
    replaced by another one of its type, equal values equally, so that lookups and joins still fit
    together: an identity in a record, in a request and in a binding stays the same. Names of
    properties and of events, dates of queries and numbers of people stay. Values of filters are
    replaced, and cursors become other tokens. Headers, and with them credentials, are not written;
    of the text of a failure only words are that the vendors use. Each recorder replaces in its own
    way, which is nowhere but in its memory, so that two recordings cannot be joined. A program that
    asks for a key of its own finds the one in its place by `replaced`.

    An exchange is written before its answer is passed on. One without a whole answer of the service
    is HTTP 502 to the client, with the reason. It is not written, and neither is a call that the
    emulator does not know. A file that is there is replaced. The file is NDJSON, and grows by a
    line for each exchange; the memory in use does not grow with it. Some hundred large records, or
    some thousand small ones, are scrubbed in a second.

    Args:
        to: the file to write.
        clevertap: the credentials of the account to record; of these, only the URL is used.
        alta: the credentials of the agent to record, likewise.
        port: the TCP port to listen on, or 0 for any free one.
        trust_env, ssl, proxy: of the connections to the services, as for `altaprofiles.Session`.

    Attributes:
        recorded: the number of exchanges in the file.

    Raises:
        ValueError: neither service is given.
        ConfigurationError: `trust_env`, `ssl` or `proxy` cannot work; when the recorder is entered,
            a variable of the environment for a proxy.
        OSError: the file cannot be written, when the recorder is entered or exited; or the port is
            taken.

    >>> from pathlib import Path
    >>> from altaprofiles.emulator import Emulator, Recorder
    >>> service = Emulator(records=[{"identity": "ann", "email": "ann@example.com"}])
    >>> async with service, Recorder("run.ndjson", clevertap=service.clevertap) as recorder:
    ...     async with Session(clevertap=recorder.clevertap) as session:
    ...         ann = await session.profiles.get(identity="ann")
    >>> recorder.recorded, "ann@example.com" in Path("run.ndjson").read_text()
    (1, False)
    """

    def __init__(
        self,
        to: str | PathLike[str],
        *,
        clevertap: CleverTap | None = None,
        alta: Alta | None = None,
        port: int = 0,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        # It may hold a password, which a traceback with locals would show.
        hidden, proxy = hide_proxy(proxy), None
        if clevertap is None and alta is None:
            raise ValueError("clevertap or alta: give the credentials of a service to record")
        self._to = Path(to)
        self._clevertap = clevertap
        self._alta = alta
        self._port = port
        self._context = check_context(ssl)
        self._routes = Proxies(hidden, trust_env=trust_env)
        self._listener = Listener(self._handle, lambda change: None)
        self._scrubber = Scrubber()
        self._failure: OSError | None = None
        self.recorded = 0

    async def __aenter__(self) -> Self:
        if self._listener.url is not None:
            raise RuntimeError("this recorder is already running; create another one")
        self._proxies = {
            service.url: self._routes.to(service.url)
            for service in (self._clevertap, self._alta)
            if service is not None
        }
        self._file: BinaryIO = self._to.open("wb")
        try:
            self._file.write(msgspec.json.encode(HEADER) + b"\n")
            await self._listener.start(self._port)
        except BaseException:
            self._file.close()
            raise
        # One thread, so that lines are written one after the other.
        self._writer = ThreadPoolExecutor(1, "altaprofiles-recorder")
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._context or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_TIMEOUT.connect, sock_read=_TIMEOUT.read
            ),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._listener.url is None:
            return
        await self._listener.stop()
        await self._client.close()
        await asyncio.to_thread(self._writer.shutdown)
        try:
            self._file.close()
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None and kind is None:
            raise self._failure

    def __repr__(self) -> str:
        place = "not running" if self._listener.url is None else self._listener.url
        return f"<Recorder to {str(self._to)!r}, recorded={self.recorded}, {place}>"

    @property
    def url(self) -> str:
        """The base URL for both services, such as "http://127.0.0.1:40123".

        Raises:
            RuntimeError: the recorder is not running.
        """
        if self._listener.url is None:
            raise RuntimeError("the recorder has a URL only while it runs; enter it: async with …")
        return self._listener.url

    @property
    def clevertap(self) -> CleverTap:
        """The credentials of the account, with the recorder's URL.

        Raises:
            RuntimeError: the recorder is not running, or does not record CleverTap.
        """
        if self._clevertap is None:
            raise RuntimeError("this recorder has no CleverTap account; pass clevertap")
        return dataclasses.replace(self._clevertap, base_url=self.url)

    @property
    def alta(self) -> Alta:
        """The credentials of the agent, with the recorder's URL.

        Raises:
            RuntimeError: the recorder is not running, or does not record Alta.
        """
        if self._alta is None:
            raise RuntimeError("this recorder has no Alta agent; pass alta")
        return dataclasses.replace(self._alta, base_url=self.url, endpoint=None)

    @property
    def environment(self) -> dict[str, str]:
        """Base URLs as environment variables, for programs that have their own credentials."""
        variables = {}
        if self._clevertap is not None:
            variables["CLEVERTAP_BASE_URL"] = self.url
        if self._alta is not None:
            # A platform and a base URL exclude each other.
            variables |= {"ALTA_BASE_URL": self.url, "ALTA_ENDPOINT": ""}
        return variables

    def replaced(self, key: str | int) -> str:
        """Return the text that stands in the file for a key, an e-mail address or another value.

        A replay is asked for it. Only this recorder can tell it, also after its end.

        Args:
            key: a value as it was sent; a number as text or as an int.

        Raises:
            ValueError: it is neither.

        >>> from altaprofiles.emulator import Emulator, Recorder
        >>> service = Emulator(records=[{"identity": "ann"}])
        >>> async with service, Recorder("run.ndjson", clevertap=service.clevertap) as recorder:
        ...     async with Session(clevertap=recorder.clevertap) as session:
        ...         ann = await session.profiles.get(identity="ann")
        >>> async with Emulator(replay="run.ndjson") as emulator:
        ...     async with Session(clevertap=emulator.clevertap) as session:
        ...         ann = await session.profiles.get(identity=recorder.replaced("ann"))
        """
        is_key = isinstance(key, str | int) and not isinstance(key, bool)
        if not is_key:
            raise ValueError(f"key: expected text or an int, got a {type(key).__name__}")
        return self._scrubber.text(str(key))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        service = self._alta if target.startswith("/v1/") else self._clevertap
        sent = await request.read()
        exchange = recognize(request.method, target, sent)
        if service is None:
            message = "the recorder has no credentials of the service for this path"
            return web.json_response({"status": "fail", "error": message, "code": 404}, status=404)
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_FORWARDED
        ]
        proxy = self._proxies[service.url]
        try:
            async with self._client.request(
                request.method,
                # Encoded already: a cursor arrives byte for byte.
                URL(service.url + target, encoded=True),
                headers=headers,
                data=sent or None,
                allow_redirects=False,
                proxy=proxy and proxy.url,
                proxy_headers=proxy and proxy.headers,
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            host = urlsplit(service.url).netloc
            return _unreachable(target, translated(error, host, _TIMEOUT, proxy))
        if exchange is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._writer, self._write, exchange, answer.status, body)
        returned = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() in _RETURNED or name.lower().startswith(_RETURNED_FAMILY)
        }
        return web.Response(status=answer.status, headers=returned, body=body)

    def _write(self, request: dict[str, object], status: int, body: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._file.write(scrub(request, status, body, self._scrubber))
            self._file.flush()
        except OSError as error:
            self._failure = error
        else:
            self.recorded += 1


def _unreachable(target: str, error: Exception) -> web.Response:
    """Return a failure that clients retry, in the form of the service for a request target."""
    message = f"the recorder got no answer of the service: {error}"
    body: dict[str, object] = {"status": "fail", "error": message, "code": 502}
    if target.startswith("/v1/"):
        body = {"code": 50000, "message": message}
    return web.json_response(body, status=502)
