"""Objects in a bucket: their addresses, and their upload with fsspec. Blocking.

The file systems of fsspec make an object visible when its last byte has arrived, and not before.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...base.checks import shown
from ...base.extras import require
from ...errors import ExportError, InvalidArgument, MissingExtra
from ...redaction import Secret, masked

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Remote"]

_DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""The module that fsspec needs for each scheme."""

_FORM = "s3://bucket/people.parquet"
_SCHEME = re.compile(rf"({'|'.join(_DRIVERS)}):/", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9$._-]*")

_PART = 8 << 20
"""Size of a part of an upload, in bytes."""

_MOST_PARTS = 10_000
"""Parts that S3 takes for one object ("Amazon S3 multipart upload limits")."""

_AT_ONCE = 4
"""Parts of an upload that are sent at the same time. Each is in memory."""

_SECRETS = re.compile("key|secret|token|password|passwd|credential|connection|sas", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=//)[^/\s\"'@]+@")
_LONGEST_NAME = 60


T = TypeVar("T")


class Remote:
    """A file in a bucket, and the files beside it.

    Credentials and endpoints are those that s3fs, gcsfs and adlfs find themselves: in the
    environment, in their configuration, or in that of fsspec.

    Args:
        scheme: "s3", "gs" or "az".
        place: the bucket and the key, with a slash between them.

    Attributes:
        address: the URL. It holds no credentials.
    """

    def __init__(self, scheme: str, place: str) -> None:
        self._scheme = scheme
        self._place = place
        self.address = f"{scheme}://{place}"

    @staticmethod
    def scheme_of(text: str) -> str | None:
        """Return the scheme of an address in a bucket, valid or not; None for any other text."""
        found = _SCHEME.match(text)
        return None if found is None else found[1].lower()

    @classmethod
    def parse(cls, text: str) -> Remote | None:
        """Return the object that `text` names, or None for a path or a URL of another kind.

        Raises:
            InvalidArgument: it is not of the form `s3://bucket/key`, or holds credentials. The
                message does not show it.
        """
        if (found := _SCHEME.match(text)) is None:
            return None
        scheme = found[1].lower()
        if not text[found.end() :].startswith("/"):
            raise InvalidArgument(
                f"to: {scheme}: is followed by one slash, as in a `Path` made of a URL; pass the "
                f"URL as text, such as {_FORM}"
            )
        # Tracebacks with locals would show a password.
        place = Secret(text[found.end() + 1 :])
        bucket, key = map(Secret, place.partition("/")[::2])
        if "@" in bucket or ":" in bucket:
            raise InvalidArgument(
                f"to: an address in a bucket holds no credentials; write {scheme}://bucket/key, "
                f"and set them in the environment, where {_DRIVERS[scheme]} finds them"
            )
        if not _BUCKET.fullmatch(bucket) or not key:
            raise InvalidArgument(
                f"to: {scheme}:// is followed by a bucket and a file in it; write {_FORM}"
            )
        if "?" in key or "#" in key:
            raise InvalidArgument(
                "to: a ? or a # in a remote address is not a part of a file's name; leave it out"
            )
        if not key.isprintable():
            raise InvalidArgument(
                "to: the name of a remote file holds a character that cannot be printed; choose "
                "another name"
            )
        if key.endswith("/"):
            address = f"{scheme}://{place}"
            raise InvalidArgument(
                f"to: {shown(address)} is a folder, and a remote output is one file; add a file "
                f"name, as in {_FORM}",
                value=address,
            )
        return cls(scheme, str.__str__(place))

    @property
    def name(self) -> str:
        """The name of the file, without the folders in front of it."""
        return self._place.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name of local files that belong to this output and to no other."""
        plain = re.sub(r"[^\w.-]", "_", f"{self._scheme}_{self._place}", flags=re.ASCII)
        return f"{plain[-_LONGEST_NAME:].lstrip('.')}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        """Identifies the output."""
        return hashlib.sha256(self.address.encode()).hexdigest()

    def require_driver(self) -> None:
        """Raise `MissingExtra` unless fsspec and its module for the scheme are installed."""
        fsspec = require("remote", what=f"to: {self.address!r}")
        driver = _DRIVERS[self._scheme]
        try:
            fsspec.get_filesystem_class(self._scheme)
        except ImportError:
            fault = f"needs {driver} beside fsspec; install it with: pip install {driver}"
        except Exception as error:
            fault = (
                f"needs {driver}, which cannot be imported ({error}); install it again with: pip "
                f"install --force-reinstall {driver}"
            )
        else:
            return
        raise MissingExtra(f"to: {self.address!r} {fault}")

    def check(self) -> None:
        """Raise `ExportError` unless the file can be written. Leaves nothing that can be seen."""
        self._guard("written", self._check)

    def _check(self) -> None:
        if self._scheme == "az":
            # There, a file that is opened and not written is put in place all the same.
            self._files.info(self._place.partition("/")[0])
            return
        file = self._files.open(self._place, "wb", autocommit=False)
        try:
            # Begins an upload, which is never completed.
            file.write(b"\n")
            file.flush(force=True)
        finally:
            with suppress(Exception):
                file.discard()
            # Otherwise it would be completed when the object is deleted.
            file.closed = True

    def upload(self, path: Path, ending: str, is_stopped: Callable[[], bool]) -> None:
        """Upload a local file, in parts. It is visible when it is complete.

        Args:
            path: the local file.
            ending: what follows the name of the output.
            is_stopped: called after each part. Once it returns true, the upload is abandoned.

        Raises:
            ExportError: the file cannot be uploaded, or the upload was abandoned.
        """
        from fsspec.callbacks import Callback

        class Progress(Callback):  # type: ignore[misc]
            def call(self, hook_name: str | None = None, **values: Any) -> None:
                if is_stopped():
                    raise InterruptedError("the upload was abandoned")

        size = path.stat().st_size
        options: dict[str, Mapping[str, int]] = {
            "s3": {"chunksize": max(_PART, -(-size // _MOST_PARTS)), "max_concurrency": _AT_ONCE},
            "gs": {"chunksize": _PART},
            "az": {"max_concurrency": _AT_ONCE},
        }
        put = partial(
            self._files.put_file,
            str(path),
            self._place + ending,
            callback=Progress(),
            **options[self._scheme],
        )
        self._guard("written", put, ending)

    def remove(self, ending: str) -> None:
        """Remove a file beside the output, unless there is none.

        Raises:
            ExportError: it cannot be removed.
        """
        # In a bucket with versions, each removal of a file that is missing leaves a mark.
        if self.size(ending) is not None:
            self._guard("removed", lambda: self._files.rm_file(self._place + ending), ending)

    def read(self, ending: str) -> bytes | None:
        """Return the content of a file beside the output, or None if there is none.

        Raises:
            ExportError: it cannot be read.
        """
        return self._guard("read", lambda: self._files.cat_file(self._place + ending), ending)

    def size(self, ending: str = "") -> int | None:
        """Return the size of the file, or of one beside it, or None if there is none.

        Raises:
            ExportError: it cannot be read.
        """
        name = self._place + ending
        return self._guard("read", lambda: int(self._files.info(name)["size"]), ending)

    @cached_property
    def _files(self) -> AbstractFileSystem:
        import fsspec

        # An instance that is shared would keep the environment and the listings of earlier calls.
        return fsspec.filesystem(self._scheme, skip_instance_cache=True, use_listings_cache=False)

    def _guard(self, doing: str, call: Callable[[], T], ending: str = "") -> T | None:
        """Return the result of `call`, or None if a file that it reads or removes is missing.

        Raises:
            ExportError: in the place of every error of fsspec and of the modules that it calls.
        """
        try:
            return call()
        except Exception as error:
            if isinstance(error, FileNotFoundError) and doing != "written":
                return None
            reason = self._reason(error)
        # Outside of the handler, so that the error of another library does not stay as the context.
        raise ExportError(
            f"{self.address}{ending} cannot be {doing}: {reason}; correct the address, or the "
            f"credentials and the endpoint that {_DRIVERS[self._scheme]} finds"
        )

    def _reason(self, error: Exception) -> str:
        """Return the reason for an error, in one line and without credentials."""
        from fsspec.config import conf

        configured = conf.get(self._scheme, {})
        values = {**os.environ, **configured}
        secrets = [
            value
            for name, value in values.items()
            if isinstance(value, str) and len(value) > 3 and _is_secret(name, name in configured)
        ]
        text = _USER_IN_URL.sub("***@", " ".join(str(error).split()))
        name = type(error).__name__
        return masked(f"{name}: {text}" if text else name, secrets)


_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "GCS_", "FSSPEC_")


def _is_secret(name: str, is_configured: bool) -> bool:
    return (is_configured or name.startswith(_PREFIXES)) and _SECRETS.search(name) is not None
