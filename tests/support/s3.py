"""An S3 server on loopback, which can hold up a request or refuse it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from .tasks import PATIENCE

__all__ = ["KEY", "NOTHING", "SECRET", "Bucket", "s3_server"]

KEY, SECRET = "AKIATESTTESTTESTTEST", "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"

NOTHING = "(?!)"
"""A pattern that is found in no line."""

DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)


class _Gate:
    """Passes requests on to a server, in the order in which they come."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self.bucket: Bucket | None = None

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        bucket = self.bucket
        if bucket is not None and environ["PATH_INFO"].startswith(f"/{bucket.name}"):
            line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
            bucket.requests.append(line)
            if re.search(bucket.refuses, line):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [DENIED]
            if re.search(bucket.holds, line):
                bucket.held.set()
                bucket.free.wait(PATIENCE)
        return self._application(environ, start)


class Bucket:
    """A bucket that is empty at first.

    Attributes:
        name: its name.
        environment: the variables with which s3fs finds it.
        requests: method, path and query of the requests to it.
        refuses: a pattern that is found in the line of a request that is refused.
        holds: the same of a request that waits for `free`, and sets `held`.
    """

    def __init__(self, url: str) -> None:
        import boto3

        self.name = f"bucket-{uuid4().hex}"
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.requests: list[str] = []
        self.refuses = self.holds = NOTHING
        self.held, self.free = threading.Event(), threading.Event()
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket=self.name)

    def address(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    @property
    def keys(self) -> list[str]:
        found = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(one["Key"] for one in found)

    @property
    def uploads(self) -> int:
        """The number of uploads that have begun, and have neither ended nor been aborted."""
        return len(self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))

    def writes(self) -> list[str]:
        """Return the keys of objects in the order in which requests made them visible."""
        made = [
            line.partition("?")[0].split(" ", 1)[1].removeprefix(f"/{self.name}/")
            for line in self.requests
            if (line.startswith("PUT") and "partNumber" not in line)
            or (line.startswith("POST") and "uploadId" in line)
        ]
        return [key for key in made if key]


@contextmanager
def s3_server() -> Iterator[Callable[[], Bucket]]:
    """Run a server, and give a function that makes a bucket, to which all requests go then."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    # It logs each request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = _Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def make() -> Bucket:
        gate.bucket = Bucket(f"http://127.0.0.1:{server.port}")
        return gate.bucket

    try:
        yield make
    finally:
        if gate.bucket is not None:
            gate.bucket.free.set()
        server.shutdown()
        thread.join()
        server.server_close()
